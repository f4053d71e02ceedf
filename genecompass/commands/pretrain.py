"""``genecompass pretrain``: from a corpus and one YAML to a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)

EXAMPLE = """Pre-train a model from a corpus, from one YAML file or a preset (tiny, small, base).

Examples:

  genecompass pretrain tiny --set corpus=blood --set gene_table=genes.parquet --set output=run

  genecompass pretrain run.yaml --set masking.task=hidden_rank --seed 1

  genecompass pretrain run.yaml --resume

  torchrun --nproc_per_node 8 -m genecompass.cli pretrain run.yaml
"""


@app.command(help=EXAMPLE)
def pretrain(
    config: Annotated[str, typer.Argument(help="YAML file, or a preset: tiny, small, base.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key: section.key=value. May be repeated.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order of cells, masks and dropout.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the output folder.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the preset or the resolved configuration; stop.")] = False,
) -> None:
    """Parse, train, print the held-out figures beside their yardsticks."""
    from genecompass.training.pretraining.config import PRESETS, load_config, read_preset

    if show and config in PRESETS and not set_ and seed is None:
        typer.echo(read_preset(config), nl=False)
        return
    resolved = load_config(config, [*(set_ or []), *([] if seed is None else [f"seed={seed}"])])
    if show:
        typer.echo(resolved.to_yaml(), nl=False)
        return

    from genecompass.model_cards import CardCallback, write_card
    from genecompass.training.pretraining.evaluation import format_report
    from genecompass.training.pretraining.pretrain import pretrain as run

    result = run(resolved, resume=resume, callbacks=[CardCallback(derived_from=resolved.corpus)])
    if not _is_first_process():
        return
    write_card(result.folder, corpus=resolved.corpus)
    typer.echo(format_report(result.evaluation))
    ended = " (time limit; continue with --resume)" if result.stopped_early else ""
    typer.echo(f"{result.steps} steps in {result.seconds / 60:.1f} minutes{ended}; checkpoint: {Path(result.folder)}")


def _is_first_process() -> bool:
    import os

    return os.environ.get("RANK", "0") == "0"
