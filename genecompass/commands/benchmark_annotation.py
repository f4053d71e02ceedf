"""``genecompass benchmark annotation``: cell-type annotation on held-out cells, with baselines."""

from pathlib import Path
from typing import Annotated

import typer

from genecompass.commands.benchmark_options import BudgetOptions
from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import CellOptions, Input, ModelOptions, OutputFolder

app = new_app()


@command(
    app,
    example="genecompass benchmark annotation demo_output/cells.h5ad --model demo_output/checkpoint --species human "
    "--folds 2 --seeds 0 --cells-per-class 5 --methods PCA,frozen --no-figures -o annotation",
)
def annotation(
    source: Input,
    model: ModelOptions,
    cells: CellOptions,
    output: OutputFolder,
    budget: BudgetOptions,
    test: Annotated[
        Path | None,
        typer.Option(help="Independent labelled cells: the test set.", rich_help_panel="Cells"),
    ] = None,
    split_by: Annotated[
        str | None,
        typer.Option(help="Instead: obs column (donor, data set); each value is a test set.", rich_help_panel="Cells"),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Instead: stratified folds.", rich_help_panel="Statistics")] = 5,
    label: Annotated[str, typer.Option(help="obs column of labels.", rich_help_panel="Cells")] = "cell_type",
    name: Annotated[
        str | None, typer.Option(help="Name of the comparison in tables.", rich_help_panel="Output")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the folds.", rich_help_panel="Statistics")] = 0,
) -> None:
    """Score the checkpoint (frozen, LoRA, full, from scratch) and simple baselines; a killed run continues."""
    from genecompass.eval.tasks.benchmarks import benchmark_annotation

    typer.echo(
        benchmark_annotation(
            cells.open(source),
            model.model,
            output,
            **cells.named,
            test=None if test is None else cells.open(test),
            split_by=split_by,
            folds=folds,
            fold_seed=seed,
            label=label,
            name=name,
            settings=budget.settings(model.device),
            echo=typer.echo,
        )
    )
