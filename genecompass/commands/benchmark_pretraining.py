"""``genecompass benchmark pretraining``: tiny models over corpus sizes, priors and tasks, with seeds and curves."""

from typing import Annotated, Any

import typer

from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import OutputFolder, Seeds, parse_seeds

app = new_app()


@command(
    app,
    example="genecompass benchmark pretraining tiny --set corpus=demo_output/corpus "
    "--set gene_table=demo_output/genes.parquet --set optimisation.max_steps=10 "
    '--grid "masking.task=[published, hidden_rank]" --seeds 0 -o grid',
)
def pretraining(
    config: Annotated[str, typer.Argument(metavar="INPUT", help="YAML file, or a preset: tiny, small, base.")],
    output: OutputFolder,
    grid: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=[VALUE,...]", help="What differs between settings. Repeatable."),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key in all runs. Repeatable.")
    ] = None,
    seeds: Seeds = "0,1,2",
    figures: Annotated[bool, typer.Option(help="Draw the curves.", rich_help_panel="Output")] = True,
) -> None:
    """Train a grid of settings times seeds; compare each with its yardsticks; draw the curves.

    Grids as they are asked for: "masking.task=[published, hidden_rank]"; "data.share=[0.1, 0.3, 1.0]";
    with --set model.priors=priors.safetensors, "model.use_priors=[[], null]". An interrupted grid goes on.
    """
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
        seeds=parse_seeds(seeds),
        on_run=finish,
    )
    typer.echo(task.format_summary(content["summary"]))
    for path in task.draw(content, output) if figures else []:
        typer.echo(f"wrote {path}")
    typer.echo(f"wrote {output / task.RESULTS}")
