"""``genecompass benchmark cross-species``: annotation from one species to another, with baselines."""

from typing import Annotated

import typer

from genecompass.commands.benchmark_options import BudgetOptions
from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import CellOptions, Input, ModelOptions, OutputFolder

app = new_app()


@command(
    app,
    example="genecompass benchmark cross-species baron_both.h5ad --model demo_output/checkpoint --species organism "
    "--gene-species human -o cross",
)
def cross_species(
    source: Input,
    model: ModelOptions,
    cells: CellOptions,
    output: OutputFolder,
    budget: BudgetOptions,
    label: Annotated[str, typer.Option(help="obs column of labels.", rich_help_panel="Cells")] = "cell_type",
    name: Annotated[str | None, typer.Option(help="Name of the data set in tables.", rich_help_panel="Output")] = None,
) -> None:
    """Train on each species, test on the other; baselines see the same homolog-mapped genes.

    --species is the obs column that says whose cell it is.
    """
    from genecompass.eval.tasks.benchmarks import benchmark_cross_species

    typer.echo(
        benchmark_cross_species(
            cells.open(source),
            model.model,
            output,
            species_column=cells.species,
            gene_species=cells.gene_species,
            label=label,
            name=name,
            settings=budget.settings(model.device),
            echo=typer.echo,
        )
    )
