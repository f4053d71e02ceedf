"""``genecompass benchmark standard``: the whole table of a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import ModelOptions, OutputFolder

app = new_app()


@command(app, example="genecompass benchmark standard plan.yaml --model my_checkpoint -o standard")
def standard(
    plan: Annotated[
        Path, typer.Argument(metavar="PLAN", help="YAML or JSON: which data stand for which task (docs/standard.md).")
    ],
    model: ModelOptions,
    output: OutputFolder,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Run this part only. Repeatable.", rich_help_panel="Parts")
    ] = None,
) -> None:
    """Make the whole table of a checkpoint: every part of a plan; finished parts are kept and not repeated.

    Writes standard.json, which `genecompass card` reads, standard.csv and standard.md.
    """
    from genecompass.eval.tasks.standard import benchmark_standard

    typer.echo(benchmark_standard(plan, model.model, output, only=only, device=model.device, echo=typer.echo))
