"""``genecompass benchmark zero-shot``: embeddings without training, with baselines."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    epilog="Example: genecompass benchmark zero-shot --data pbmc.h5ad --model runs/tiny --species human -o results"
)
def zero_shot(
    data: Annotated[list[Path], typer.Option(help="Labelled cells; several files are joined, each one batch.")],
    model: Annotated[str, typer.Option(help="Pre-trained checkpoint.")],
    species: Annotated[str, typer.Option(help="Species of the cells, or an obs column that says it.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for JSON, table and UMAP.")],
    label: Annotated[str, typer.Option(help="obs column of labels.")] = "cell_type",
    batch: Annotated[str, typer.Option(help="obs column of batches; auto looks for donor or sample; none.")] = "auto",
    gene_species: Annotated[str | None, typer.Option(help="Species of the gene names, if not the cells'.")] = None,
    max_length: Annotated[int, typer.Option(help="Genes a cell for the model.")] = 512,
    seeds: Annotated[str, typer.Option(help="Seeds, by comma.")] = "0,1,2",
    scib: Annotated[bool, typer.Option(help="Also the scores of scib-metrics.")] = True,
    figures: Annotated[bool, typer.Option(help="Draw UMAPs.")] = True,
) -> None:
    """Neighbourhood, cluster and batch scores of the embedding, beside PCA and an untrained model."""
    from genecompass.eval.tasks.benchmarks import benchmark_zero_shot

    typer.echo(
        benchmark_zero_shot(
            data,
            model,
            output,
            species=species,
            label=label,
            batch=None if batch == "none" else batch,
            gene_species=gene_species,
            max_length=max_length,
            seeds=[int(s) for s in seeds.split(",")],
            scib=scib,
            figures=figures,
            echo=typer.echo,
        )
    )
