"""``genecompass card``: document a folder from what was recorded in it."""

from pathlib import Path
from typing import Annotated

import typer

from genecompass.commands.grammar import command, new_app

app = new_app()


@command(app, example="genecompass card demo_output/checkpoint --licence cc-by-4.0")
def card(
    folder: Annotated[Path, typer.Argument(metavar="INPUT", help="Checkpoint, adapter, prior tables or corpus.")],
    results: Annotated[
        list[Path] | None, typer.Option(help="Benchmark JSON of this very model; give it once per file.")
    ] = None,
    figure: Annotated[list[Path] | None, typer.Option(help="PNG or SVG to show; give it once per file.")] = None,
    repo: Annotated[str | None, typer.Option(help="owner/name that the usage program shall name.")] = None,
    revision: Annotated[str | None, typer.Option(help="Tag that the usage program shall pin.")] = None,
    licence: Annotated[str | None, typer.Option(help="SPDX id of the licence, such as cc-by-4.0.")] = None,
    corpus: Annotated[
        str | None, typer.Option(help="Corpus that a checkpoint was trained on: lists its sources and licences.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Heading; the folder's name by default.")] = None,
) -> None:
    """Write README.md from the saved configuration, manifest, training record and benchmark results."""
    from genecompass.model_cards import write_card

    typer.echo(
        write_card(
            folder,
            repo=repo,
            revision=revision,
            results=results or [],
            figures=figure or [],
            licence=licence,
            title=title,
            corpus=corpus,
        )
    )
