"""The ``genecompass`` command: verbs are imported only when they are called, and bad input is one line, not a trace."""

import os
import sys
import warnings
from typing import ClassVar

import typer

from genecompass.lazy import LazyGroup

# verb -> one line of help; the verb lives in genecompass/commands/<verb>.py as a typer app called `app`
VERBS = {
    "demo": "Walk the whole path on real cells, offline: data to checkpoint, annotation and a report.",
    "convert": "Turn a published GeneCompass checkpoint into this format.",
    "vocabulary": "Build, import, inspect gene tables; compute gene medians.",
    "priors": "Build the prior-knowledge tables and attach them to a checkpoint.",
    "corpus": "Build, check, inspect, tokenise a corpus of cells.",
    "pretrain": "Pre-train a model from a corpus, from one YAML file.",
    "embed": "Write cell and gene embeddings into an AnnData file.",
    "finetune": "Fine-tune for cells or genes, with LoRA by default.",
    "annotate": "Label cells with a fine-tuned model or from a labelled reference.",
    "perturb": "Delete, over-express or knock down genes in silico; rank cell-fate regulators.",
    "grn": "Infer gene regulatory networks.",
    "benchmark": "Run benchmarks with simple baselines beside the model.",
    "card": "Write a model, adapter, prior or corpus card from what was recorded.",
    "push": "Upload a checkpoint, adapter, prior table or corpus to the Hub.",
    "verify": "Check a checkpoint, adapter, prior table or corpus against its manifest.",
    "app": "Explore a checkpoint and a data set in the browser.",
}


class _Verbs(LazyGroup):
    verbs: ClassVar[dict[str, str]] = VERBS
    modules: ClassVar[str] = "genecompass.commands.{}"


app = typer.Typer(
    cls=_Verbs,
    name="genecompass",
    help="Single-cell counts in, gene-regulatory knowledge out. Every verb has --help with an example.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from genecompass import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", help="Print the version and exit.", is_eager=True, callback=_print_version
    ),
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exit 2 with one clear line when the input is at fault.

    ``GENECOMPASS_DEBUG=1`` shows the full trace instead.
    """
    # what libraries will change one day is not the user's concern
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    try:
        app(args=arguments, prog_name="genecompass")
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("GENECOMPASS_DEBUG"):
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        sys.stderr.write(f"genecompass: error: {message}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
