"""``genecompass benchmark fate``: cell fate rankings against documented recipes."""

from typing import Annotated

import typer

from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import (
    CellOptions,
    GoalCells,
    GoalData,
    InferenceOptions,
    Input,
    NNull,
    OutputFolder,
    Overwrite,
    RecipeName,
    Seed,
    StartCells,
    refuse_existing,
)

app = new_app()


@command(
    app,
    example="genecompass benchmark fate pancreas.h5ad --recipe beta-from-alpha --species mouse "
    "--start cell_type=Alpha --goal cell_type=Beta -o beta_from_alpha",
)
def fate(
    source: Input,
    model: InferenceOptions,
    cells: CellOptions,
    start: StartCells,
    goal: GoalCells,
    output: OutputFolder,
    recipe: Annotated[RecipeName | None, typer.Option(help="Factors of a documented experiment.")] = None,
    factor: Annotated[
        list[str] | None, typer.Option("--factor", "-f", help="Instead: a factor that is known to work. Repeatable.")
    ] = None,
    goal_data: GoalData = None,
    max_cells: Annotated[
        int, typer.Option(min=1, help="Draw this many start cells at most.", rich_help_panel="Cells")
    ] = 20,
    n_null: NNull = 30,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Rank all transcription factors and score where the recipe's stand, beside ranking by fold change."""
    from genecompass.tokenization.errors import InputError

    if (recipe is None) == (not factor):
        raise InputError("name the factors that are known to work: either --recipe or --factor")
    refuse_existing(output, overwrite)
    from genecompass.eval.tasks.fate import benchmark_fate
    from genecompass.inference.perturbation.cell_fate import RECIPES, select_cells
    from genecompass.tokenization.files import atomic_path, write_json

    opened = cells.open(source)
    benchmark = benchmark_fate(
        opened,
        model.model,
        RECIPES[recipe].factors if recipe else factor or [],
        start,
        goal,
        **cells.named,
        **model.running,
        goal_adata=None if goal_data is None else cells.open(goal_data),
        max_cells=min(max_cells, int(select_cells(opened, start).sum())),
        n_null=n_null,
        seed=seed,
    )
    with atomic_path(output / "ranking.csv") as temporary:
        benchmark.ranking.to_csv(temporary, index=False)
    about = RECIPES[recipe].source if recipe else None
    write_json(output / "fate.json", {**benchmark.record(f"{start} to {goal}"), "recipe": recipe, "source": about})
    typer.echo(benchmark.scores.to_string(index=False, na_rep="", float_format=lambda x: f"{x:.3f}"))
    if benchmark.absent:
        typer.echo(f"not measured: {', '.join(benchmark.absent)}")
