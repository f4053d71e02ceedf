"""``genecompass convert``: a published checkpoint folder to this format."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def convert(
    published_dir: Annotated[Path, typer.Argument(help="Published folder: config.json and pytorch_model.bin.")],
    out_dir: Annotated[Path, typer.Argument(help="Where the checkpoint goes.")],
    tokens: Annotated[
        Path | None, typer.Option(help="human_mouse_tokens.pickle: also write the processor (counts to tokens).")
    ] = None,
    homologs: Annotated[
        Path | None, typer.Option(help="homologous_hm_token.pickle: mouse token to human token.")
    ] = None,
    medians: Annotated[
        list[Path] | None, typer.Option(help="Pickle of gene id to median count; once for each species.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT_DIR if it is there.")] = False,
    seed: Annotated[int, typer.Option(help="Accepted for uniformity: conversion draws no random numbers.")] = 0,
) -> None:
    """Turn a published GeneCompass checkpoint into one that AutoModel loads, and check it.

    The weights are read as plain tensors, pickled dictionaries as plain containers; nothing in them is run.

    Example: genecompass convert GeneCompass_Base genecompass-base --tokens human_mouse_tokens.pickle
    --homologs homologous_hm_token.pickle
    """
    from genecompass.model_cards import write_card
    from genecompass.modeling_genecompass.conversion import convert_checkpoint

    if out_dir.exists() and not overwrite:
        raise ValueError(f"{out_dir} is there already; choose another name or pass --overwrite")
    report = convert_checkpoint(published_dir, out_dir, tokens, homologs, medians=list(medians or []))
    write_card(out_dir)
    typer.echo(str(report))
    typer.echo(f"wrote {out_dir}")
