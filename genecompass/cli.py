"""The ``genecompass`` command: verbs are imported only when they are called, and bad input is one line, not a trace."""

import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

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
    "adapt": "Go on training a checkpoint's cell vector on your own cells, without labels.",
    "embed": "Write cell and gene embeddings into an AnnData file.",
    "finetune": "Fine-tune for cells or genes, with LoRA by default.",
    "explain": "Which genes speak for what a model makes of a cell.",
    "annotate": "Label cells with a fine-tuned model or from a labelled reference.",
    "perturb": "Delete, over-express or knock down genes in silico; rank cell-fate regulators.",
    "grn": "Infer gene regulatory networks.",
    "respond": "Learn what perturbing genes does in one data set, and predict what nobody measured.",
    "benchmark": "Run benchmarks with simple baselines beside the model.",
    "card": "Write a model, adapter, prior or corpus card from what was recorded.",
    "push": "Upload a checkpoint, adapter, prior table or corpus to the Hub.",
    "species": "Add a species to a trained checkpoint.",
    "verify": "Check a checkpoint, adapter, prior table or corpus against its manifest.",
    "app": "Explore a checkpoint and a data set in the browser.",
}


# verb -> how an interrupted run goes on
GOES_ON = {
    "embed": "the same command goes on after the last cells that were saved",
    "corpus": "the same command goes on with what is not finished yet",
    "adapt": "the same command with --resume goes on from the last checkpoint",
    "pretrain": "the same command with --resume goes on from the last checkpoint",
}


class _Verbs(LazyGroup):
    verbs: ClassVar[dict[str, str]] = VERBS
    modules: ClassVar[str] = "genecompass.commands.{}"

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; what typer would end with "Aborted!", or without a word, is told apart."""
        try:
            return super().invoke(ctx)
        except EOFError as error:
            raise ValueError(f"a file ends before its content does; it is cut short ({error or 'EOF'})") from error
        except KeyboardInterrupt as stop:
            raise _InterruptedError(isinstance(stop, _Terminated), ctx.invoked_subcommand) from stop


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which a scheduler sends before it kills: unwound like Ctrl-C, so that temporary files go."""


class _InterruptedError(Exception):
    def __init__(self, terminated: bool, verb: str | None) -> None:
        self.code = 143 if terminated else 130
        how = GOES_ON.get(str(verb), "nothing half-finished was left under its final name; start it again")
        super().__init__(f"{'terminated' if terminated else 'interrupted'}: {how}")


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


@contextlib.contextmanager
def _saying_what_is_logged() -> Iterator[None]:
    """Lines about the user's data (what was understood of genes and counts) go to the screen."""
    ours, handler = logging.getLogger("genecompass"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    before = ours.level
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(before)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exit 2 with one clear line when the input is at fault, 1 for anything unforeseen.

    ``GENECOMPASS_DEBUG=1`` shows the full trace instead.
    """
    # what libraries will change one day is not the user's concern
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    before = _on_termination(_raise_terminated)
    try:
        with _saying_what_is_logged():
            app(args=arguments, prog_name="genecompass")
    except Exception as error:
        if os.environ.get("GENECOMPASS_DEBUG"):
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, _InterruptedError):
            sys.stderr.write(f"\ngenecompass: {message}\n")
            sys.exit(error.code)
        if isinstance(error, ValueError | OSError | ImportError):
            sys.stderr.write(f"genecompass: error: {message}\n")
            sys.exit(2)
        if isinstance(error, MemoryError):
            message = f"out of memory ({message}); use fewer cells, smaller batches, or a machine with more"
        sys.stderr.write(
            f"genecompass: error: {type(error).__name__}: {message[:500]} (GENECOMPASS_DEBUG=1 shows where)\n"
        )
        sys.exit(1)
    finally:
        _on_termination(before)


def _raise_terminated(number: int, frame: Any) -> None:
    raise _Terminated


def _on_termination(handler: Any) -> Any:
    """Set what SIGTERM does, give what it did; only the main thread may."""
    if threading.current_thread() is not threading.main_thread() or handler is None:
        return None
    return signal.signal(signal.SIGTERM, handler)


if __name__ == "__main__":
    main()
