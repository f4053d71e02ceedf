"""Command groups whose verbs are imported only when they are called, so that ``--help`` is instant."""

from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup


class LazyGroup(TyperGroup):
    """A command group over modules that each define a typer app called ``app``.

    Subclasses give `verbs` (name to one line of help) and `modules` (where verb ``x-y`` lives, as a format string
    that is filled in with ``x_y``).
    """

    verbs: ClassVar[dict[str, str]] = {}
    modules: ClassVar[str] = ""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the verbs, in the order in which they are listed."""
        return list(self.verbs)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import the verb's module and return its command; None for an unknown verb."""
        if cmd_name not in self.verbs:
            return None
        module = import_module(self.modules.format(cmd_name.replace("-", "_")))
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the verbs with their help without importing any of them."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(self.verbs.items()))
