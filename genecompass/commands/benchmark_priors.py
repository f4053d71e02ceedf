"""``genecompass benchmark priors``: whether each prior-knowledge table carries signal."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import OUTPUT, Seeds, parse_seeds
from genecompass.commands.priors import Cells, Confidence, Corpus, Families, Genes, Networks, cell_sources
from genecompass.commands.priors import network_sources as read_networks

app = new_app()


@command(
    app,
    example="genecompass benchmark priors --genes genes.parquet --network human=dorothea.tsv.gz --confidence ABC "
    "--families human=hgnc_complete_set.txt.gz --corpus my_corpus -o results.json",
)
def priors(
    genes: Genes,
    network: Networks = [],  # noqa: B006 - typer makes a new list on every call
    confidence: Confidence = "",
    families: Families = [],  # noqa: B006
    corpus: Corpus = None,
    cells: Cells = [],  # noqa: B006
    transform: Annotated[str, typer.Option(help="Of counts, for co-expression.")] = "auto",
    table: Annotated[list[Path], typer.Option("--table", help="Finished tables to ask for --evidence.")] = [],  # noqa: B006
    evidence: Annotated[
        list[str], typer.Option(metavar="SPECIES=FILE", help="Edge list of another source, e.g. STRING.")
    ] = [],  # noqa: B006
    ignore_case: Annotated[bool, typer.Option("--ignore-case", help="Evidence in other capitals.")] = False,
    width: Annotated[int, typer.Option(help="Numbers per gene.")] = 128,
    epochs: Annotated[int | None, typer.Option(help="Passes over the pairs; default: enough.")] = None,
    seeds: Seeds = "0,1,2",
    resamples: Annotated[
        int, typer.Option(min=1, help="Bootstrap draws of whole factors or genes.", rich_help_panel="Statistics")
    ] = 200,
    output: Annotated[
        Path | None, typer.Option(*OUTPUT, help="JSON file of all results.", rich_help_panel="Output")
    ] = None,
) -> None:
    """Held-out edges, family members and data sets against degree-matched random pairs, with baselines."""
    import pandas as pd

    from genecompass.dataset_scripts.prior_knowledge.gene2vec import Gene2VecSettings
    from genecompass.dataset_scripts.prior_knowledge.tables import read_tables
    from genecompass.eval.tasks import priors as task
    from genecompass.tokenization.errors import InputError
    from genecompass.tokenization.files import write_json
    from genecompass.tokenization.gene_table import GeneTable

    gene_table = GeneTable.read(genes)
    sources = _splits(gene_table, network, confidence, families, corpus, cells, transform)
    if not sources and not (table and evidence):
        raise InputError("nothing to benchmark: give --network, --families, --corpus or --cells, --table + --evidence")
    parts = []
    splits = parse_seeds(seeds)
    settings = Gene2VecSettings(width=width, epochs=epochs)
    if sources:
        say = lambda line: typer.echo(line, err=True)  # noqa: E731
        parts.append(
            task.benchmark_priors(
                sources, gene_table.vocab_size, settings=settings, seeds=splits, resamples=resamples, progress=say
            )
        )
    for prior in read_tables(table) if evidence else []:
        parts.append(
            task.evidence_over_species(
                prior, gene_table, evidence, ignore_case=ignore_case, seeds=splits, resamples=resamples
            )
        )
    results = pd.concat(parts, ignore_index=True)
    summary = task.summarise(results)
    typer.echo(summary.round(3).to_string(index=False))
    typer.echo("Chance is 0.5 for both scores: as many negatives as positives, matched by degree.")
    if output is not None:
        rows = summary.rename(columns={"prior": "dataset", "scorer": "method", "splits": "seeds"})
        rows["ours"] = rows["method"].str.startswith("table")
        content = {"task": "recovery of held-out knowledge", "settings": settings.record()}
        write_json(output, {**content, "rows": rows.to_dict("records"), "splits": results.to_dict("records")})


def _splits(
    table: Any,
    network: list[str],
    confidence: str,
    families: list[str],
    corpus: Path | None,
    cells: list[str],
    transform: str,
) -> dict[tuple[str, str], Callable[[int], Any]]:
    """(table, species) -> function from seed to split."""
    from genecompass.commands.priors import _split
    from genecompass.dataset_scripts.prior_knowledge.families import FamilySource
    from genecompass.eval.tasks import prior_splits as task

    splits: dict[tuple[str, str], Callable[[int], Any]] = {}
    if network:
        splits |= task.network_splits(read_networks(network, confidence), table)
    if families:
        sources = [FamilySource(path, species) for species, path in _split(families, "--families")]
        splits |= task.family_splits(sources, table)
    if corpus or cells:
        splits |= task.co_expression_splits(cell_sources(corpus, cells, table), transform)
    return splits
