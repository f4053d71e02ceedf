"""How a verb is declared: shared options are dataclasses, help has a section a subject, errors name options."""

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from genecompass.tokenization.errors import InputError

_NAMED = re.compile(r"\b([a-z][a-z_]*)=('[^']*'|\"[^\"]*\"|[\w.,]+)")


class Verb(TyperCommand):
    """A command whose help lists options by subject, and whose errors speak of options, not of parameters."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then options, section by section."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            other = "Arguments" if param.param_type_name == "argument" else "Options"
            sections.setdefault(getattr(param, "rich_help_panel", None) or other, []).append(record)
        for name in sorted(sections, key=lambda name: (name != "Arguments", name == "Options")):
            with formatter.section(name):
                formatter.write_dl(sections[name])

    def invoke(self, ctx: Any) -> Any:
        """Run; ``species='mouse'`` in a complaint becomes ``--species mouse`` where there is such an option."""
        try:
            return super().invoke(ctx)
        except InputError as error:
            options = {param.name: param.opts[0] for param in self.params if param.opts[0][0] == "-"}
            raise InputError(as_options(" ".join(str(error).split()), options)) from error


def as_options(text: str, options: dict[str, str]) -> str:
    """A message about parameters in the words of the command line.

    Examples
    --------
    >>> as_options("pass species='mouse', or rescue_ids=True", {"species": "--species", "rescue_ids": "--rescue-ids"})
    'pass --species mouse, or --rescue-ids'
    """

    def option(found: re.Match[str]) -> str:
        name, value = options.get(found[1]), found[2].strip("'\"")
        if name is None:
            return found[0]
        return name if value == "True" else f"{name} {value}"

    return _NAMED.sub(option, text)


def new_app(help: str | None = None, cls: type[TyperGroup] | None = None) -> typer.Typer:
    """A typer app for one verb, or with `help` for a group of them."""
    group = help is not None
    app = typer.Typer(cls=cls, help=help, no_args_is_help=group, add_completion=False, rich_markup_mode=None)
    if help is not None:
        app.callback()(lambda: None)
    return app


def command(
    app: typer.Typer, name: str | None = None, *, example: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Declare a command of `app`; a parameter whose type is a dataclass stands for the options that are its fields.

    Parameters
    ----------
    app
        Where it belongs.
    name
        If not the function's.
    example
        Shown below the help; files are those that ``genecompass demo`` leaves, where it leaves such.
    """

    def declare(function: Callable[..., None]) -> Callable[..., None]:
        spread = _spread(function)
        app.command(name, cls=Verb, no_args_is_help=True, epilog=f"Example: {example}")(spread)
        return function

    return declare


def _spread(function: Callable[..., None]) -> Callable[..., None]:
    """`function` with its dataclass parameters replaced by their fields."""
    hints = get_type_hints(function, include_extras=True)
    groups = {name: kind for name, kind in hints.items() if dataclasses.is_dataclass(kind)}
    given = []
    for parameter in inspect.signature(function).parameters.values():
        kind = groups.get(parameter.name)
        fields = [parameter.replace(annotation=hints[parameter.name])] if kind is None else _fields(kind)
        given += [field.replace(kind=inspect.Parameter.KEYWORD_ONLY) for field in fields]

    @functools.wraps(function)
    def run(**values: Any) -> None:
        for name, kind in groups.items():
            own = {field.name: values.pop(field.name) for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
            values[name] = kind(**own)  # type: ignore[operator]
        function(**values)

    run.__signature__ = inspect.Signature(given)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in given}
    return run


def _fields(kind: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    parameters = []
    for field in dataclasses.fields(kind):
        default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
        for info in getattr(hints[field.name], "__metadata__", ()):
            info.rich_help_panel = kind.PANEL
        parameters.append(
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[field.name])
        )
    return sorted(parameters, key=lambda parameter: parameter.default is not inspect.Parameter.empty)
