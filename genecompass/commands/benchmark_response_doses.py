"""``genecompass benchmark response-doses``: responses to drugs at doses, simple methods beside the network."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import OUTPUT, Seeds, parse_seeds
from genecompass.commands.response_options import ResponseInput

app = new_app()


@command(
    app,
    name="response-doses",
    example="genecompass benchmark response-doses plate.h5ad --drug pert_iname --dose pert_dose --control DMSO "
    "--layer level4_zscore -o doses.csv",
)
def response_doses(
    source: ResponseInput,
    output: Annotated[
        Path,
        typer.Option(
            *OUTPUT,
            help="CSV, one row per seed, method and condition; scores for a card go beside it as JSON.",
            rich_help_panel="Output",
        ),
    ],
    drug: Annotated[str, typer.Option(help="obs column of drugs.", rich_help_panel="Cells")] = "drug",
    dose: Annotated[
        str | None,
        typer.Option(help="obs column of doses or times, numbers; rows of 0 are control.", rich_help_panel="Cells"),
    ] = None,
    covariate: Annotated[
        str | None, typer.Option(help="obs column of patients or cell lines.", rich_help_panel="Cells")
    ] = None,
    control: Annotated[
        str | None, typer.Option(help="Label of control rows among drugs.", rich_help_panel="Cells")
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="Layer that holds effects, such as z-scores.", rich_help_panel="Cells")
    ] = None,
    split: Annotated[
        Literal["dose", "drug", "covariate"],
        typer.Option(help="What is held out, each value in turn.", rich_help_panel="Statistics"),
    ] = "dose",
    networks: Annotated[bool, typer.Option(help="Fit the dose network too.", rich_help_panel="Statistics")] = True,
    seeds: Seeds = "0,1,2",
) -> None:
    """Predict the effect of a dose, a drug or a patient that was held out."""
    from genecompass.eval.tasks.response_doses import benchmark_doses
    from genecompass.eval.tasks.response_genes import as_text
    from genecompass.inference.response.doses import read_dose_effects
    from genecompass.tokenization.files import atomic_path, write_json

    numbers = parse_seeds(seeds)
    effects = read_dose_effects(source, drug, dose=dose, covariate=covariate, control=control, layer=layer)
    benchmark = benchmark_doses(
        effects,
        name=source.stem,
        split=split,
        seeds=numbers,
        network=networks,
        progress=lambda words: typer.echo(words, err=True),
    )
    with atomic_path(output) as temporary:
        benchmark.conditions.to_csv(temporary, index=False)
    write_json(output.with_suffix(".json"), benchmark.record())
    typer.echo(as_text(benchmark))
