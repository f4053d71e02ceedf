"""``genecompass embed``: cell and gene embeddings into a copy of an ``.h5ad`` file."""

from pathlib import Path
from typing import Annotated, Literal

import typer

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

Pooling = Annotated[
    Literal["auto", "cell", "mean", "species", "both", "profile", "mean+profile"],
    typer.Option(help="What a cell's embedding is; auto is the cell vector, else the mean.", rich_help_panel="Model"),
]


@command(
    app,
    example="genecompass embed demo_output/cells.h5ad --model demo_output/checkpoint --species human -o embedded.h5ad",
)
def embed(
    source: Input,
    model: InferenceOptions,
    cells: CellOptions,
    output: Annotated[
        Path,
        typer.Option(*OUTPUT, help="Copy of the input with embeddings added (.h5ad).", rich_help_panel="Output"),
    ],
    pooling: Pooling = "auto",
    layer: Annotated[
        int, typer.Option(help="Layer to read; -1 is the last, 0 the input of the first.", rich_help_panel="Model")
    ] = -1,
    max_length: MaxLength = None,
    genes: Annotated[
        bool, typer.Option(help="Also write gene embeddings, averaged by gene.", rich_help_panel="Output")
    ] = True,
    key: Annotated[str, typer.Option(help="Name in obsm.", rich_help_panel="Output")] = "X_genecompass",
    processes: Annotated[int, typer.Option(min=1, help="Processes that share the cells.")] = 1,
    restart: Annotated[bool, typer.Option("--restart", help="Start over instead of continuing a killed run.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Embed cells and genes; memory stays flat, a killed run continues, every other entry of the file is kept.

    Several devices (--device cuda:0,cuda:1) are taken in turn by --processes.
    """
    refuse_existing(output, overwrite)
    from genecompass.inference.embedding.streamed import embed_file

    written = embed_file(
        source,
        output,
        model.model,
        **cells.named,
        **cells.reading,
        pooling=pooling,
        layer=layer,
        genes=genes,
        key=key,
        max_length=max_length,
        max_tokens=model.max_tokens,
        bf16=model.bf16,
        devices=model.device.split(",") if model.device else None,
        processes=processes,
        restart=restart,
        progress=True,
    )
    typer.echo(f"wrote {written}: obsm[{key!r}]" + (", varm['genecompass']" if genes else ""))
