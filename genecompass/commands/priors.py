"""``genecompass priors``: build, attach, import and inspect the prior-knowledge tables."""

from pathlib import Path
from typing import Annotated, Any

import typer

from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import OUTPUT

app = new_app("Prior-knowledge tables: promoter, co-expression, gene family, gene regulatory network.")
build_app = new_app("Build tables for a vocabulary.")
app.add_typer(build_app, name="build")

Genes = Annotated[Path, typer.Option("--genes", help="Gene table (genes.parquet), or a checkpoint with one.")]
Output = Annotated[
    Path,
    typer.Option(
        *OUTPUT,
        help="Table to write: .safetensors; a folder of tables alone also gets a card.",
        rich_help_panel="Output",
    ),
]
Width = Annotated[int, typer.Option(help="Numbers per gene.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Missing = Annotated[str, typer.Option(help="What a gene without knowledge gets: zero, mean or random.")]
DType = Annotated[str, typer.Option("--dtype", help="float32 or float16.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the pairs; default: enough for 300 pairs a gene.")]
NoAlign = Annotated[bool, typer.Option("--no-align", help="Leave each species in a space of its own.")]
Networks = Annotated[
    list[str],
    typer.Option("--network", metavar="SPECIES=FILE", help="Edge list. Repeatable, several per species."),
]
Confidence = Annotated[
    str, typer.Option(help="Where a network has a confidence column, keep these letters or (by commas) values.")
]
Families = Annotated[
    list[str],
    typer.Option("--families", metavar="SPECIES=FILE", help="HGNC's complete set, or a gene/family table."),
]
Corpus = Annotated[Path | None, typer.Option("--corpus", help="Corpus folder.")]
Cells = Annotated[list[str], typer.Option("--cells", metavar="SPECIES=FILE", help="File of cells. Repeatable.")]
Genomes = Annotated[
    list[str],
    typer.Option("--genome", metavar="SPECIES=FASTA,GTF", help="Genome and annotation. Repeatable."),
]


def _split(items: list[str], what: str, kind: str = "FILE") -> list[tuple[str, str]]:
    from genecompass.tokenization.errors import InputError

    pairs = []
    for item in items:
        species, equals, rest = item.partition("=")
        if not equals or not species or not rest:
            raise InputError(f"{what} {item!r}: write SPECIES={kind}, for example human={item}")
        pairs.append((species, rest))
    return pairs


def _table(genes: Path) -> Any:
    from genecompass.tokenization.gene_table import GeneTable

    return GeneTable.read(genes)


def _skip_gram(width: int, seed: int, epochs: int | None, sentences: str = "pairs") -> Any:
    from genecompass.dataset_scripts.prior_knowledge.gene2vec import Gene2VecSettings

    return Gene2VecSettings(width=width, seed=seed, epochs=epochs, sentences=sentences)  # type: ignore[arg-type]


def network_sources(networks: list[str], confidence: str) -> list[Any]:
    """``SPECIES=FILE`` options as network sources; confidence applies where a file has such a column."""
    from genecompass.dataset_scripts.prior_knowledge.networks import NetworkSource, has_confidence

    letters = confidence.split(",") if "," in confidence else list(confidence)
    return [
        NetworkSource(path, species, confidence=letters if letters and has_confidence(path) else None)
        for species, path in _split(networks, "--network")
    ]


def cell_sources(corpus: Path | None, cells: list[str], table: Any) -> list[Any]:
    """A corpus and files of cells as data sets."""
    from genecompass.dataset_scripts.prior_knowledge.co_expression import cells_of_corpus, cells_of_file
    from genecompass.tokenization.errors import InputError

    if corpus is None and not cells:
        raise InputError("co-expression: give --corpus FOLDER or --cells SPECIES=FILE")
    found = [] if corpus is None else cells_of_corpus(corpus, table)
    return found + [cells_of_file(path, table, species) for species, path in _split(cells, "--cells")]


def _check_output(out: Path) -> None:
    from genecompass.tokenization.errors import InputError

    if out.suffix != ".safetensors":
        raise InputError(f"{out}: prior tables are safetensors files; end the name in .safetensors")


def _save(out: Path, priors: list[Any]) -> None:
    from genecompass.dataset_scripts.prior_knowledge.tables import write_priors
    from genecompass.model_cards import write_table_card

    write_priors(out, priors)
    for prior in priors:
        typer.echo(f"{out}: {prior.name}, {len(prior.matrix):,} tokens x {prior.width}")
        for species, found in prior.metadata["coverage"].items():
            coding = found.get("fraction_protein_coding")
            more = "" if coding is None else f"; {coding:.1%} of protein-coding genes"
            typer.echo(
                f"  {species}: {found['known']:,} of {found['genes']:,} genes have knowledge{more}; "
                f"the other {found['without_knowledge']:,} get: {prior.metadata['missing']}"
            )
    card = write_table_card(out)
    typer.echo(f"card and manifest: {card}" if card else f"no card: {out.parent} holds other files as well")


def _grn(table: Any, networks: list[str], confidence: str, settings: Any, **options: Any) -> Any:
    from genecompass.dataset_scripts.prior_knowledge.networks import build_grn

    return build_grn(network_sources(networks, confidence), table, settings=settings, **options)


def _gene_family(table: Any, families: list[str], settings: Any, **options: Any) -> Any:
    from genecompass.dataset_scripts.prior_knowledge.families import FamilySource, build_gene_family

    sources = [FamilySource(path, species) for species, path in _split(families, "--families")]
    return build_gene_family(sources, table, settings=settings, **options)


def _genome_sources(genomes: list[str]) -> list[Any]:
    from genecompass.dataset_scripts.prior_knowledge.genome import GenomeSource
    from genecompass.tokenization.errors import InputError

    sources = []
    for species, files in _split(genomes, "--genome"):
        fasta, comma, gtf = files.partition(",")
        if not comma:
            raise InputError(f"--genome {species}={files}: write SPECIES=FASTA,GTF")
        sources.append(GenomeSource(fasta, gtf, species))
    return sources


@command(
    build_app,
    example="genecompass priors build grn --genes genes.parquet --network human=dorothea.tsv.gz --confidence ABC "
    "--network human=trrust.tsv -o grn.safetensors",
)
def grn(
    genes: Genes,
    output: Output,
    network: Networks,
    confidence: Confidence = "",
    edge_weight: Annotated[str, typer.Option(help="frequency (over networks) or weight (of the files).")] = "frequency",
    signed: Annotated[bool, typer.Option("--signed", help="Keep activation and repression apart.")] = False,
    walks: Annotated[bool, typer.Option("--walks", help="Read random walks in place of edges.")] = False,
    width: Width = 768,
    epochs: Epochs = None,
    seed: Seed = 0,
    missing: Missing = "zero",
    dtype: DType = "float32",
    no_align: NoAlign = False,
) -> None:
    """Edge lists to vectors."""
    _check_output(output)
    settings = _skip_gram(width, seed, epochs, "walks" if walks else "pairs")
    options = {"weight": edge_weight, "signed": signed, "align": not no_align, "missing": missing, "dtype": dtype}
    _save(output, [_grn(_table(genes), network, confidence, settings, **options)])


@command(
    build_app,
    "gene_family",
    example="genecompass priors build gene_family --genes genes.parquet --families human=hgnc_complete_set.txt "
    "-o gene_family.safetensors",
)
def gene_family(
    genes: Genes,
    output: Output,
    families: Families,
    relatives: Annotated[int, typer.Option(help="Relatives that a gene is read with per family and epoch.")] = 10,
    width: Width = 768,
    epochs: Epochs = None,
    seed: Seed = 0,
    missing: Missing = "zero",
    dtype: DType = "float32",
    no_align: NoAlign = False,
) -> None:
    """Families to vectors; species without a table of their own follow their homologs."""
    _check_output(output)
    options = {"relatives_per_gene": relatives, "align": not no_align, "missing": missing, "dtype": dtype}
    _save(output, [_gene_family(_table(genes), families, _skip_gram(width, seed, epochs), **options)])


@command(
    build_app,
    "co_expression",
    example="genecompass priors build co_expression --genes genes.parquet --corpus my_corpus -o "
    "co_expression.safetensors",
)
def co_expression(
    genes: Genes,
    output: Output,
    corpus: Corpus = None,
    cells: Cells = [],  # noqa: B006 - typer makes a new list on every call
    cells_per_dataset: Annotated[int, typer.Option(help="Cells sampled of each data set; 0 takes all.")] = 3000,
    threshold: Annotated[float, typer.Option(help="Smallest correlation.")] = 0.8,
    min_shared: Annotated[int, typer.Option(help="Fewest cells that express both genes.")] = 50,
    stability: Annotated[
        float | None, typer.Option(help="Smallest correlation in random halves of the cells; not asked by default.")
    ] = None,
    transform: Annotated[str, typer.Option(help="auto, counts, log_counts or log_normalized.")] = "auto",
    pooling: Annotated[str, typer.Option(help="once, datasets (a pair counts for each), or balanced.")] = "balanced",
    device: Annotated[str, typer.Option(help="Where the matrix products run: cpu or cuda.")] = "cpu",
    width: Width = 768,
    epochs: Epochs = None,
    seed: Seed = 0,
    missing: Missing = "zero",
    dtype: DType = "float32",
    no_align: NoAlign = False,
) -> None:
    """Correlated genes to vectors."""
    from genecompass.dataset_scripts.prior_knowledge.co_expression import build_co_expression
    from genecompass.dataset_scripts.prior_knowledge.correlation import CorrelationSettings

    _check_output(output)
    table = _table(genes)
    prior = build_co_expression(
        cell_sources(corpus, cells, table),
        table,
        cells_per_dataset=cells_per_dataset or None,
        transform=transform,  # type: ignore[arg-type]
        correlation=CorrelationSettings(threshold, min_shared, stability, device),
        pooling=pooling,  # type: ignore[arg-type]
        settings=_skip_gram(width, seed, epochs),
        align=not no_align,
        missing=missing,  # type: ignore[arg-type]
        dtype=dtype,  # type: ignore[arg-type]
        progress=lambda line: typer.echo(line, err=True),
    )
    _save(output, [prior])


@command(
    build_app,
    example="genecompass priors build promoter --genes genes.parquet --genome human=GRCh38.fa,gencode.gtf.gz "
    "--model InstaDeepAI/nucleotide-transformer-v2-50m-multi-species -o promoter.safetensors",
)
def promoter(
    genes: Genes,
    output: Output,
    genome: Genomes,
    model: Annotated[str, typer.Option(help="DNA model: Hub name or folder. Default: k-mer frequencies.")] = "",
    pooling: Annotated[str, typer.Option(help="mean or cls, with --model.")] = "mean",
    k: Annotated[int, typer.Option(help="Word length of the k-mer default.")] = 5,
    upstream: Annotated[int, typer.Option(help="Bases before the transcription start.")] = 500,
    downstream: Annotated[int, typer.Option(help="Bases from the transcription start on.")] = 2000,
    batch_size: Annotated[int, typer.Option(help="Chunks a batch, with --model.")] = 16,
    device: Annotated[str, typer.Option(help="cpu or cuda, with --model.")] = "cpu",
    resume: Annotated[Path | None, typer.Option(help="Folder of finished parts, with --model.")] = None,
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="With --model.")] = False,
    width: Annotated[int, typer.Option(help="Numbers per gene of the k-mer default.")] = 768,
    missing: Missing = "zero",
    dtype: DType = "float32",
) -> None:
    """Sequences around transcription starts to vectors."""
    from genecompass.dataset_scripts.prior_knowledge.promoter import KmerEmbedder, build_promoter

    _check_output(output)
    embedder: Any = KmerEmbedder(width, k)
    if model:
        from genecompass.dataset_scripts.prior_knowledge.dna_model import DnaModelEmbedder

        embedder = DnaModelEmbedder(
            model,
            pooling=pooling,  # type: ignore[arg-type]
            batch_size=batch_size,
            device=device,
            trust_remote_code=trust_remote_code,
            resume=resume,
            progress=lambda done, total: typer.echo(f"{done:,} of {total:,} sequences", err=True),
        )
    prior = build_promoter(
        _genome_sources(genome),
        _table(genes),
        embedder=embedder,
        upstream=upstream,
        downstream=downstream,
        missing=missing,  # type: ignore[arg-type]
        dtype=dtype,  # type: ignore[arg-type]
        progress=lambda line: typer.echo(line, err=True),
    )
    _save(output, [prior])


@command(
    build_app,
    "all",
    example="genecompass priors build all --genes genes.parquet --network human=collectri.tsv --families "
    "human=hgnc_complete_set.txt --corpus my_corpus -o priors.safetensors",
)
def build_all(
    genes: Genes,
    output: Output,
    network: Networks = [],  # noqa: B006
    confidence: Confidence = "",
    families: Families = [],  # noqa: B006
    corpus: Corpus = None,
    cells: Cells = [],  # noqa: B006
    genome: Genomes = [],  # noqa: B006
    width: Width = 768,
    epochs: Epochs = None,
    seed: Seed = 0,
    missing: Missing = "zero",
    dtype: DType = "float32",
) -> None:
    """Every table that there is input for, with default settings, into one file."""
    from genecompass.dataset_scripts.prior_knowledge.co_expression import build_co_expression
    from genecompass.dataset_scripts.prior_knowledge.promoter import KmerEmbedder, build_promoter
    from genecompass.tokenization.errors import InputError

    _check_output(output)
    if not (network or families or corpus or cells or genome):
        raise InputError("nothing to build from: give --network, --families, --corpus or --cells, --genome")
    table, settings = _table(genes), _skip_gram(width, seed, epochs)
    options: dict[str, Any] = {"missing": missing, "dtype": dtype}
    priors = []
    if genome:
        priors.append(build_promoter(_genome_sources(genome), table, embedder=KmerEmbedder(width), **options))
    if corpus or cells:
        sources = cell_sources(corpus, cells, table)
        say = lambda line: typer.echo(line, err=True)  # noqa: E731
        priors.append(build_co_expression(sources, table, settings=settings, progress=say, **options))
    if families:
        priors.append(_gene_family(table, families, settings, **options))
    if network:
        priors.append(_grn(table, network, confidence, settings, **options))
    _save(output, priors)


@command(
    app,
    example="genecompass priors attach demo_output/priors.safetensors --model demo_output/checkpoint -o with_priors",
)
def attach(
    tables: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Files of prior tables.")],
    model: Annotated[str, typer.Option(help="Checkpoint: folder or owner/name[@revision].", rich_help_panel="Model")],
    output: Annotated[Path, typer.Option(*OUTPUT, help="Folder of the new checkpoint.", rich_help_panel="Output")],
) -> None:
    """Write a copy of a checkpoint that holds these tables."""
    from genecompass.dataset_scripts.prior_knowledge.attach import attach_priors
    from genecompass.model_cards import write_card

    attach_priors(model, tables, output)
    write_card(output)
    typer.echo(f"{output}: checkpoint with {', '.join(map(str, tables))}")


@command(
    app,
    "import",
    example="genecompass priors import promoter=promoter.pickle grn=grn.pickle --genes genes.parquet -o "
    "priors.safetensors",
)
def import_published(
    pickles: Annotated[list[str], typer.Argument(metavar="NAME=PICKLE...", help="For example grn=peca_grn.pickle.")],
    genes: Genes,
    output: Output,
    missing: Missing = "zero",
    dtype: DType = "float32",
) -> None:
    """Read published tables from their pickles, safely."""
    from genecompass.dataset_scripts.prior_knowledge.published import read_published_prior

    _check_output(output)
    table = _table(genes)
    read = [
        read_published_prior(path, name, table, missing=missing, dtype=dtype)  # type: ignore[arg-type]
        for name, path in _split(pickles, "table")
    ]
    _save(output, read)


@command(
    app,
    example="genecompass priors inspect grn.safetensors --genes genes.parquet --gene human=GATA4 --figure maps",
)
def inspect(
    tables: Annotated[list[Path], typer.Argument(help="Files of prior tables.")],
    genes: Genes,
    gene: Annotated[list[str], typer.Option(help="SPECIES=GENE: print its nearest genes. Repeatable.")] = [],  # noqa: B006
    count: Annotated[int, typer.Option(help="How many neighbours.")] = 10,
    figure: Annotated[Path | None, typer.Option(help="Folder for 2-D maps, one per table and species.")] = None,
    colour: Annotated[str, typer.Option(help="Colour by biotype, or by a file: columns gene and label.")] = "biotype",
    method: Annotated[str, typer.Option(help="umap or pca.")] = "umap",
    seed: Seed = 0,
) -> None:
    """Coverage, neighbours, homologs across species, and a map."""
    from genecompass.dataset_scripts.prior_knowledge import inspection
    from genecompass.dataset_scripts.prior_knowledge.tables import read_tables

    table = _table(genes)
    for prior in read_tables(tables):
        typer.echo(f"{prior.name}: {prior.width} wide, {prior.metadata.get('method', 'method not recorded')}")
        for species, found in inspection.coverage_of(prior, table).items():
            typer.echo(f"  {species}: {found['known']:,} of {found['genes']:,} genes ({found['fraction']:.1%})")
        for row in inspection.homolog_cosines(prior, table, seed=seed).to_dict("records"):
            unseen = row["held_out_homolog_cosine"]
            more = "" if unseen is None else f"; {unseen:.3f} on homologs kept out of the alignment"
            typer.echo(
                f"  homologs of {row['species']}: cosine {row['homologs']:.3f}, random pairs {row['random']:.3f} "
                f"({row['pairs']:,} pairs){more}"
            )
        for species, name in _split(gene, "--gene", "GENE"):
            try:
                near = inspection.nearest_genes(prior, table, name, species, count=count)
            except ValueError as error:
                typer.echo(f"  {name}: {error}")
                continue
            shown = ", ".join(f"{r['symbol'] or r['gene_id']} {r['cosine']:.2f}" for r in near.to_dict("records"))
            typer.echo(f"  {name} ({species}): {shown}")
        if figure is not None:
            for species in table.species:
                path = figure / f"{prior.name}_{species}.png"
                labels = inspection.gene_labels(colour, table, species)
                inspection.draw_map(prior, table, labels, path, species=species, method=method, seed=seed)  # type: ignore[arg-type]
                typer.echo(f"  {path}")
