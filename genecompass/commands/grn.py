"""``genecompass grn``: infer a gene regulatory network."""

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(no_args_is_help=True)
def grn(
    data: Annotated[Path, typer.Argument(help="Cells with raw counts: .h5ad or another file that can be read.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Network: .csv, .tsv, .parquet, .graphml or .gexf.")],
    model: Annotated[str | None, typer.Option(help="Checkpoint: folder or owner/name[@revision].")] = None,
    gene_table: Annotated[Path | None, typer.Option(help="Gene table, for methods that need no model.")] = None,
    method: Annotated[
        str,
        typer.Option(
            help="similarity, deletion, attention, structural_vae, structural_vae_started, structural_vae_masked, "
            "pearson, spearman, partial_correlation, genie3, extra_trees, grnboost2 or random."
        ),
    ] = "similarity",
    regulators: Annotated[Path | None, typer.Option(help="File of regulators, one in a line.")] = None,
    species: Annotated[str, typer.Option(help="Species of the cells.")] = "human",
    gene_species: Annotated[str | None, typer.Option(help="Species of the gene names, if another.")] = None,
    cells: Annotated[str | None, typer.Option(help="Only these cells: column=value[,value].")] = None,
    max_cells: Annotated[int | None, typer.Option(help="Draw this many cells.")] = None,
    n_variable: Annotated[int, typer.Option(help="Most variable genes taken as targets, besides regulators.")] = 500,
    min_share: Annotated[float, typer.Option(help="Share of cells that must express a gene.")] = 0.1,
    threshold: Annotated[float | None, typer.Option(help="Keep edges of at least this weight.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Keep this many targets for each regulator.")] = None,
    draw: Annotated[list[str] | None, typer.Option("--draw", help="Draw this regulator's targets (.png).")] = None,
    decoupler: Annotated[
        Path | None, typer.Option(help="Also write source, target, signed weight here (.csv), as decoupler reads them.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="File (.npz) from which cut-off deletions go on.")] = None,
    seed: Annotated[int, typer.Option(help="Decides the cells drawn and whatever the method draws.")] = 0,
) -> None:
    """Infer which regulators act on which targets.

    Example: genecompass grn pbmc.h5ad --model runs/tiny --cells cell_type=B --top-k 50 -o b_cells.graphml --draw PAX5
    """
    from genecompass.inference.networks.edges import FORMATS, as_sources, draw_regulator, write_network
    from genecompass.inference.networks.grn import infer_grn
    from genecompass.inference.perturbation.cell_fate import select_cells
    from genecompass.tokenization.errors import InputError
    from genecompass.tokenization.files import atomic_path
    from genecompass.tokenization.gene_table import GeneTable

    if out.suffix not in FORMATS:
        raise InputError(f"{out}: name a file that ends in {', '.join(FORMATS)}")
    chosen: Any = method
    network = infer_grn(
        data,
        model,
        regulators,
        chosen,
        species=species,
        gene_species=gene_species,
        cells=None if cells is None else select_cells(data, cells),
        max_cells=max_cells,
        n_variable=n_variable,
        min_share=min_share,
        threshold=threshold,
        top_k=top_k,
        gene_table=None if gene_table is None else GeneTable.read(gene_table),
        store=resume,
        seed=seed,
    )
    write_network(network, out)
    if decoupler is not None:
        with atomic_path(decoupler) as temporary:
            as_sources(network).to_csv(temporary, index=False)
    for regulator in draw or []:
        draw_regulator(network, regulator, out.with_name(f"{out.stem}_{regulator}.png"))
    typer.echo(network.head(10).to_string(index=False, float_format=lambda x: f"{x:.3g}"))
    overlap = network.attrs.get("correlation")
    if overlap:
        typer.echo(
            f"beside a plain correlation network: {overlap['shared']:.0%} of the {overlap['n']} strongest edges are "
            f"the same (chance {overlap['chance']:.0%}), rank correlation {overlap['spearman']:.2f}"
        )
    typer.echo(f"{out}: {len(network)} edges of {network['regulator'].nunique()} regulators")
