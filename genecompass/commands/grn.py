"""``genecompass grn``: infer a gene regulatory network."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import (
    OUTPUT,
    CellOptions,
    InferenceOptions,
    Input,
    MaxCells,
    Overwrite,
    Seed,
    Which,
    chosen,
    refuse_existing,
)

app = new_app()

NVariable = Annotated[
    int,
    typer.Option(min=0, help="Most variable genes taken as targets, besides regulators.", rich_help_panel="Statistics"),
]
Regulators = Annotated[
    Path | None,
    typer.Option(help="File of regulators, one in a line; human factors by default.", rich_help_panel="Statistics"),
]


@command(
    app,
    example="genecompass grn demo_output/cells.h5ad --model demo_output/checkpoint --species human "
    "--top-k 20 -o network.csv",
)
def grn(
    source: Input,
    model: InferenceOptions,
    cells: CellOptions,
    output: Annotated[
        Path,
        typer.Option(*OUTPUT, help="Network: .csv, .tsv, .parquet, .graphml or .gexf.", rich_help_panel="Output"),
    ],
    method: Annotated[
        Literal[
            "similarity",
            "deletion",
            "attention",
            "structural_vae",
            "structural_vae_started",
            "structural_vae_masked",
            "pearson",
            "spearman",
            "partial_correlation",
            "genie3",
            "extra_trees",
            "grnboost2",
            "random",
        ],
        typer.Option(help="Of the model, of expression alone, or of both.", rich_help_panel="Statistics"),
    ] = "similarity",
    which: Which = None,
    max_cells: MaxCells = None,
    regulators: Regulators = None,
    n_variable: NVariable = 500,
    min_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of cells that must express a gene.", rich_help_panel="Statistics")
    ] = 0.1,
    threshold: Annotated[
        float | None, typer.Option(help="Keep edges of at least this weight.", rich_help_panel="Output")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Keep this many targets a regulator.", rich_help_panel="Output")
    ] = None,
    draw: Annotated[
        list[str] | None,
        typer.Option("--draw", help="Draw this regulator's targets (.png). Repeatable.", rich_help_panel="Output"),
    ] = None,
    decoupler: Annotated[
        Path | None,
        typer.Option(
            help="Also write source, target, signed weight here (.csv), for decoupler.", rich_help_panel="Output"
        ),
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="File (.npz) from which cut-off deletions go on.")] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Infer which regulators act on which targets.

    Methods on expression alone take only the genes of --model, which may be a gene table for them.
    """
    refuse_existing(output, overwrite)
    from genecompass.inference.networks.edges import FORMATS, as_sources, draw_regulator, write_network
    from genecompass.inference.networks.grn import MODEL_METHODS, infer_grn
    from genecompass.tokenization.errors import InputError
    from genecompass.tokenization.files import atomic_path
    from genecompass.tokenization.gene_table import GeneTable
    from genecompass.tokenization.sources import resolve

    if output.suffix not in FORMATS:
        raise InputError(f"{output}: name a file that ends in {', '.join(FORMATS)}")
    opened = cells.open(source)
    by_model = method in MODEL_METHODS
    network = infer_grn(
        opened,
        model.model if by_model else None,
        regulators,
        method,
        **cells.named,
        **model.running,
        cells=chosen(opened, which),
        max_cells=max_cells,
        n_variable=n_variable,
        min_share=min_share,
        threshold=threshold,
        top_k=top_k,
        gene_table=None if by_model else GeneTable.read(resolve(model.model)),
        store=resume,
        seed=seed,
    )
    write_network(network, output)
    if decoupler is not None:
        with atomic_path(decoupler) as temporary:
            as_sources(network).to_csv(temporary, index=False)
    for regulator in draw or []:
        draw_regulator(network, regulator, output.with_name(f"{output.stem}_{regulator}.png"))
    typer.echo(network.head(10).to_string(index=False, float_format=lambda x: f"{x:.3g}"))
    overlap = network.attrs.get("correlation")
    if overlap:
        typer.echo(
            f"beside a plain correlation network: {overlap['shared']:.0%} of the {overlap['n']} strongest edges are "
            f"the same (chance {overlap['chance']:.0%}), rank correlation {overlap['spearman']:.2f}"
        )
    typer.echo(f"{output}: {len(network)} edges of {network['regulator'].nunique()} regulators")
