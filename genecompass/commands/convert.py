"""``genecompass convert``: a published checkpoint folder to this format."""

from pathlib import Path
from typing import Annotated

import typer

from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import OutputFolder, Overwrite, refuse_existing

app = new_app()


@command(
    app,
    example="genecompass convert GeneCompass_Base --tokens human_mouse_tokens.pickle "
    "--homologs homologous_hm_token.pickle -o genecompass-base",
)
def convert(
    published: Annotated[
        Path, typer.Argument(metavar="INPUT", help="Published folder: config.json and pytorch_model.bin.")
    ],
    output: OutputFolder,
    tokens: Annotated[
        Path | None, typer.Option(help="human_mouse_tokens.pickle: also write the processor (counts to tokens).")
    ] = None,
    homologs: Annotated[
        Path | None, typer.Option(help="homologous_hm_token.pickle: mouse token to human token.")
    ] = None,
    medians: Annotated[
        list[Path] | None, typer.Option(help="Pickle of gene id to median count; once for each species.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Turn a published GeneCompass checkpoint into one that AutoModel loads, and check it.

    The weights are read as plain tensors, pickled dictionaries as plain containers; nothing in them is run.
    """
    from genecompass.model_cards import write_card
    from genecompass.modeling_genecompass.conversion import convert_checkpoint

    refuse_existing(output, overwrite)
    report = convert_checkpoint(published, output, tokens, homologs, medians=list(medians or []))
    write_card(output)
    typer.echo(str(report))
    typer.echo(f"wrote {output}")
