"""``genecompass respond``: fit a response model on one data set, predict conditions that nobody measured."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import OUTPUT, OutputFolder, Seed
from genecompass.commands.response_options import MaybeModelOptions, ResponseInput, TableOptions

app = new_app("Learn what perturbing genes does in one data set, and predict what nobody measured.")


@command(
    app,
    example="genecompass respond fit cells.h5ad --perturbation condition --control ctrl --model demo_output/checkpoint "
    "--species human -o my_response",
)
def fit(
    source: ResponseInput,
    output: OutputFolder,
    model: MaybeModelOptions,
    tables: TableOptions,
    kind: Annotated[Literal["genes"], typer.Option(help="What was perturbed.", rich_help_panel="Cells")] = "genes",
    perturbation: Annotated[
        str, typer.Option(help="obs column of perturbed genes, such as A or A+B.", rich_help_panel="Cells")
    ] = "perturbation",
    control: Annotated[
        str | None,
        typer.Option(help="Label of control cells; leave out where X holds effects.", rich_help_panel="Cells"),
    ] = None,
    members: Annotated[int, typer.Option(min=1, help="Networks to average.", rich_help_panel="Statistics")] = 3,
    seed: Seed = 0,
) -> None:
    """Fit networks on top of the learned additive model, and write them into a folder."""
    from genecompass.inference.response.features import read_go
    from genecompass.inference.response.predict import fit_response

    response = fit_response(
        source,
        perturbation=perturbation,
        control=control,
        model=model.model,
        species=model.species,
        device=model.device,
        table=tables.only(),
        go=None if tables.go is None else read_go(tables.go),
        members=members,
        seed=seed,
        progress=True,
    )
    response.save(output)
    if response.about["table"] is not None:
        typer.echo(
            f"{response.about['table']}: rows for {response.about['coverage_perturbed']:.0%} of the perturbed and "
            f"{response.about['coverage_measured']:.0%} of the measured genes"
        )
    typer.echo(
        f"{output}: {kind}, {len(response.conditions)} conditions, {len(response.perturbed)} perturbed genes, "
        f"{len(response.measured)} measured genes"
    )


@command(app, example="genecompass respond predict my_response --condition KLF1+MAP2K6 -o predicted.h5ad")
def predict(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="Folder that `respond fit` wrote.")],
    condition: Annotated[list[str], typer.Option("--condition", "-c", help="A, or A+B for two at once. Repeatable.")],
    output: Annotated[Path, typer.Option(*OUTPUT, help="h5ad of predictions.", rich_help_panel="Output")],
) -> None:
    """Predict effects with their uncertainty; X is the mean, layers hold delta and std."""
    import numpy as np

    from genecompass.inference.response.predict import ResponseModel
    from genecompass.tokenization.files import atomic_path

    found = ResponseModel.load(source).predict(condition)
    with atomic_path(output) as temporary:
        found.write_h5ad(temporary)
    for i, row in enumerate(found.obs.itertuples()):
        delta, spread = found.layers["delta"][i], found.layers["std"][i]
        most = np.argsort(-np.abs(delta))[:5]
        genes = ", ".join(f"{found.var_names[j]} {delta[j]:+.2f} ± {spread[j]:.2f}" for j in most)
        note = "measured" if row.in_training else "not measured"
        if row.never_perturbed:
            note += f"; never perturbed in the data: {row.never_perturbed}"
        typer.echo(f"{row.condition} ({note}): {genes}")
    typer.echo(f"{output}: {found.n_obs} conditions, {found.n_vars} genes")
