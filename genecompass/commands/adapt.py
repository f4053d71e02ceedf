"""``genecompass adapt``: a checkpoint's cell vector, trained further on cells without labels."""

from typing import Annotated, Literal

import typer

from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import CellOptions, Input, ModelOptions, OutputFolder, Seed

app = new_app()
TRAINING = "Training"


@command(
    app,
    example="genecompass adapt demo_output/cells.h5ad --model demo_output/checkpoint --species human --steps 20 "
    "-o adapted",
)
def adapt(
    source: Input,
    model: ModelOptions,
    cells: CellOptions,
    output: OutputFolder,
    method: Annotated[
        Literal["lora", "full"], typer.Option(help="Low-rank updates, or all weights.", rich_help_panel=TRAINING)
    ] = "lora",
    rank: Annotated[int, typer.Option("--rank", "-r", min=1, help="Of the updates.", rich_help_panel=TRAINING)] = 8,
    refit_axes: Annotated[
        bool,
        typer.Option(help="Lay the vector's fixed part along the axes of these cells.", rich_help_panel=TRAINING),
    ] = True,
    steps: Annotated[int, typer.Option(min=1, help="Batches of 64 cells.", rich_help_panel=TRAINING)] = 150,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak learning rate; by method.", rich_help_panel=TRAINING)
    ] = None,
    max_cells: Annotated[
        int, typer.Option(min=1, help="Draw this many cells, where there are more.", rich_help_panel="Cells")
    ] = 20_000,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was cut off.")] = False,
    seed: Seed = 0,
) -> None:
    """Go on training a checkpoint's cell vector on your own cells; no label is looked at."""
    from genecompass.model_cards import write_card
    from genecompass.training.pretraining.adapt import adapt as run
    from genecompass.training.pretraining.evaluation import format_report

    result = run(
        cells.open(source),
        model.model,
        output=output,
        **cells.named,
        method=method,
        rank=rank,
        refit_axes=refit_axes,
        steps=steps,
        learning_rate=learning_rate,
        max_cells=max_cells,
        seed=seed,
        device=model.device,
        resume=resume,
        progress=True,
    )
    write_card(result.folder)
    typer.echo(format_report(result.evaluation))
    typer.echo(f"{result.steps} steps in {result.seconds / 60:.1f} minutes; checkpoint: {result.folder}")
