"""``genecompass benchmark perturbation``: in-silico deletions against known targets."""

from pathlib import Path
from typing import Annotated

import typer

from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import (
    OUTPUT,
    CellOptions,
    InferenceOptions,
    Input,
    MaxCells,
    NNull,
    Seed,
    Which,
    chosen,
)

app = new_app()


@command(
    app,
    example="genecompass benchmark perturbation demo_output/cells.h5ad --targets trrust_human.tsv "
    "--model demo_output/checkpoint --species human -o deletions.csv",
)
def perturbation(
    source: Input,
    targets: Annotated[Path, typer.Option("--targets", "-t", help="Known targets: TRRUST, DoRothEA or two columns.")],
    model: InferenceOptions,
    cells: CellOptions,
    output: Annotated[
        Path,
        typer.Option(
            *OUTPUT,
            help="CSV, one row per factor, ranking and k; scores for a card go beside it as JSON.",
            rich_help_panel="Output",
        ),
    ],
    factor: Annotated[list[str] | None, typer.Option("--factor", "-f", help="Only this factor. Repeatable.")] = None,
    which: Which = None,
    max_cells: MaxCells = None,
    max_factors: Annotated[
        int, typer.Option(min=1, help="Most factors, those with the most targets first.", rich_help_panel="Statistics")
    ] = 20,
    n_null: NNull = 30,
    seed: Seed = 0,
) -> None:
    """Delete factors and see whether the genes that change most are their known targets."""
    from genecompass.eval.tasks.perturbation import benchmark_deletions, read_targets
    from genecompass.tokenization.files import atomic_path, write_json

    opened = cells.open(source)
    benchmark = benchmark_deletions(
        opened,
        model.model,
        read_targets(targets),
        **cells.named,
        **model.running,
        factors=factor,
        cells=chosen(opened, which),
        max_cells=max_cells,
        max_factors=max_factors,
        n_null=n_null,
        seed=seed,
    )
    with atomic_path(output) as temporary:
        benchmark.factors.to_csv(temporary, index=False)
    write_json(output.with_suffix(".json"), benchmark.record())
    typer.echo(benchmark.table().to_string(index=False, float_format=lambda x: f"{x:.3f}"))
    if factor and benchmark.absent:
        typer.echo(f"not in the cells: {', '.join(benchmark.absent)}")
