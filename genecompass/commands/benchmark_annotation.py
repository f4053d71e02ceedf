"""``genecompass benchmark annotation``: cell-type annotation on held-out cells, with baselines."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    epilog="Examples: genecompass benchmark annotation --data train.h5ad --test test.h5ad --model runs/tiny --species "
    "human -o results; in stratified folds: genecompass benchmark annotation --data one_sample.h5ad --folds 5 "
    "--model runs/tiny --species mouse -o results"
)
def annotation(
    data: Annotated[Path, typer.Option(help="Labelled cells: the training set.")],
    model: Annotated[str, typer.Option(help="Pre-trained checkpoint.")],
    species: Annotated[str, typer.Option(help="Species of the cells, or an obs column that says it.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for JSON, table and figures.")],
    test: Annotated[Path | None, typer.Option(help="Independent labelled cells: the test set.")] = None,
    split_by: Annotated[
        str | None, typer.Option(help="Instead of --test: obs column (donor, data set); each value is a test set once.")
    ] = None,
    folds: Annotated[int, typer.Option(help="Instead of --test: stratified folds.")] = 5,
    label: Annotated[str, typer.Option(help="obs column of labels.")] = "cell_type",
    gene_species: Annotated[str | None, typer.Option(help="Species of the gene names, if not the cells'.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the comparison in tables.")] = None,
    methods: Annotated[str | None, typer.Option(help="Parts of method names, by comma; all by default.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, by comma.")] = "0,1,2",
    cells_per_class: Annotated[str, typer.Option(help="Labelled cells a class, by comma.")] = "5,10,25,all",
    max_length: Annotated[int, typer.Option(help="Genes a cell for the model.")] = 512,
    max_steps: Annotated[int, typer.Option(help="Training steps a run at most.")] = 150,
    epochs: Annotated[float, typer.Option(help="Epochs a run at most.")] = 30,
    batch_size: Annotated[int, typer.Option(help="Cells a step.")] = 16,
    learning_rate: Annotated[
        list[str] | None, typer.Option(help="method=rate, for example lora=0.005; once a method.")
    ] = None,
    pooling: Annotated[str, typer.Option(help="What embeddings are taken from: mean or species.")] = "mean",
    figures: Annotated[bool, typer.Option(help="Draw figures.")] = True,
    seed: Annotated[int, typer.Option(help="Of the folds.")] = 0,
) -> None:
    """Score the checkpoint (frozen, LoRA, full, from scratch) and simple baselines; a killed run continues."""
    from genecompass.eval.tasks.benchmarks import BenchmarkSettings, benchmark_annotation

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
        benchmark_annotation(
            data,
            model,
            output,
            species=species,
            test=test,
            split_by=split_by,
            folds=folds,
            fold_seed=seed,
            label=label,
            gene_species=gene_species,
            name=name,
            settings=settings,
            echo=typer.echo,
        )
    )
