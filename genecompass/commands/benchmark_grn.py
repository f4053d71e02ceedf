"""``genecompass benchmark grn``: network inference by BEELINE's measures."""

from pathlib import Path
from typing import Annotated, Any

import typer

from genecompass.commands.grammar import command, new_app
from genecompass.commands.grn import NVariable, Regulators
from genecompass.commands.options import (
    OUTPUT,
    CellOptions,
    InferenceOptions,
    Input,
    MaxCells,
    Seeds,
    Which,
    chosen,
    parse_seeds,
)

app = new_app("Network inference by BEELINE's measures, simple methods beside the model, several seeds.")
Table = Annotated[
    Path,
    typer.Option(*OUTPUT, help="CSV of all runs; scores for a card go beside it as JSON.", rich_help_panel="Output"),
]
Methods = Annotated[
    list[str] | None, typer.Option("--method", "-m", help="Only this. Repeatable.", rich_help_panel="Statistics")
]


def _finish(benchmark: Any, output: Path) -> None:
    from genecompass.eval.tasks.grn import as_text
    from genecompass.tokenization.files import atomic_path, write_json

    with atomic_path(output) as temporary:
        benchmark.runs.to_csv(temporary, index=False)
    write_json(output.with_suffix(".json"), benchmark.record())
    typer.echo(as_text(benchmark))


@command(
    app,
    example="genecompass benchmark grn simulated GSD/ExpressionData.csv --reference GSD/refNetwork.csv -o gsd.csv",
)
def simulated(
    expression: Annotated[
        Path, typer.Argument(metavar="INPUT", help="CSV of genes by cells, as BEELINE keeps simulated data.")
    ],
    reference: Annotated[Path, typer.Option(help="CSV of the network behind it.")],
    output: Table,
    method: Methods = None,
    seeds: Seeds = "0,1,2,3,4",
) -> None:
    """Methods on expression alone, on simulated data whose network is known."""
    from genecompass.eval.tasks.grn import EXPRESSION_METHODS, beeline_simulated

    chosen_methods = method or EXPRESSION_METHODS
    benchmark = beeline_simulated(expression, reference, methods=chosen_methods, seeds=parse_seeds(seeds))
    _finish(benchmark, output)


@command(
    app,
    example="genecompass benchmark grn cells demo_output/cells.h5ad --model demo_output/checkpoint --species human "
    "-r STRING=STRING-network.csv -o networks.csv",
)
def cells(
    source: Input,
    reference: Annotated[
        list[str],
        typer.Option("--reference", "-r", metavar="NAME=CSV", help="Network to compare with. Repeatable."),
    ],
    model: InferenceOptions,
    cells: CellOptions,
    output: Table,
    regulators: Regulators = None,
    method: Methods = None,
    which: Which = None,
    max_cells: MaxCells = None,
    n_variable: NVariable = 500,
    seeds: Seeds = "0,1,2",
) -> None:
    """All methods on real cells against reference networks."""
    from genecompass.eval.tasks.grn import EXPRESSION_METHODS, MODEL_METHODS, beeline_cells
    from genecompass.tokenization.errors import InputError

    references = dict(pair.partition("=")[::2] for pair in reference)
    if not all(references.values()):
        raise InputError("name each reference as NAME=network.csv")
    opened = cells.open(source)
    everything = ("expression_level", *MODEL_METHODS, *EXPRESSION_METHODS)
    benchmark = beeline_cells(
        opened,
        references,
        **cells.named,
        **model.running,
        model=model.model,
        regulators=regulators,
        methods=method or everything,
        name=source.name,
        cells=chosen(opened, which),
        max_cells=max_cells,
        n_variable=n_variable,
        seeds=parse_seeds(seeds),
    )
    _finish(benchmark, output)
