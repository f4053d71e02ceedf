"""``genecompass app``: explore a checkpoint and a data set in the browser."""

from pathlib import Path
from typing import Annotated

import typer

from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import DEFAULT_MODEL, OUTPUT

app = new_app()


@command(app, example="genecompass app demo_output/cells.h5ad --model demo_output/checkpoint")
def explore(
    model: Annotated[
        str, typer.Option(help="Checkpoint or adapter: folder or owner/name[@revision].", rich_help_panel="Model")
    ] = DEFAULT_MODEL,
    sample: Annotated[list[Path] | None, typer.Argument(metavar="[INPUT...]", help=".h5ad files to offer.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Port; the first free one from 7860 by default.")] = None,
    browser: Annotated[bool, typer.Option("--browser", help="Open a browser as well.")] = False,
    seed: Annotated[int, typer.Option(help="Of every draw.", rich_help_panel="Statistics")] = 0,
    space: Annotated[
        Path | None,
        typer.Option(
            "--space",
            *OUTPUT,
            help="Write a folder to push as a Hub Space, instead of serving.",
            rich_help_panel="Output",
        ),
    ] = None,
) -> None:
    """Serve a page: coverage, map, groups with scores, top genes, one in-silico deletion."""
    from genecompass.inference.app.page import build_app, launch, write_space
    from genecompass.tokenization.errors import InputError

    missing = [path for path in sample or [] if not path.is_file()]
    if missing:
        raise InputError(f"{missing[0]}: no such file")
    samples = {path.stem: path for path in sample or []}
    if space is not None:
        typer.echo(write_space(space, model, samples=samples))
        return
    launch(build_app(model, samples=samples, seed=seed), host=host, port=port, open_browser=browser)
