"""``genecompass perturb``: change genes in silico; rank genes by where they move cells."""

import re
from pathlib import Path
from typing import Annotated, Any, cast

import typer

app = typer.Typer(
    help="Delete, over-express or knock down genes in silico, against matched random genes; rank cell-fate regulators.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Data = Annotated[Path, typer.Argument(help="Cells with raw counts: .h5ad or another file that can be read.")]
Model = Annotated[str, typer.Argument(help="Checkpoint: folder or owner/name[@revision].")]
Species = Annotated[str, typer.Option(help="Species of the cells.")]
GeneSpecies = Annotated[
    str | None, typer.Option(help="Species of the gene names, where counts were mapped to another species.")
]
Kind = Annotated[str, typer.Option(help="delete, overexpress, knockdown or set.")]
Dose = Annotated[float | None, typer.Option(help="Factor on the count (knockdown, overexpress), or the count to set.")]
Level = Annotated[
    str | None, typer.Option(help="overexpress to this level of the cells that express it: quantile, median or max.")
]
Quantile = Annotated[float, typer.Option(help="Of the gene's share of molecules, for the level quantile.")]
Null = Annotated[int, typer.Option("--n-null", help="Matched random genes for each perturbation.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for tables and parameters.")]
MaxCells = Annotated[int | None, typer.Option(help="Draw this many cells.")]
Pooling = Annotated[str, typer.Option(help="Cell embedding: mean over genes, or the species slot.")]
Bf16 = Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16: faster, coarser.")]
Ranks = Annotated[str, typer.Option(help="Ranks of the other genes: kept, anew, or both side by side.")]
Seed = Annotated[int, typer.Option(help="Decides the cells and random genes drawn.")]
Factors = Annotated[Path | None, typer.Option(help="File of transcription factors, one in a line.")]


@app.callback()
def _root() -> None:
    pass


@app.command(no_args_is_help=True)
def genes(
    data: Data,
    model: Model,
    gene: Annotated[
        list[str],
        typer.Option("--gene", "-g", help="Gene; A+B for two together; or all: 'expressed' or 'tfs'."),
    ],
    out: Out,
    species: Species = "human",
    gene_species: GeneSpecies = None,
    kind: Kind = "delete",
    dose: Dose = None,
    level: Level = None,
    quantile: Quantile = 0.9,
    insert: Annotated[bool, typer.Option("--insert", help="Give the gene to cells that do not express it.")] = False,
    combinations: Annotated[int, typer.Option(help="2 or 3: all pairs or triples of the genes.")] = 1,
    transcription_factors: Factors = None,
    cells: Annotated[str | None, typer.Option(help="Only these cells: column=value[,value].")] = None,
    max_cells: MaxCells = None,
    groupby: Annotated[str | None, typer.Option(help="Column of obs: effects for each of its groups too.")] = None,
    goal: Annotated[str | None, typer.Option(help="Cells to move towards: column=value[,value].")] = None,
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", help="Gene whose own change is kept; 'expressed' for all.")
    ] = None,
    readout: Annotated[str, typer.Option(help="states, values or ids.")] = "states",
    hide_targets: Annotated[bool, typer.Option("--hide-targets", help="Mask the targets while reading.")] = False,
    n_null: Null = 100,
    min_cells: Annotated[int, typer.Option(help="Cells that must express a gene of 'expressed' or 'tfs'.")] = 1,
    min_group_cells: Annotated[int, typer.Option(help="Groups of fewer cells are shown without p.")] = 10,
    ranks: Ranks = "kept",
    embeddings: Annotated[bool, typer.Option("--embeddings", help="Also write perturbed.h5ad: cells x genes.")] = False,
    pooling: Pooling = "mean",
    bf16: Bf16 = False,
    resume: Annotated[Path | None, typer.Option(help="File (.npz) from which a run that was cut off goes on.")] = None,
    seed: Seed = 0,
) -> None:
    """Perturb genes and measure what the model makes of it.

    Example: genecompass perturb genes pbmc.h5ad runs/tiny -g CD3E -g MS4A1 --groupby cell_type -o deletions
    """
    from genecompass.inference.perturbation.cell_fate import select_cells
    from genecompass.inference.perturbation.figures import plot_effects
    from genecompass.inference.perturbation.perturb import perturb

    several: Any = [name.split("+") if "+" in name else name for name in gene]
    targets: Any = target[0] if target == ["expressed"] else target
    result = perturb(
        data,
        model,
        gene[0] if gene in (["expressed"], ["tfs"]) else several,
        cast(Any, kind),
        species=species,
        gene_species=gene_species,
        dose=dose,
        level=cast(Any, level),
        absent="insert" if insert else "skip",
        combinations=combinations,
        transcription_factors=transcription_factors,
        cells=None if cells is None else select_cells(data, cells),
        max_cells=max_cells,
        groupby=groupby,
        goal=None if goal is None else select_cells(data, goal),
        targets=targets,
        readout=cast(Any, readout),
        hide_targets=hide_targets,
        n_null=n_null,
        min_cells=min_cells,
        min_group_cells=min_group_cells,
        ranks=cast(Any, ranks),
        quantile=quantile,
        embeddings=embeddings,
        pooling=cast(Any, pooling),
        bf16=bf16,
        store=resume,
        seed=seed,
    )
    result.write(out)
    effect = "cell_cosine" if goal is None else "goal_progress"
    for group in sorted(set(result.summary["group"])):
        of_group = result.summary.query("group == @group and effect == @effect and n_cells > 0")
        if len(of_group):
            name = "effects" if group == "all" else f"effects_{re.sub('[^A-Za-z0-9]+', '_', group)}"
            plot_effects(result.summary, out / name, effect=effect, group=group, title=f"{group} cells: {kind}")
    shown = result.summary.query("group == 'all'")
    columns = ["perturbation", "effect", "n_cells", "mean", "null_mean", "n_null", "effect_size", "p", "q"]
    typer.echo(shown[columns].head(20).to_string(index=False, float_format=lambda x: f"{x:.3g}"))
    typer.echo(f"{out}: {len(result.summary)} rows; {result.parameters['milliseconds_per_copy']} ms a cell and gene")


@app.command(no_args_is_help=True)
def fate(
    data: Data,
    model: Model,
    start: Annotated[str, typer.Option(help="Start cells: column=value[,value].")],
    goal: Annotated[str, typer.Option(help="Goal cells: column=value[,value].")],
    out: Out,
    species: Species = "human",
    gene_species: GeneSpecies = None,
    goal_data: Annotated[Path | None, typer.Option(help="File with the goal cells, where it is another one.")] = None,
    goal_species: Annotated[str | None, typer.Option(help="Their species, where it is another one.")] = None,
    candidates: Annotated[str, typer.Option(help="'tfs', or a file of genes, one in a line.")] = "tfs",
    recipe: Annotated[str | None, typer.Option(help="Candidates of a known case: reprogramming or gonadal.")] = None,
    kind: Kind = "overexpress",
    dose: Dose = None,
    level: Level = None,
    quantile: Quantile = 0.9,
    combinations: Annotated[int, typer.Option(help="2 or 3: also pairs or triples of the best.")] = 0,
    n_best: Annotated[int, typer.Option(help="How many of the best to combine and to dose.")] = 5,
    doses: Annotated[list[float] | None, typer.Option("--at-dose", help="Also try the best at this factor.")] = None,
    max_cells: MaxCells = None,
    n_null: Null = 100,
    ranks: Annotated[str, typer.Option(help="Ranks of the other genes: kept or anew.")] = "kept",
    pooling: Pooling = "mean",
    bf16: Bf16 = False,
    resume: Annotated[Path | None, typer.Option(help="File (.npz) from which a run that was cut off goes on.")] = None,
    seed: Seed = 0,
) -> None:
    """Rank genes by how far they move start cells towards goal cells, beyond genes like them.

    Example: genecompass perturb fate pancreas.h5ad runs/tiny --start cell_type=EP --goal cell_type=Beta --species mouse
    """
    from genecompass.inference.perturbation.cell_fate import RECIPES, rank_cell_fate
    from genecompass.inference.perturbation.figures import plot_effects
    from genecompass.tokenization.errors import InputError
    from genecompass.tokenization.files import atomic_path, write_json

    if recipe is not None and recipe not in RECIPES:
        raise InputError(f"unknown recipe {recipe!r}; there are {', '.join(RECIPES)}")
    wanted: Any = list(RECIPES[recipe].factors) if recipe else candidates
    result = rank_cell_fate(
        data,
        model,
        start,
        goal,
        wanted,
        species=species,
        kind=cast(Any, kind),
        dose=dose,
        level=cast(Any, level),
        goal_adata=goal_data,
        goal_species=goal_species,
        gene_species=gene_species,
        combinations=combinations,
        n_best=n_best,
        doses=tuple(doses or ()),
        max_cells=max_cells,
        n_null=n_null,
        ranks=cast(Any, ranks),
        quantile=quantile,
        pooling=cast(Any, pooling),
        bf16=bf16,
        store=resume,
        seed=seed,
    )
    tables = {"ranking": result.ranking, "combinations": result.combinations, "doses": result.doses}
    for name, table in tables.items():
        if table is not None:
            with atomic_path(out / f"{name}.csv") as temporary:
                table.to_csv(temporary, index=False)
    write_json(out / "parameters.json", {**result.parameters, "absent": result.absent})
    if (result.ranking["n_cells"] > 0).any():
        plot_effects(result.ranking, out / "ranking", effect="goal_progress", title=f"{start} to {goal}")
    columns = ["rank", "perturbation", "n_cells", "mean", "null_mean", "n_null", "effect_size", "p", "q"]
    columns += ["log2_fold_change", "fold_change_rank"]
    typer.echo(result.ranking[columns].head(20).to_string(index=False, float_format=lambda x: f"{x:.3g}"))
    if result.absent:
        typer.echo(f"not in the data: {', '.join(result.absent)}")
    typer.echo(f"{out}: {len(result.ranking)} candidates ranked")
