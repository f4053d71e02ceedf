"""``genecompass benchmark perturbation``: in-silico deletions against known targets."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(no_args_is_help=True)
def perturbation(
    data: Annotated[Path, typer.Argument(help="Cells with raw counts.")],
    model: Annotated[str, typer.Argument(help="Checkpoint: folder or owner/name[@revision].")],
    targets: Annotated[Path, typer.Option("--targets", "-t", help="Known targets: TRRUST, DoRothEA or two columns.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="CSV, one row per factor, ranking and k; scores for a card go beside it as JSON."
        ),
    ],
    species: Annotated[str, typer.Option(help="Species of the cells.")] = "human",
    factor: Annotated[list[str] | None, typer.Option("--factor", "-f", help="Only these factors.")] = None,
    cells: Annotated[str | None, typer.Option(help="Only these cells: column=value[,value].")] = None,
    max_cells: Annotated[int | None, typer.Option(help="Draw this many cells.")] = None,
    max_factors: Annotated[int, typer.Option(help="Most factors, those with the most known targets first.")] = 20,
    n_null: Annotated[int, typer.Option(help="Matched random genes for each factor.")] = 30,
    seed: Annotated[int, typer.Option(help="Decides the cells and random genes drawn.")] = 0,
) -> None:
    """Delete factors and see whether the genes that change most are their known targets.

    Example: genecompass benchmark perturbation pbmc.h5ad runs/tiny --targets trrust_human.tsv -o deletions.csv
    """
    from genecompass.eval.tasks.perturbation import benchmark_deletions, read_targets
    from genecompass.inference.perturbation.cell_fate import select_cells
    from genecompass.tokenization.files import atomic_path, write_json

    benchmark = benchmark_deletions(
        data,
        model,
        read_targets(targets),
        species=species,
        factors=factor,
        cells=None if cells is None else select_cells(data, cells),
        max_cells=max_cells,
        max_factors=max_factors,
        n_null=n_null,
        seed=seed,
    )
    with atomic_path(out) as temporary:
        benchmark.factors.to_csv(temporary, index=False)
    write_json(out.with_suffix(".json"), benchmark.record())
    typer.echo(benchmark.table().to_string(index=False, float_format=lambda x: f"{x:.3f}"))
    if factor and benchmark.absent:
        typer.echo(f"not in the cells: {', '.join(benchmark.absent)}")
