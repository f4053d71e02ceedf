"""``genecompass benchmark response-genes``: responses to perturbed genes, simple methods beside the network."""

from pathlib import Path
from typing import Annotated

import typer

from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import OUTPUT, Seeds, parse_seeds
from genecompass.commands.response_options import ResponseInput, TableOptions

app = new_app()


@command(
    app,
    name="response-genes",
    example="genecompass benchmark response-genes norman.h5ad --perturbation condition --control control "
    "--go go_human.tsv.gz -o genes.csv",
)
def response_genes(
    source: ResponseInput,
    output: Annotated[
        Path,
        typer.Option(
            *OUTPUT,
            help="CSV, one row per seed, method and condition; scores for a card go beside it as JSON.",
            rich_help_panel="Output",
        ),
    ],
    tables: TableOptions,
    perturbation: Annotated[
        str, typer.Option(help="obs column of perturbed genes, such as A or A+B.", rich_help_panel="Cells")
    ] = "perturbation",
    control: Annotated[
        str | None,
        typer.Option(help="Label of control cells; leave out where X holds effects.", rich_help_panel="Cells"),
    ] = None,
    seen: Annotated[
        float, typer.Option(min=0.1, max=0.95, help="Share of genes that train.", rich_help_panel="Statistics")
    ] = 0.75,
    seeds: Seeds = "0,1,2,3,4",
) -> None:
    """Predict the effect of unseen genes and pairs; simple methods, shuffled and random tables beside the model."""
    from genecompass.eval.tasks.response_genes import as_text, benchmark_genes, differences_as_text
    from genecompass.inference.response.effects import read_effects
    from genecompass.tokenization.files import atomic_path, write_json

    numbers = parse_seeds(seeds)
    effects = read_effects(source, perturbation, control=control)
    found = tables.read(effects.conditions.genes)
    benchmark = benchmark_genes(
        effects,
        name=source.stem,
        seeds=numbers,
        tables=found,
        seen=seen,
        progress=lambda words: typer.echo(words, err=True),
    )
    twins = [(f"ridge on {t.name}", f"ridge on {t.name} shuffled") for t in found]
    twins += [(f"ridge on {t.name}", "ridge on random") for t in found]
    twins += [(f"ridge on {t.name}", "learned additive") for t in found]
    differences = benchmark.differences(twins)
    with atomic_path(output) as temporary:
        benchmark.conditions.to_csv(temporary, index=False)
    record = benchmark.record()
    record["differences"] = differences.to_dict("records")
    write_json(output.with_suffix(".json"), record)
    typer.echo(as_text(benchmark))
    if not differences.empty:
        typer.echo(f"\n{differences_as_text(differences)}")
