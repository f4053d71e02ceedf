"""``genecompass corpus``: build, check, inspect, import, tokenise a corpus of cells."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import OUTPUT


class _WithTokenize(TyperGroup):
    """Adds ``tokenize``, which lives in a module of its own and is imported only when it is called."""

    _module = "genecompass.commands.corpus_tokenize"

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the verbs."""
        return [*super().list_commands(ctx), *(["tokenize"] if find_spec(self._module) else [])]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a verb."""
        if cmd_name != "tokenize" or not find_spec(self._module):
            return super().get_command(ctx, cmd_name)
        command = typer.main.get_command(import_module(self._module).app)
        command.name = "tokenize"
        return command


app = new_app(
    "A corpus of cells: raw counts as parquet shards that `datasets` streams with no code of ours.", cls=_WithTokenize
)


@command(
    app,
    example="genecompass corpus build demo_output/corpus_input/inputs.tsv --gene-table demo_output/genes.parquet "
    "-o corpus",
)
def build(
    manifest: Annotated[
        Path, typer.Argument(metavar="INPUT", help="Table of inputs: path, species, dataset, obs_columns, ...")
    ],
    output: Annotated[
        Path,
        typer.Option(*OUTPUT, help="Folder of the corpus; an existing one is appended to.", rich_help_panel="Output"),
    ],
    gene_table: Annotated[
        Path | None, typer.Option(help="Gene table: ids for columns without one, biotypes for quality control.")
    ] = None,
    quality: Annotated[Literal["none", "paper", "published_code"], typer.Option(help="Quality control.")] = "none",
    seed: Annotated[int, typer.Option(help="Decides the shuffle.")] = 0,
    reshuffle: Annotated[bool, typer.Option(help="Build all shards anew, old and new cells mixed.")] = False,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Processes; -1 for one per core.")] = 1,
    engine: Annotated[
        Literal["loky", "dask", "ray", "sequential"],
        typer.Option(help="What runs the processes; loky: on this machine."),
    ] = "loky",
    address: Annotated[str | None, typer.Option(help="Scheduler of an existing Dask or Ray cluster.")] = None,
    count_type: Annotated[
        Literal["int32", "float32"], typer.Option(help="float32 for counts that are not whole.")
    ] = "int32",
    cells_per_shard: Annotated[int, typer.Option(help="Most cells in a shard.")] = 32_768,
) -> None:
    """Build a corpus from a table of inputs, or append the inputs that it does not hold yet.

    Killed at any moment and started again, it goes on and ends with the same bytes. Exits with 1 when inputs failed.
    """
    from genecompass.dataset_scripts.corpus.builder import BuildOptions, build

    options = BuildOptions(
        seed=seed,
        quality=quality,
        gene_table=None if gene_table is None else str(gene_table),
        count_type=count_type,
        cells_per_shard=cells_per_shard,
    )
    report = build(
        manifest, output, options=options, reshuffle=reshuffle, engine_name=engine, jobs=jobs, address=address
    )
    cells = ", ".join(f"{number:,} {species}" for species, number in sorted(report.cells.items()))
    typer.echo(f"{output}: {cells} cells; {report.added:,} added, {report.removed:,} removed by quality control")
    for dataset, reason in report.failed.items():
        typer.echo(f"failed: {dataset}: {reason}", err=True)
    if report.failed:
        raise typer.Exit(1)


@command(
    app,
    example="genecompass corpus verify demo_output/corpus --table duplicates.tsv",
)
def verify(
    folder: Annotated[Path, typer.Argument(metavar="INPUT", help="A local corpus.")],
    duplicates: Annotated[bool, typer.Option(help="Look for cells that are in it twice.")] = True,
    table: Annotated[Path | None, typer.Option(help="Write the pairs of duplicates here, as TSV.")] = None,
) -> None:
    """Check checksums, schema, counts and names of a corpus, and report cells that it holds twice.

    Exits with 1 when something is wrong; duplicates alone are reported, not an error.
    """
    from genecompass.dataset_scripts.corpus.checks import verify
    from genecompass.tokenization.files import atomic_path

    report = verify(folder, duplicates=duplicates)
    for problem in report.problems:
        typer.echo(f"problem: {problem}", err=True)
    if table is not None:
        with atomic_path(table) as temporary:
            report.duplicates.to_csv(temporary, sep="\t", index=False)
    for (one, other), pairs in report.duplicate_pairs().items():
        typer.echo(f"duplicates: {pairs:,} cells are in {one} and in {other}")
    typer.echo(f"{folder}: {report.cells:,} cells checked, {len(report.problems)} problems")
    if not report.sound:
        raise typer.Exit(1)


@command(
    app,
    example="genecompass corpus inspect demo_output/corpus -o report",
)
def inspect(
    corpus: Annotated[
        str, typer.Argument(metavar="INPUT", help="A local corpus, or owner/name[@revision] on the Hub.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(*OUTPUT, help="Write tables and figures (PNG, SVG) here.", rich_help_panel="Output"),
    ] = None,
    top: Annotated[int, typer.Option(help="Genes to list per species.")] = 20,
) -> None:
    """Show cells per species, tissue and type, genes per cell, and the most expressed genes."""
    from genecompass.dataset_scripts.corpus.summary import describe, draw, summarize

    summary = summarize(corpus, top=top)
    typer.echo(describe(summary))
    if output is not None:
        summary.write(output)
        for ending in ("png", "svg"):
            draw(summary, output / f"corpus.{ending}")
        typer.echo(f"tables and figures in {output}")


@command(
    app,
    "import",
    example="genecompass corpus import human_5M mouse_5M --gene-table genes.tsv.gz -o corpus",
)
def import_(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT...", help="Published Arrow folders (input_ids, values, length, species)."),
    ],
    output: Annotated[Path, typer.Option(*OUTPUT, help="Folder of the corpus.", rich_help_panel="Output")],
    gene_table: Annotated[Path, typer.Option(help="Gene table with the tokens and medians they were made with.")],
    count_type: Annotated[
        Literal["int32", "float32"], typer.Option(help="float32 for counts that are not whole.")
    ] = "int32",
    seed: Annotated[int, typer.Option(help="Decides the shuffle.")] = 0,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Processes; -1 for one per core.")] = 1,
    licence: Annotated[str, typer.Option(help="Licence, for the dataset card.")] = "",
    citation: Annotated[str, typer.Option(help="Publication, for the dataset card.")] = "",
) -> None:
    """Turn the published corpus form into this one: counts are computed back from tokens, values and medians."""
    import tempfile

    from genecompass.dataset_scripts.corpus.published import write_import_manifest

    with tempfile.TemporaryDirectory() as scratch:
        manifest = Path(scratch) / "import.tsv"
        write_import_manifest(folders, gene_table, manifest, licence=licence, citation=citation)
        build(manifest, output, gene_table=gene_table, seed=seed, jobs=jobs, count_type=count_type)
