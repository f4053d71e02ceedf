"""``genecompass explain``: which genes speak for what a model makes of a cell."""

from typing import Annotated, Literal

import typer

from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import CellOptions, Input, MaxLength, ModelOptions, OutputFolder

app = new_app()


@command(
    app,
    example="genecompass explain demo_output/cells.h5ad --model demo_output/adapter --species human "
    "--cell AAAGCCTGGCTAAC-1 -o why",
)
def explain(
    source: Input,
    model: ModelOptions,
    cells: CellOptions,
    cell: Annotated[list[str], typer.Option("--cell", help="Name of a cell. Repeatable.", rich_help_panel="Cells")],
    output: OutputFolder,
    target: Annotated[
        str | None, typer.Option(help="Label to explain; the most likely one by default.", rich_help_panel="Model")
    ] = None,
    method: Annotated[
        Literal["integrated_gradients", "gradient_x_input", "attention"],
        typer.Option(help="How genes are given their part.", rich_help_panel="Model"),
    ] = "integrated_gradients",
    steps: Annotated[
        int, typer.Option(min=1, help="Points on the path of integrated gradients.", rich_help_panel="Model")
    ] = 32,
    max_length: MaxLength = None,
) -> None:
    """Write which genes speak for a cell's label (or its embedding): a table and a figure for each cell."""
    from genecompass.eval.plots import plot_gene_scores
    from genecompass.inference.annotation.attribution import explain as explain_cell

    opened = cells.open(source)
    for name in cell:
        found = explain_cell(
            opened, model.model, cells.species, name,
            target=target, method=method, steps=steps, gene_species=cells.gene_species, max_length=max_length,
            device=model.device,
        )  # fmt: skip
        safe = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
        table = found.write(output / f"{safe}.tsv")
        figures = plot_gene_scores(found.scores, table, title=f"{name}: {found.target}")
        typer.echo(f"wrote {table}, {', '.join(map(str, figures))}: what speaks for {found.target!r} in {name}")
