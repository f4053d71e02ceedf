"""``genecompass embed``: cell and gene embeddings into a copy of an ``.h5ad`` file."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog="Example: genecompass embed atlas.h5ad --model runs/tiny --species human -o atlas_embedded.h5ad")
def embed(
    source: Annotated[Path, typer.Argument(metavar="IN.h5ad", help="Cells with raw counts.")],
    model: Annotated[str, typer.Option(help="Checkpoint or adapter: folder or owner/name[@revision].")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Copy of the input with embeddings added.")],
    species: Annotated[str, typer.Option(help="Species of the cells, or an obs column that says it.")],
    pooling: Annotated[str, typer.Option(help="auto, cell, mean, species, both, profile or mean+profile.")] = "auto",
    layer: Annotated[int, typer.Option(help="Layer to read; -1 is the last, 0 the input of the first.")] = -1,
    genes: Annotated[bool, typer.Option(help="Also write gene embeddings, averaged by gene.")] = True,
    key: Annotated[str, typer.Option(help="Name in obsm.")] = "X_genecompass",
    gene_species: Annotated[str | None, typer.Option(help="Species of the gene names, if not the cells'.")] = None,
    counts: Annotated[str, typer.Option(help="Where the raw counts are: auto, X, raw or a layer.")] = "auto",
    max_length: Annotated[int | None, typer.Option(help="Genes a cell; the model's longest by default.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Slots a batch, padding included.")] = 16384,
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, or several: cuda:0,cuda:1.")] = None,
    processes: Annotated[int, typer.Option(help="Processes that share the cells.")] = 1,
    restart: Annotated[bool, typer.Option("--restart", help="Start over instead of continuing a killed run.")] = False,
    seed: Annotated[int, typer.Option(help="Accepted for uniformity: embedding draws no random numbers.")] = 0,
) -> None:
    """Embed cells and genes; memory stays flat, a killed run continues, every other entry of the file is kept."""
    from genecompass.inference.embedding.streamed import embed_file

    written = embed_file(
        source,
        output,
        model,
        species,
        pooling=pooling,
        layer=layer,
        genes=genes,
        key=key,
        gene_species=gene_species,
        counts=counts,
        max_length=max_length,
        max_tokens=max_tokens,
        bf16=bf16,
        devices=device.split(",") if device else None,
        processes=processes,
        restart=restart,
        progress=True,
    )
    typer.echo(f"wrote {written}: obsm[{key!r}]" + (", varm['genecompass']" if genes else ""))
