"""``genecompass benchmark zero-shot``: embeddings without training, with baselines."""

from pathlib import Path
from typing import Annotated

import typer

from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import CELLS, CellOptions, ModelOptions, OutputFolder, Seeds, parse_seeds

app = new_app()


@command(
    app,
    example="genecompass benchmark zero-shot demo_output/cells.h5ad --model demo_output/checkpoint --species human "
    "--seeds 0 --no-scib --no-figures -o zero_shot",
)
def zero_shot(
    sources: Annotated[
        list[Path], typer.Argument(metavar="INPUT...", help=f"{CELLS} Several are joined, each one batch.")
    ],
    model: ModelOptions,
    cells: CellOptions,
    output: OutputFolder,
    label: Annotated[str, typer.Option(help="obs column of labels.", rich_help_panel="Cells")] = "cell_type",
    batch: Annotated[
        str,
        typer.Option(help="obs column of batches; auto looks for donor or sample; none.", rich_help_panel="Cells"),
    ] = "auto",
    max_length: Annotated[int, typer.Option(min=1, help="Genes a cell.", rich_help_panel="Cells")] = 512,
    seeds: Seeds = "0,1,2",
    scib: Annotated[bool, typer.Option(help="Also the scores of scib-metrics.", rich_help_panel="Statistics")] = True,
    figures: Annotated[bool, typer.Option(help="Draw UMAPs.", rich_help_panel="Output")] = True,
) -> None:
    """Neighbourhood, cluster and batch scores of the embedding, beside PCA and an untrained model."""
    from genecompass.eval.tasks.benchmarks import benchmark_zero_shot

    typer.echo(
        benchmark_zero_shot(
            [cells.open(source) for source in sources],
            model.model,
            output,
            **cells.named,
            label=label,
            batch=None if batch == "none" else batch,
            max_length=max_length,
            seeds=parse_seeds(seeds),
            scib=scib,
            figures=figures,
            device=model.device,
            echo=typer.echo,
        )
    )
