"""``genecompass vocabulary``: build, import, inspect gene tables; compute gene medians."""

from pathlib import Path
from typing import Annotated

import typer

from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import OUTPUT, FilesOptions

app = new_app("Gene tables: one row a token, with gene, species, median and homolog.")

Output = Annotated[
    Path, typer.Option(*OUTPUT, help="Gene table to write: .parquet or .tsv.gz.", rich_help_panel="Output")
]
Homologs = Annotated[
    list[Path],
    typer.Option(help="MGI's HOM_MouseHumanSequence.rpt, or a table with two columns of Ensembl ids. Repeatable."),
]
Names = Annotated[
    list[Path], typer.Option(help="HGNC's complete set, MGI's marker lists: former and other symbols. Repeatable.")
]


def pairs_of(items: list[str], fallback: str | None) -> list[tuple[str, str]]:
    """``SPECIES=PATH`` items as (species, path); a bare path takes `fallback`."""
    from genecompass.tokenization.errors import InputError

    pairs = []
    for item in items:
        species, equals, path = item.partition("=")
        if equals:
            pairs.append((species, path))
        elif fallback:
            pairs.append((fallback, item))
        else:
            raise InputError(f"{item}: give the species too, as SPECIES={item} or with --species")
    return pairs


def _save(table: object, out: Path) -> None:
    from genecompass.tokenization.errors import InputError
    from genecompass.tokenization.gene_table import GeneTable

    assert isinstance(table, GeneTable)
    if not str(out).endswith((".parquet", ".tsv", ".tsv.gz")):
        raise InputError(f"{out}: a gene table ends in .parquet or .tsv.gz")
    table.write(out)
    frame = table.frame.iloc[2:]
    typer.echo(f"{out}: {table.vocab_size:,} tokens")
    for species in table.species:
        mine = frame[frame["species"] == species]
        shared = int((mine["homolog_token"] >= 0).sum())
        known = int(mine["median"].notna().sum())
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in mine["biotype"].value_counts().items() if kind)
        typer.echo(
            f"  {species}: {len(mine):,} genes{f' ({kinds})' if kinds else ''}, "
            f"{shared:,} on a homolog's token, {known:,} with a median"
        )


@command(
    app,
    example="genecompass vocabulary build human=gencode.v47.gtf.gz mouse=gencode.vM36.gtf.gz --homologs "
    "HOM_MouseHumanSequence.rpt --names hgnc_complete_set.txt -o genes.parquet",
)
def build(
    annotation: Annotated[
        list[str],
        typer.Argument(metavar="SPECIES=FILE...", help="GTF or biotype table of each species; the first leads."),
    ],
    output: Output,
    homologs: Homologs = [],  # noqa: B006 - typer makes a new list on every call
    names: Names = [],  # noqa: B006
    biotype: Annotated[list[str], typer.Option(help="Kind of gene to keep. Repeatable.")] = [  # noqa: B006
        "protein_coding",
        "lncRNA",
        "miRNA",
    ],
) -> None:
    """Make a gene table from annotation and homology tables as their publishers ship them."""
    from genecompass.dataset_scripts.vocabulary import build_vocabulary

    _save(
        build_vocabulary(dict(pairs_of(annotation, None)), homologs=homologs, names=names, biotypes=biotype),
        output,
    )


@command(
    app,
    "from-data",
    example="genecompass vocabulary from-data human=pbmc.h5ad mouse=pancreas.h5ad -o genes.parquet",
)
def from_data(
    data: Annotated[list[str], typer.Argument(metavar="[SPECIES=]DATA...", help="Files of cells.")],
    output: Output,
    species: Annotated[str | None, typer.Option(help="Species of files that are given without one.")] = None,
    homologs: Homologs = [],  # noqa: B006
    names: Names = [],  # noqa: B006
) -> None:
    """Make a gene table from the gene axis of the data, when no annotation is at hand."""
    from genecompass.dataset_scripts import vocabulary

    pairs = pairs_of(data, species)
    table = vocabulary.from_data(
        [path for _, path in pairs], [name for name, _ in pairs], homologs=homologs, names=names
    )
    _save(table, output)


@command(
    app,
    "import",
    example="genecompass vocabulary import human_mouse_tokens.pickle --homologs homologous_hm_token.pickle -o "
    "genes.parquet",
)
def import_(
    tokens: Annotated[Path, typer.Argument(help="human_mouse_tokens.pickle: gene id to token.")],
    output: Output,
    homologs: Annotated[Path | None, typer.Option(help="homologous_hm_token.pickle: mouse to human token.")] = None,
    medians: Annotated[list[Path], typer.Option(help="Pickle of gene id to median. Repeatable.")] = [],  # noqa: B006
    annotation: Annotated[list[Path], typer.Option(help="GTF or biotype table for symbols. Repeatable.")] = [],  # noqa: B006
) -> None:
    """Read the published pickles, without letting them run code, as a gene table with the same token numbers."""
    import pandas as pd

    from genecompass.dataset_scripts.vocabulary import import_published, read_annotation

    described = pd.concat([read_annotation(path) for path in annotation]) if annotation else None
    _save(import_published(tokens, homologs, medians, annotation=described), output)


@command(
    app,
    example="genecompass vocabulary medians human=pbmc.h5ad mouse=pancreas.h5ad --table genes.parquet --state "
    "tally.npz -o genes_with_medians.parquet",
)
def medians(
    data: Annotated[list[str], typer.Argument(metavar="[SPECIES=]DATA...", help="Files of cells.")],
    table: Annotated[Path, typer.Option(help="Gene table, or a checkpoint's folder.")],
    cells: FilesOptions,
    output: Output,
    state: Annotated[Path | None, typer.Option(help="Where to keep the tally (.npz), to resume from.")] = None,
) -> None:
    """Compute the exact non-zero median and the weight of every gene over all files, into a gene table."""
    from genecompass.dataset_scripts.vocabulary import gene_statistics
    from genecompass.tokenization.gene_table import GeneTable

    genes = GeneTable.read(table)
    found = gene_statistics(
        [(path, name) for name, path in pairs_of(data, cells.species)],
        genes,
        state=state,
        gene_species=cells.gene_species,
        **cells.reading,
        progress=True,
    )
    _save(found.put_into(genes), output)


@command(
    app,
    example="genecompass vocabulary show genes.parquet INS --species mouse",
)
def show(
    table: Annotated[Path, typer.Argument(help="Gene table, or a checkpoint's folder.")],
    gene: Annotated[list[str], typer.Argument(help="Gene ids or symbols.")],
    species: Annotated[str | None, typer.Option(help="Only genes of this species.")] = None,
) -> None:
    """Say what a gene is: token, id, median, homologs, and other names that lead to it."""
    from genecompass.dataset_scripts.vocabulary.show import describe
    from genecompass.tokenization.gene_table import GeneTable

    genes = GeneTable.read(table)
    for name in gene:
        for line in describe(genes, name, species=species):
            typer.echo(line)
