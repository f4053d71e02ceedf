"""``genecompass benchmark response-genes``: responses to perturbed genes, simple methods beside the network."""

from pathlib import Path
from typing import Annotated

import typer

from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import OUTPUT, Seeds, parse_seeds
from genecompass.commands.response_options import MaybeModelOptions, ResponseInput, TableOptions

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
    model: MaybeModelOptions,
    tables: TableOptions,
    context: Annotated[
        Path | None,
        typer.Option(help="Cells in which the checkpoint reads its genes' mean states.", rich_help_panel="Model"),
    ] = None,
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
    networks: Annotated[
        bool, typer.Option(help="Fit networks too: minutes, not seconds.", rich_help_panel="Statistics")
    ] = True,
    seeds: Seeds = "0,1,2,3,4",
) -> None:
    """Predict the effect of unseen genes and pairs; simple methods, shuffled and random tables beside the model."""
    from genecompass.eval.tasks.response_arms import compared, network_arms
    from genecompass.eval.tasks.response_genes import as_text, benchmark_genes, differences_as_text
    from genecompass.inference.response.conditions import all_genes
    from genecompass.inference.response.effects import open_h5ad, read_effects
    from genecompass.inference.response.features import read_go
    from genecompass.tokenization.files import atomic_path, write_json

    numbers = parse_seeds(seeds)
    adata, where = open_h5ad(source)
    effects = read_effects(adata, perturbation, control=control, where=where)
    names = all_genes([*effects.conditions.genes, effects.genes])
    checkpoint = model.read(names, context)
    found = []
    for table in (*tables.read(names), *checkpoint):
        if len(table.restricted(all_genes(effects.conditions.genes)).genes) > 1:
            found.append(table)
        else:
            typer.echo(f"{table.name}: left out, it has a row for fewer than two of the perturbed genes")
    go = None if tables.go is None else read_go(tables.go)
    arms = network_arms(found, go=go, cells=adata if control is not None else None) if networks else {}
    ours = [f"{kind} {table.name}" for table in checkpoint for kind in ("ridge on", "5 nearest on", "network on")]
    benchmark = benchmark_genes(
        effects,
        name=source.stem,
        seeds=numbers,
        tables=found,
        arms=arms,
        seen=seen,
        ours=ours,
        progress=lambda words: typer.echo(words, err=True),
    )
    differences = benchmark.differences(compared(found, networks=networks))
    with atomic_path(output) as temporary:
        benchmark.conditions.to_csv(temporary, index=False)
    record = benchmark.record()
    record["differences"] = differences.to_dict("records")
    write_json(output.with_suffix(".json"), record)
    for name, share in benchmark.settings["coverage"].items():
        typer.echo(f"{name}: rows for {share:.0%} of the perturbed genes")
    typer.echo(as_text(benchmark))
    if not differences.empty:
        typer.echo(f"\n{differences_as_text(differences)}")
