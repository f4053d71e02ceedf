"""``genecompass demo``: the whole path on real cells, offline."""

from typing import Annotated

import typer

from genecompass.commands.grammar import Verb, new_app
from genecompass.commands.options import OUTPUT

app = new_app()


@app.command(
    cls=Verb, epilog="Example: genecompass demo pancreas.h5ad --species mouse --label cell_type -o pancreas_demo"
)
def demo(
    source: Annotated[
        str | None,
        typer.Argument(metavar="[INPUT]", help="Labelled raw counts (.h5ad); blood cells inside scanpy by default."),
    ] = None,
    output: Annotated[
        str, typer.Option(*OUTPUT, help="Folder for everything the demo makes.", rich_help_panel="Output")
    ] = "demo_output",
    species: Annotated[
        str | None, typer.Option(help="Species of the cells; needed with INPUT.", rich_help_panel="Cells")
    ] = None,
    label: Annotated[str, typer.Option(help="obs column of cell types.", rich_help_panel="Cells")] = "cell_type",
    quick: Annotated[
        bool, typer.Option("--quick", help="A much shorter training, to see that everything runs.")
    ] = False,
    seed: Annotated[
        int, typer.Option(help="Of the split, the weights, the masks and the draws.", rich_help_panel="Statistics")
    ] = 0,
) -> None:
    """Walk the whole path on real cells: counts, vocabulary, corpus, priors, pre-training, labels, a deletion.

    Leaves a checkpoint, a LoRA adapter, an annotated .h5ad and report.html in the output folder.
    """
    from genecompass.eval.demo.options import DemoOptions
    from genecompass.eval.demo.report import summary
    from genecompass.eval.demo.walk import run_demo
    from genecompass.tokenization.errors import InputError

    if source is not None and species is None:
        raise InputError(f"{source}: give the species of these cells with --species")
    species = species or "human"  # the cells inside scanpy
    short = {"steps": 12, "epochs": 1, "max_cells": 400, "max_length": 128, "null_genes": 20} if quick else {}
    options = DemoOptions(output=output, data=source, species=species, label=label, seed=seed, **short)  # type: ignore[arg-type]
    result = run_demo(options, typer.echo)
    typer.echo(summary(result, options))
