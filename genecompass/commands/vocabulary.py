"""``genecompass vocabulary``: build, import, inspect gene tables; compute gene medians."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Gene tables: one row a token, with gene, species, median and homolog.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Out = Annotated[Path, typer.Option("--out", "-o", help="Gene table to write: .parquet or .tsv.gz.")]
Homologs = Annotated[
    list[Path],
    typer.Option(help="MGI's HOM_MouseHumanSequence.rpt, or a table with two columns of Ensembl ids. Repeatable."),
]
Names = Annotated[
    list[Path], typer.Option(help="HGNC's complete set, MGI's marker lists: former and other symbols. Repeatable.")
]


def _pairs(items: list[str], fallback: str | None) -> list[tuple[str, str]]:
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


@app.command()
def build(
    annotation: Annotated[
        list[str],
        typer.Argument(metavar="SPECIES=FILE...", help="GTF or biotype table of each species; the first leads."),
    ],
    out: Out,
    homologs: Homologs = [],  # noqa: B006 - typer makes a new list on every call
    names: Names = [],  # noqa: B006
    biotype: Annotated[list[str], typer.Option(help="Kind of gene to keep. Repeatable.")] = [  # noqa: B006
        "protein_coding",
        "lncRNA",
        "miRNA",
    ],
) -> None:
    """Make a gene table from annotation and homology tables as their publishers ship them.

    Example: genecompass vocabulary build human=gencode.v47.gtf.gz mouse=gencode.vM36.gtf.gz
    --homologs HOM_MouseHumanSequence.rpt --names hgnc_complete_set.txt -o genes.parquet
    """
    from genecompass.dataset_scripts.vocabulary import build_vocabulary

    _save(
        build_vocabulary(dict(_pairs(annotation, None)), homologs=homologs, names=names, biotypes=biotype),
        out,
    )


@app.command("from-data")
def from_data(
    data: Annotated[list[str], typer.Argument(metavar="[SPECIES=]DATA...", help="Files of cells.")],
    out: Out,
    species: Annotated[str | None, typer.Option(help="Species of files that are given without one.")] = None,
    homologs: Homologs = [],  # noqa: B006
    names: Names = [],  # noqa: B006
) -> None:
    """Make a gene table from the gene axis of the data, when no annotation is at hand.

    Example: genecompass vocabulary from-data human=pbmc.h5ad mouse=pancreas.h5ad -o genes.parquet
    """
    from genecompass.dataset_scripts import vocabulary

    pairs = _pairs(data, species)
    table = vocabulary.from_data(
        [path for _, path in pairs], [name for name, _ in pairs], homologs=homologs, names=names
    )
    _save(table, out)


@app.command("import")
def import_(
    tokens: Annotated[Path, typer.Argument(help="human_mouse_tokens.pickle: gene id to token.")],
    out: Out,
    homologs: Annotated[Path | None, typer.Option(help="homologous_hm_token.pickle: mouse to human token.")] = None,
    medians: Annotated[list[Path], typer.Option(help="Pickle of gene id to median. Repeatable.")] = [],  # noqa: B006
    annotation: Annotated[list[Path], typer.Option(help="GTF or biotype table for symbols. Repeatable.")] = [],  # noqa: B006
) -> None:
    """Read the published pickles, without letting them run code, as a gene table with the same token numbers.

    Example: genecompass vocabulary import human_mouse_tokens.pickle --homologs homologous_hm_token.pickle
    -o genes.parquet
    """
    import pandas as pd

    from genecompass.dataset_scripts.vocabulary import import_published, read_annotation

    described = pd.concat([read_annotation(path) for path in annotation]) if annotation else None
    _save(import_published(tokens, homologs, medians, annotation=described), out)


@app.command()
def medians(
    data: Annotated[list[str], typer.Argument(metavar="[SPECIES=]DATA...", help="Files of cells.")],
    table: Annotated[Path, typer.Option(help="Gene table, or a checkpoint's folder.")],
    out: Out,
    species: Annotated[str | None, typer.Option(help="Species, or obs column, of files given without one.")] = None,
    state: Annotated[Path | None, typer.Option(help="Where to keep the tally (.npz), to resume from.")] = None,
    gene_species: Annotated[str | None, typer.Option(help="Species of the gene names, if not the cells'.")] = None,
    counts: Annotated[str, typer.Option(help="auto, X, raw, or a layer.")] = "auto",
    rescue_ids: Annotated[bool, typer.Option(help="Look retired Ensembl ids up by symbol.")] = False,
) -> None:
    """Compute the exact non-zero median and the weight of every gene over all files, into a gene table.

    Example: genecompass vocabulary medians human=pbmc.h5ad mouse=pancreas.h5ad --table genes.parquet
    --state tally.npz -o genes_with_medians.parquet
    """
    from genecompass.dataset_scripts.vocabulary import gene_statistics
    from genecompass.tokenization.gene_table import GeneTable

    genes = GeneTable.read(table)
    found = gene_statistics(
        [(path, name) for name, path in _pairs(data, species)],
        genes,
        state=state,
        gene_species=gene_species,
        counts=counts,
        rescue_ids=rescue_ids,
        progress=True,
    )
    _save(found.put_into(genes), out)


@app.command()
def show(
    table: Annotated[Path, typer.Argument(help="Gene table, or a checkpoint's folder.")],
    gene: Annotated[list[str], typer.Argument(help="Gene ids or symbols.")],
    species: Annotated[str | None, typer.Option(help="Only genes of this species.")] = None,
) -> None:
    """Say what a gene is: token, id, median, homologs, and other names that lead to it.

    Example: genecompass vocabulary show genes.parquet INS --species mouse
    """
    from genecompass.dataset_scripts.vocabulary.show import describe
    from genecompass.tokenization.gene_table import GeneTable

    genes = GeneTable.read(table)
    for name in gene:
        for line in describe(genes, name, species=species):
            typer.echo(line)
