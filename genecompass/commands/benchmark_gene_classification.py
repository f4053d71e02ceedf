"""``genecompass benchmark gene-classification``: gene labels in gene-level folds, with baselines."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import CellOptions, Input, ModelOptions, OutputFolder, Seeds, parse_seeds

app = new_app()


@command(
    app,
    example="genecompass benchmark gene-classification demo_output/cells.h5ad --labels dosage_sensitive_tfs.csv "
    "--model demo_output/checkpoint --species human -o dosage",
)
def gene_classification(
    source: Input,
    labels: Annotated[
        Path,
        typer.Option(help="CSV: columns gene,label; or one column of genes a label.", rich_help_panel="Cells"),
    ],
    model: ModelOptions,
    cells: CellOptions,
    output: OutputFolder,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,...", help="Parts of method names; all by default.", rich_help_panel="Statistics"
        ),
    ] = None,
    seeds: Seeds = "0,1,2",
    folds: Annotated[int, typer.Option(min=2, help="Folds.", rich_help_panel="Statistics")] = 5,
    folds_by: Annotated[
        Literal["family", "gene"],
        typer.Option(help="Kept together in folds: family (by name), or gene.", rich_help_panel="Statistics"),
    ] = "family",
    max_cells: Annotated[int, typer.Option(min=1, help="Cells drawn at random.", rich_help_panel="Cells")] = 600,
    max_length: Annotated[int, typer.Option(min=1, help="Genes a cell.", rich_help_panel="Cells")] = 2048,
    max_steps: Annotated[
        int, typer.Option(min=1, help="Training steps a run at most.", rich_help_panel="Statistics")
    ] = 60,
    seed: Annotated[int, typer.Option(help="Of the cells drawn.", rich_help_panel="Statistics")] = 0,
) -> None:
    """AUROC and AUPRC over folds in which no gene, and no relative of it by name, is both trained on and tested."""
    from genecompass.eval.tasks.benchmarks import benchmark_gene_classification
    from genecompass.tokenization.errors import InputError

    if cells.gene_species not in (None, cells.species):
        raise InputError("gene labels and counts are read in the names of one species; leave --gene-species out")
    typer.echo(
        benchmark_gene_classification(
            cells.open(source),
            labels,
            model.model,
            output,
            species=cells.species,
            methods=methods,
            seeds=parse_seeds(seeds),
            folds=folds,
            folds_by=folds_by,
            max_cells=max_cells,
            max_length=max_length,
            max_steps=max_steps,
            device=model.device,
            cell_seed=seed,
            echo=typer.echo,
        )
    )
