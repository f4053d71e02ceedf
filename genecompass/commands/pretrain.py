"""``genecompass pretrain``: from a corpus and one YAML to a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import OUTPUT

app = new_app()


@command(
    app,
    example="genecompass pretrain tiny --set corpus=demo_output/corpus --set gene_table=demo_output/genes.parquet "
    "--set optimisation.max_steps=20 -o run; on several GPUs: torchrun --nproc_per_node 8 -m genecompass.cli "
    "pretrain run.yaml",
)
def pretrain(
    config: Annotated[str, typer.Argument(metavar="INPUT", help="YAML file, or a preset: tiny, small, base.")],
    output: Annotated[
        Path | None, typer.Option(*OUTPUT, help="Folder; short for --set output=...", rich_help_panel="Output")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key: section.key=value. May be repeated.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of weights, order of cells, masks and dropout.", rich_help_panel="Statistics")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the output folder.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the preset or the resolved configuration; stop.")] = False,
) -> None:
    """Pre-train a model from a corpus, from one YAML file or a preset; print held-out figures beside yardsticks."""
    from genecompass.training.pretraining.config import PRESETS, load_config, read_preset

    if show and config in PRESETS and not set_ and seed is None and output is None:
        typer.echo(read_preset(config), nl=False)
        return
    short = [] if seed is None else [f"seed={seed}"]
    short += [] if output is None else [f"output={output}"]
    resolved = load_config(config, [*(set_ or []), *short])
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
