"""``genecompass benchmark cross-species``: annotation from one species to another, with baselines."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    epilog="Example: genecompass benchmark cross-species --data baron_both.h5ad --species organism "
    "--gene-species human --model runs/tiny -o results"
)
def cross_species(
    data: Annotated[Path, typer.Option(help="Labelled cells of two species.")],
    model: Annotated[str, typer.Option(help="Pre-trained checkpoint.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for JSON, table and figures.")],
    species: Annotated[str, typer.Option(help="obs column that says the species.")] = "organism",
    label: Annotated[str, typer.Option(help="obs column of labels.")] = "cell_type",
    gene_species: Annotated[
        str | None,
        typer.Option(help="Species of the gene names where all cells share them, as after mapping orthologs."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the data set in tables.")] = None,
    methods: Annotated[str | None, typer.Option(help="Parts of method names, by comma; all by default.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, by comma.")] = "0,1,2",
    cells_per_class: Annotated[str, typer.Option(help="Labelled cells a class, by comma.")] = "5,10,25,all",
    max_length: Annotated[int, typer.Option(help="Genes a cell for the model.")] = 512,
    max_steps: Annotated[int, typer.Option(help="Training steps a run at most.")] = 150,
    epochs: Annotated[float, typer.Option(help="Epochs a run at most.")] = 30,
    batch_size: Annotated[int, typer.Option(help="Cells a step.")] = 16,
    learning_rate: Annotated[list[str] | None, typer.Option(help="method=rate; once a method.")] = None,
    pooling: Annotated[str, typer.Option(help="What embeddings are taken from: mean or species.")] = "mean",
    figures: Annotated[bool, typer.Option(help="Draw figures.")] = True,
) -> None:
    """Train on each species, test on the other; baselines see the same homolog-mapped genes. Seeds: --seeds."""
    from genecompass.eval.tasks.benchmarks import BenchmarkSettings, benchmark_cross_species

    settings = BenchmarkSettings.parse(
        methods=methods,
        seeds=seeds,
        cells_per_class=cells_per_class,
        max_length=max_length,
        max_steps=max_steps,
        epochs=epochs,
        batch_size=batch_size,
        learning_rates=learning_rate or [],
        pooling=pooling,
        figures=figures,
    )
    typer.echo(
        benchmark_cross_species(
            data,
            model,
            output,
            species_column=species,
            label=label,
            gene_species=gene_species,
            name=name,
            settings=settings,
            echo=typer.echo,
        )
    )
