"""``genecompass annotate``: cell-type labels into a copy of an ``.h5ad`` file."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from genecompass.commands.embed import Pooling
from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import (
    OUTPUT,
    CellOptions,
    InferenceOptions,
    Input,
    MaxLength,
    Overwrite,
    refuse_existing,
)

app = new_app()
REFERENCE = "Reference"


@command(
    app,
    example="genecompass annotate demo_output/cells.h5ad --model demo_output/adapter --species human -o labelled.h5ad; "
    "without training: genecompass annotate demo_output/cells.h5ad --model demo_output/checkpoint --species human "
    "--reference demo_output/corpus_input/training_cells.h5ad --label cell_type -o transferred.h5ad",
)
def annotate(
    source: Input,
    model: InferenceOptions,
    cells: CellOptions,
    output: Annotated[
        Path, typer.Option(*OUTPUT, help="Copy of the input with labels added (.h5ad).", rich_help_panel="Output")
    ],
    reference: Annotated[
        Path | None,
        typer.Option(help="Labelled cells to take labels from, without training.", rich_help_panel=REFERENCE),
    ] = None,
    label: Annotated[
        str, typer.Option(help="The reference's obs column of labels.", rich_help_panel=REFERENCE)
    ] = "cell_type",
    reference_species: Annotated[
        str | None, typer.Option(help="Species of the reference, if another.", rich_help_panel=REFERENCE)
    ] = None,
    reference_gene_species: Annotated[
        str | None,
        typer.Option(help="Species of the reference's gene names, if not its cells'.", rich_help_panel=REFERENCE),
    ] = None,
    k: Annotated[int, typer.Option(min=1, help="Nearest cells that vote.", rich_help_panel=REFERENCE)] = 15,
    pooling: Pooling = "auto",
    max_length: MaxLength = None,
    threshold: Annotated[
        float,
        typer.Option(min=0, max=1, help="Cells with a lower score are called unsure.", rich_help_panel="Statistics"),
    ] = 0.5,
    unsure: Annotated[str, typer.Option(help="What to call them.", rich_help_panel="Statistics")] = "unsure",
    align: Annotated[
        Literal["none", "center", "auto"],
        typer.Option(
            help="center standardises query and labelled cells each by themselves; auto: across species.",
            rich_help_panel="Statistics",
        ),
    ] = "none",
    key: Annotated[str, typer.Option(help="Name in obs.", rich_help_panel="Output")] = "genecompass_cell_type",
    overwrite: Overwrite = False,
) -> None:
    """Label cells with a fine-tuned model, or from a labelled reference, with calibrated scores."""
    refuse_existing(output, overwrite)
    from genecompass.inference.annotation.in_memory import Reference
    from genecompass.inference.annotation.streamed import annotate_file

    known = None if reference is None else Reference(reference, label, reference_species, reference_gene_species)
    written = annotate_file(
        source,
        output,
        model.model,
        **cells.named,
        **cells.reading,
        **model.running,
        reference=known,
        threshold=threshold,
        unsure=unsure,
        k=k,
        pooling=pooling,
        align=align,
        key=key,
        max_length=max_length,
        progress=True,
    )
    typer.echo(f"wrote {written}: obs[{key!r}], obs['{key}_best'], obs['{key}_score']")
