"""``genecompass corpus tokenize``: cells to token sequences on disk, in the published column layout."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import OUTPUT, FilesOptions

app = new_app()


@command(
    app,
    example="genecompass corpus tokenize human=demo_output/cells.h5ad --table demo_output/genes.parquet -o tokens",
)
def tokenize(
    paths: Annotated[list[str], typer.Argument(metavar="[SPECIES=]INPUT...", help="Files of cells.")],
    table: Annotated[Path, typer.Option(help="Gene table, or a checkpoint's folder.")],
    cells: FilesOptions,
    output: Annotated[Path, typer.Option(*OUTPUT, help="New folder.", rich_help_panel="Output")],
    quality: Annotated[Literal["none", "paper", "published_code"], typer.Option(help="Quality control.")] = "none",
    sample: Annotated[str | None, typer.Option(help="obs column of samples, for quality control.")] = None,
    empty_cells: Annotated[
        Literal["error", "drop", "keep"], typer.Option(help="What becomes of cells without a known gene.")
    ] = "error",
    max_length: Annotated[int, typer.Option(help="Genes kept per cell.")] = 2048,
    library_size: Annotated[float | None, typer.Option(help="Scale cells to this total first.")] = None,
    file_format: Annotated[
        Literal["parquet", "arrow"],
        typer.Option("--format", help="arrow for load_from_disk.", rich_help_panel="Output"),
    ] = "parquet",
    pad: Annotated[bool, typer.Option(help="Fill up to the maximum length with 0, as published.")] = True,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Processes; -1 for one per core.")] = 1,
    cells_per_shard: Annotated[int, typer.Option(help="Most cells in a shard.")] = 20_000,
) -> None:
    """Tokenise files of cells into a new folder: columns input_ids, values, length, species."""
    from genecompass.commands.vocabulary import pairs_of
    from genecompass.tokenization.gene_table import GeneTable
    from genecompass.tokenization.write_tokens import write_tokens

    sources = [(path, name) for name, path in pairs_of(paths, cells.species)]
    report = write_tokens(
        sources,
        output,
        GeneTable.read(table),
        file_format=file_format,
        max_length=max_length,
        pad=pad,
        jobs=jobs,
        cells_per_shard=cells_per_shard,
        progress=True,
        gene_species=cells.gene_species,
        **cells.reading,
        quality=quality,
        sample=sample,
        empty_cells=empty_cells,
        library_size=library_size,
    )
    for one in report["sources"]:
        typer.echo(
            f"{one['source']}: {one['kept']:,} of {one['cells']:,} cells, {one['share_of_counts_kept']:.1%} of counts"
        )
        for name, coverage in one["coverage"].items():
            unknown = ", ".join(coverage["top_unknown"][:3])
            typer.echo(
                f"  {name}: {coverage['matched']:,} of {coverage['genes']:,} genes known"
                + (f"; most expressed unknown: {unknown}" if unknown else "")
            )
        lost = ", ".join(f"{number:,} {rule}" for rule, number in one["removed"].items() if number)
        if lost:
            typer.echo(f"  removed: {lost}")
    typer.echo(f"{output}: {report['cells']:,} cells")
