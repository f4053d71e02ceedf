"""How the site is built: references from the code, tutorials executed, warnings as errors (``make docs``)."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import genecompass
from genecompass.cli import VERBS

DOCS = Path(__file__).resolve().parent
# tutorials run where `make docs` left the demo's output, and leave their own files there
os.environ["GENECOMPASS_TUTORIALS"] = str(DOCS.parent / "build" / "tutorials")

project = "GeneCompass"
author = "The GeneCompass package authors"
release = version = installed_version("genecompass")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "GeneCompass"
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False


def _help(*verb: str) -> str:
    command = [sys.executable, "-m", "genecompass.cli", *verb, "--help"]
    environment = {**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "100"}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.rstrip()


def _subcommands(verb: str) -> Iterator[str]:
    """Verbs below a verb, asked of the command itself."""
    from typer.main import get_command

    from genecompass.cli import app

    group: Any = get_command(app)
    command = group.get_command(None, verb)
    yield from command.list_commands(None) if hasattr(command, "list_commands") else ()


def _commands_page() -> str:
    parts = ["# Commands\n\nWhat each verb prints with `--help`.\n"]
    for verb, line in VERBS.items():
        parts.append(f"## {verb}\n\n{line}\n\n```text\n{_help(verb)}\n```\n")
        parts += [f"### {verb} {sub}\n\n```text\n{_help(verb, sub)}\n```\n" for sub in _subcommands(verb)]
    return "\n".join(parts)


def _python_page() -> str:
    parts = ["# Python\n\n`import genecompass as gc` costs nothing: each name is imported on first use.\n"]
    for name in sorted(genecompass.__all__):
        if name == "__version__":
            continue
        kind = "autoclass" if isinstance(getattr(genecompass, name), type) else "autofunction"
        members = "\n   :members:" if kind == "autoclass" else ""
        parts.append(f"## gc.{name}\n\n```{{eval-rst}}\n.. {kind}:: genecompass.{name}{members}\n```\n")
    return "\n".join(parts)


def _write(path: Path, text: str) -> None:
    """Only what changed, so that nothing is built twice."""
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


_write(DOCS / "reference" / "commands.md", _commands_page())
_write(DOCS / "reference" / "python.md", _python_page())
_write(DOCS / "changelog.md", (DOCS.parent / "CHANGELOG.md").read_text(encoding="utf-8"))
