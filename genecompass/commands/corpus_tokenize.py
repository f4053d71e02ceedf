"""``genecompass corpus tokenize``: cells to token sequences on disk, in the published column layout."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(no_args_is_help=True)
def tokenize(
    paths: Annotated[list[str], typer.Argument(metavar="[SPECIES=]IN... OUT", help="Files of cells; new folder.")],
    table: Annotated[Path, typer.Option(help="Gene table, or a checkpoint's folder.")],
    species: Annotated[str | None, typer.Option(help="Species, or obs column, of files given without one.")] = None,
    gene_species: Annotated[str | None, typer.Option(help="Species of the gene names, if not the cells'.")] = None,
    gene_column: Annotated[str | None, typer.Option(help="var column of ids or symbols.")] = None,
    rescue_ids: Annotated[bool, typer.Option(help="Look retired Ensembl ids up by symbol.")] = False,
    counts: Annotated[str, typer.Option(help="auto, X, raw, or a layer.")] = "auto",
    allow_fractional: Annotated[bool, typer.Option(help="Take counts that are not whole numbers.")] = False,
    quality: Annotated[str, typer.Option(help="Quality control: none, paper or published_code.")] = "none",
    sample: Annotated[str | None, typer.Option(help="obs column of samples, for quality control.")] = None,
    empty_cells: Annotated[str, typer.Option(help="Cells without known genes: error, drop or keep.")] = "error",
    max_length: Annotated[int, typer.Option(help="Genes kept per cell.")] = 2048,
    library_size: Annotated[float | None, typer.Option(help="Scale cells to this total first.")] = None,
    file_format: Annotated[str, typer.Option("--format", help="parquet, or arrow for load_from_disk.")] = "parquet",
    pad: Annotated[bool, typer.Option(help="Fill up to the maximum length with 0, as published.")] = True,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Processes; -1 for one per core.")] = 1,
    cells_per_shard: Annotated[int, typer.Option(help="Most cells in a shard.")] = 20_000,
) -> None:
    """Tokenise files of cells into a new folder: columns input_ids, values, length, species.

    Example: genecompass corpus tokenize human=pbmc.h5ad mouse=pancreas.h5ad tokens --table genes.parquet
    """
    from genecompass.tokenization.errors import InputError
    from genecompass.tokenization.gene_table import GeneTable
    from genecompass.tokenization.write_tokens import write_tokens

    if len(paths) < 2:
        raise InputError("give at least one file of cells and the folder to write")
    sources = []
    for item in paths[:-1]:
        name, equals, path = item.partition("=")
        if not equals and species is None:
            raise InputError(f"{item}: give the species too, as SPECIES={item} or with --species")
        sources.append((path, name) if equals else (item, species or ""))
    report = write_tokens(
        sources,
        paths[-1],
        GeneTable.read(table),
        file_format=file_format,
        max_length=max_length,
        pad=pad,
        jobs=jobs,
        cells_per_shard=cells_per_shard,
        progress=True,
        gene_species=gene_species,
        gene_column=gene_column,
        rescue_ids=rescue_ids,
        counts=counts,
        allow_fractional=allow_fractional,
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
    typer.echo(f"{paths[-1]}: {report['cells']:,} cells")
