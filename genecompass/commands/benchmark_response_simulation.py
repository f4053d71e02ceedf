"""``genecompass benchmark response-simulation``: response networks where the truth is known."""

from pathlib import Path
from typing import Annotated

import typer

from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import OUTPUT, Seeds, parse_seeds

app = new_app()


@command(
    app,
    name="response-simulation",
    example="genecompass benchmark response-simulation --seeds 0,1,2,3,4 -o simulation.json",
)
def response_simulation(
    output: Annotated[Path, typer.Option(*OUTPUT, help="JSON of all claims.", rich_help_panel="Output")],
    seeds: Seeds = "0,1,2,3,4",
) -> None:
    """Fit networks to simulated cells and check what was planted: each claim as pass or fail."""
    from genecompass.eval.tasks.response_simulation import check_simulation
    from genecompass.tokenization.files import write_json

    report = check_simulation(seeds=parse_seeds(seeds), progress=lambda words: typer.echo(words, err=True))
    write_json(output, report.record())
    typer.echo(report.as_text())
    if not all(claim.passed for claim in report.claims):
        raise typer.Exit(1)
