"""``genecompass demo``: the whole path on real cells, offline."""

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog="Example: genecompass demo --data pancreas.h5ad --species mouse --label cell_type -o pancreas_demo")
def demo(
    output: str = typer.Option("demo_output", "--output", "-o", help="Folder for everything the demo makes."),
    data: str = typer.Option(None, "--data", help="Labelled raw counts (.h5ad); default: blood cells inside scanpy."),
    species: str = typer.Option("human", "--species", help="Species of the cells."),
    label: str = typer.Option("cell_type", "--label", help="Column of obs with cell types."),
    quick: bool = typer.Option(False, "--quick", help="A much shorter training, to see that everything runs."),
    seed: int = typer.Option(0, "--seed", help="Of the split, the weights, the masks and the draws."),
) -> None:
    """Walk the whole path on real cells: counts, vocabulary, corpus, priors, pre-training, labels, a deletion.

    Leaves a checkpoint, a LoRA adapter, an annotated .h5ad and report.html in the output folder.
    """
    from genecompass.eval.demo.options import DemoOptions
    from genecompass.eval.demo.report import summary
    from genecompass.eval.demo.walk import run_demo

    short = {"steps": 12, "epochs": 1, "max_cells": 400, "max_length": 128, "null_genes": 20} if quick else {}
    options = DemoOptions(output=output, data=data, species=species, label=label, seed=seed, **short)  # type: ignore[arg-type]
    result = run_demo(options, typer.echo)
    typer.echo(summary(result, options))
