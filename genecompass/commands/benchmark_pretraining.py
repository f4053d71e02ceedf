"""``genecompass benchmark pretraining``: tiny models over corpus sizes, priors and tasks, with seeds and curves."""

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)

EXAMPLE = """Train a grid of settings times seeds; compare each with its yardsticks; draw the curves.

Examples:

  genecompass benchmark pretraining tiny OUT --set corpus=cells --set gene_table=genes.parquet
  --grid "masking.task=[published, hidden_rank]"

  genecompass benchmark pretraining tiny OUT --set corpus=cells --set gene_table=genes.parquet
  --grid "data.share=[0.1, 0.3, 1.0]"

  genecompass benchmark pretraining tiny OUT --set corpus=cells --set gene_table=genes.parquet
  --set model.priors=priors.safetensors --grid "model.use_priors=[[], null]"

An interrupted grid goes on where it was.
"""


@app.command(help=EXAMPLE)
def pretraining(
    config: Annotated[str, typer.Argument(help="YAML file, or a preset: tiny, small, base.")],
    output: Annotated[Path, typer.Argument(help="Folder for runs, results.json, results.tsv and curves.")],
    grid: Annotated[list[str] | None, typer.Option(help='Key and its values: "data.share=[0.1, 1.0]".')] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a key for all runs.")] = None,
    seeds: Annotated[int, typer.Option(help="Number of seeds for every setting.")] = 3,
    seed: Annotated[int, typer.Option(help="First seed.")] = 0,
    figures: Annotated[bool, typer.Option(help="Draw the curves.")] = True,
) -> None:
    """Parse, run the grid, print the table."""
    from genecompass.eval.tasks import pretraining as task
    from genecompass.model_cards import write_card

    def finish(run: task.GridRun, result: dict[str, Any]) -> None:
        write_card(output / run.folder)
        typer.echo(f"done: {run.label}, seed {run.seed}, {result['steps']} steps")

    content = task.run_grid(
        config,
        output,
        overrides=set_ or [],
        grid=task.parse_grid(grid or []),
        seeds=range(seed, seed + seeds),
        on_run=finish,
    )
    typer.echo(task.format_summary(content["summary"]))
    for path in task.draw(content, output) if figures else []:
        typer.echo(f"wrote {path}")
    typer.echo(f"wrote {output / task.RESULTS}")
