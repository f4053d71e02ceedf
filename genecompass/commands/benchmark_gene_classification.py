"""``genecompass benchmark gene-classification``: gene labels in gene-level folds, with baselines."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    epilog="Example: genecompass benchmark gene-classification --data pbmc.h5ad --labels dosage_sensitive_tfs.csv "
    "--model runs/tiny --species human -o results"
)
def gene_classification(
    data: Annotated[Path, typer.Option(help="Cells that serve as context, with raw counts.")],
    labels: Annotated[
        Path, typer.Option(help="CSV: columns gene,label; or one column of genes for each of two labels.")
    ],
    model: Annotated[str, typer.Option(help="Pre-trained checkpoint.")],
    species: Annotated[str, typer.Option(help="Species of the cells.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for JSON and table.")],
    methods: Annotated[str | None, typer.Option(help="Parts of method names, by comma; all by default.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, by comma.")] = "0,1,2",
    folds: Annotated[int, typer.Option(help="Folds.")] = 5,
    folds_by: Annotated[str, typer.Option(help="Kept together in folds: family (by name), or gene.")] = "family",
    max_cells: Annotated[int, typer.Option(help="Cells drawn at random.")] = 600,
    max_length: Annotated[int, typer.Option(help="Genes a cell for the model.")] = 2048,
    max_steps: Annotated[int, typer.Option(help="Training steps a run at most.")] = 60,
    seed: Annotated[int, typer.Option(help="Of the cells drawn.")] = 0,
) -> None:
    """AUROC and AUPRC over folds in which no gene, and no relative of it by name, is both trained on and tested."""
    from genecompass.eval.tasks.benchmarks import benchmark_gene_classification

    typer.echo(
        benchmark_gene_classification(
            data,
            labels,
            model,
            output,
            species=species,
            methods=methods,
            seeds=[int(s) for s in seeds.split(",")],
            folds=folds,
            folds_by=cast(Any, folds_by),
            max_cells=max_cells,
            max_length=max_length,
            max_steps=max_steps,
            cell_seed=seed,
            echo=typer.echo,
        )
    )
