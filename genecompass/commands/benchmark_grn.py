"""``genecompass benchmark grn``: network inference by BEELINE's measures."""

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Network inference by BEELINE's measures, simple methods beside the model, several seeds.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
Seeds = Annotated[int, typer.Option("--seeds", help="Runs of every method that draws at random.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="CSV of all runs; scores for a card go beside it as JSON.")]
Methods = Annotated[list[str] | None, typer.Option("--method", "-m", help="Only these methods.")]


@app.callback()
def _root() -> None:
    pass


def _finish(benchmark: Any, out: Path) -> None:
    from genecompass.eval.tasks.grn import as_text
    from genecompass.tokenization.files import atomic_path, write_json

    with atomic_path(out) as temporary:
        benchmark.runs.to_csv(temporary, index=False)
    write_json(out.with_suffix(".json"), benchmark.record())
    typer.echo(as_text(benchmark))


@app.command(no_args_is_help=True)
def simulated(
    expression: Annotated[Path, typer.Argument(help="CSV of genes by cells, as BEELINE keeps simulated data.")],
    reference: Annotated[Path, typer.Argument(help="CSV of the network behind it.")],
    out: Out,
    method: Methods = None,
    seeds: Seeds = 5,
) -> None:
    """Methods on expression alone, on simulated data whose network is known.

    Example: genecompass benchmark grn simulated GSD/ExpressionData.csv GSD/refNetwork.csv -o gsd.csv
    """
    from genecompass.eval.tasks.grn import EXPRESSION_METHODS, beeline_simulated

    benchmark = beeline_simulated(expression, reference, methods=method or EXPRESSION_METHODS, seeds=range(seeds))
    _finish(benchmark, out)


@app.command(no_args_is_help=True)
def cells(
    data: Annotated[Path, typer.Argument(help="Cells with raw counts.")],
    model: Annotated[str, typer.Argument(help="Checkpoint: folder or owner/name[@revision].")],
    reference: Annotated[list[str], typer.Option("--reference", "-r", help="name=network.csv")],
    out: Out,
    species: Annotated[str, typer.Option(help="Species of the cells.")] = "human",
    regulators: Annotated[Path | None, typer.Option(help="File of regulators, one in a line.")] = None,
    method: Methods = None,
    select: Annotated[str | None, typer.Option(help="Only these cells: column=value[,value].")] = None,
    max_cells: Annotated[int | None, typer.Option(help="Draw this many cells.")] = None,
    n_variable: Annotated[int, typer.Option(help="Most variable genes taken as targets, besides regulators.")] = 500,
    seeds: Seeds = 3,
) -> None:
    """All methods on real cells against reference networks.

    Example: genecompass benchmark grn cells pbmc.h5ad runs/tiny -r STRING=STRING-network.csv -o pbmc.csv
    """
    from genecompass.eval.tasks.grn import EXPRESSION_METHODS, MODEL_METHODS, beeline_cells
    from genecompass.inference.perturbation.cell_fate import select_cells
    from genecompass.tokenization.errors import InputError

    references = dict(pair.partition("=")[::2] for pair in reference)
    if not all(references.values()):
        raise InputError("name each reference as name=network.csv")
    everything = ("expression_level", *MODEL_METHODS, *EXPRESSION_METHODS)
    benchmark = beeline_cells(
        data,
        references,
        species=species,
        model=model,
        regulators=regulators,
        methods=method or everything,
        name=data.name,
        cells=None if select is None else select_cells(data, select),
        max_cells=max_cells,
        n_variable=n_variable,
        seeds=range(seeds),
    )
    _finish(benchmark, out)
