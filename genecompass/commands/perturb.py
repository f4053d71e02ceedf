"""``genecompass perturb``: change genes in silico; rank genes by where they move cells."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import typer

from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import (
    CellOptions,
    GoalCells,
    GoalData,
    InferenceOptions,
    Input,
    MaxCells,
    NNull,
    OutputFolder,
    Overwrite,
    RecipeName,
    Seed,
    StartCells,
    Which,
    chosen,
    refuse_existing,
)

app = new_app(
    "Delete, over-express or knock down genes in silico, against matched random genes; rank cell-fate regulators."
)
EDIT = "Perturbation"
Kind = Literal["delete", "overexpress", "knockdown", "set"]
Combinations = Literal["1", "2", "3"]


@dataclass(frozen=True)
class EditOptions:
    """What is done to a gene's count, and how the outcome is read."""

    PANEL: ClassVar[str] = EDIT

    dose: Annotated[
        float | None, typer.Option(help="Factor on the count (knockdown, overexpress), or the count to set.")
    ] = None
    level: Annotated[
        Literal["quantile", "median", "max"] | None,
        typer.Option(help="overexpress to this level of the cells that express it."),
    ] = None
    quantile: Annotated[
        float, typer.Option(min=0, max=1, help="Of the gene's share of molecules, for the level quantile.")
    ] = 0.9
    pooling: Annotated[
        Literal["mean", "species"], typer.Option(help="Cell embedding: mean over genes, or the species slot.")
    ] = "mean"


Resume = Annotated[Path | None, typer.Option(help="File (.npz) from which a run that was cut off goes on.")]


@command(
    app,
    example="genecompass perturb genes demo_output/cells.h5ad --model demo_output/checkpoint --species human -g CD3D "
    "-g MS4A1 --groupby cell_type --max-cells 50 --n-null 19 -o deletions",
)
def genes(
    source: Input,
    model: InferenceOptions,
    cells: CellOptions,
    gene: Annotated[
        list[str],
        typer.Option(
            "--gene",
            "-g",
            help="Gene; A+B for two together; or 'expressed' or 'tfs'. Repeatable.",
            rich_help_panel=EDIT,
        ),
    ],
    output: OutputFolder,
    edit: EditOptions,
    kind: Annotated[Kind, typer.Option(help="What is done to the gene.", rich_help_panel=EDIT)] = "delete",
    insert: Annotated[
        bool, typer.Option("--insert", help="Give the gene to cells that do not express it.", rich_help_panel=EDIT)
    ] = False,
    combinations: Annotated[
        Combinations, typer.Option(help="2 or 3: all pairs or triples of the genes.", rich_help_panel=EDIT)
    ] = "1",
    transcription_factors: Annotated[
        Path | None, typer.Option(help="File of factors for 'tfs', one in a line.", rich_help_panel=EDIT)
    ] = None,
    which: Which = None,
    max_cells: MaxCells = None,
    groupby: Annotated[
        str | None,
        typer.Option(help="obs column: effects for each of its groups too.", rich_help_panel="Cells"),
    ] = None,
    goal: Annotated[
        str | None,
        typer.Option(metavar="COLUMN=VALUE[,VALUE]", help="Cells to move towards.", rich_help_panel="Cells"),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            help="Gene whose own change is kept; 'expressed' for all. Repeatable.",
            rich_help_panel="Output",
        ),
    ] = None,
    readout: Annotated[
        Literal["states", "values", "ids"], typer.Option(help="What is read of targets.", rich_help_panel="Output")
    ] = "states",
    hide_targets: Annotated[
        bool, typer.Option("--hide-targets", help="Mask the targets while reading.", rich_help_panel="Output")
    ] = False,
    embeddings: Annotated[
        bool,
        typer.Option("--embeddings", help="Also write perturbed.h5ad: cells x genes.", rich_help_panel="Output"),
    ] = False,
    n_null: NNull = 100,
    min_cells: Annotated[
        int,
        typer.Option(
            min=1, help="Cells that must express a gene of 'expressed' or 'tfs'.", rich_help_panel="Statistics"
        ),
    ] = 1,
    min_group_cells: Annotated[
        int, typer.Option(min=1, help="Groups of fewer cells are shown without p.", rich_help_panel="Statistics")
    ] = 10,
    ranks: Annotated[
        Literal["kept", "anew", "both"],
        typer.Option(help="Ranks of the other genes: kept, anew, or both side by side.", rich_help_panel="Statistics"),
    ] = "kept",
    resume: Resume = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Perturb genes and measure what the model makes of it."""
    refuse_existing(output, overwrite)
    from genecompass.inference.perturbation.figures import plot_effects
    from genecompass.inference.perturbation.perturb import perturb

    opened = cells.open(source)
    several: Any = [name.split("+") if "+" in name else name for name in gene]
    result = perturb(
        opened,
        model.model,
        gene[0] if gene in (["expressed"], ["tfs"]) else several,
        kind,
        **cells.named,
        **model.running,
        dose=edit.dose,
        level=edit.level,
        quantile=edit.quantile,
        pooling=edit.pooling,
        absent="insert" if insert else "skip",
        combinations=int(combinations),
        transcription_factors=transcription_factors,
        cells=chosen(opened, which),
        max_cells=max_cells,
        groupby=groupby,
        goal=chosen(opened, goal),
        targets=target[0] if target == ["expressed"] else target,
        readout=readout,
        hide_targets=hide_targets,
        n_null=n_null,
        min_cells=min_cells,
        min_group_cells=min_group_cells,
        ranks=ranks,
        embeddings=embeddings,
        store=resume,
        seed=seed,
    )
    result.write(output)
    effect = "cell_cosine" if goal is None else "goal_progress"
    for group in sorted(set(result.summary["group"])):
        of_group = result.summary.query("group == @group and effect == @effect and n_cells > 0")
        if len(of_group):
            name = "effects" if group == "all" else f"effects_{re.sub('[^A-Za-z0-9]+', '_', group)}"
            plot_effects(result.summary, output / name, effect=effect, group=group, title=f"{group} cells: {kind}")
    shown = result.summary.query("group == 'all'")
    columns = ["perturbation", "effect", "n_cells", "mean", "null_mean", "n_null", "effect_size", "p", "q"]
    typer.echo(shown[columns].head(20).to_string(index=False, float_format=lambda x: f"{x:.3g}"))
    typer.echo(f"{output}: {len(result.summary)} rows; {result.parameters['milliseconds_per_copy']} ms a cell and gene")


@command(
    app,
    example="genecompass perturb fate demo_output/cells.h5ad --model demo_output/checkpoint --species human "
    "--start 'cell_type=CD14+ Monocyte' --goal cell_type=Dendritic --max-cells 20 --n-null 19 -o fate",
)
def fate(
    source: Input,
    model: InferenceOptions,
    cells: CellOptions,
    start: StartCells,
    goal: GoalCells,
    output: OutputFolder,
    edit: EditOptions,
    goal_data: GoalData = None,
    goal_species: Annotated[
        str | None, typer.Option(help="Their species, where it is another one.", rich_help_panel="Cells")
    ] = None,
    candidates: Annotated[
        str, typer.Option(help="'tfs', or a file of genes, one in a line.", rich_help_panel=EDIT)
    ] = "tfs",
    recipe: Annotated[
        RecipeName | None,
        typer.Option(help="Candidates of a known case.", rich_help_panel=EDIT),
    ] = None,
    kind: Annotated[Kind, typer.Option(help="What is done to candidates.", rich_help_panel=EDIT)] = "overexpress",
    combinations: Annotated[
        Combinations, typer.Option(help="2 or 3: also pairs or triples of the best.", rich_help_panel=EDIT)
    ] = "1",
    n_best: Annotated[
        int, typer.Option(min=1, help="How many of the best to combine and to dose.", rich_help_panel=EDIT)
    ] = 5,
    doses: Annotated[
        list[float] | None,
        typer.Option("--at-dose", help="Also try the best at this factor. Repeatable.", rich_help_panel=EDIT),
    ] = None,
    max_cells: MaxCells = None,
    n_null: NNull = 100,
    ranks: Annotated[
        Literal["kept", "anew"], typer.Option(help="Ranks of the other genes.", rich_help_panel="Statistics")
    ] = "kept",
    resume: Resume = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Rank genes by how far they move start cells towards goal cells, beyond genes like them."""
    refuse_existing(output, overwrite)
    from genecompass.inference.perturbation.cell_fate import RECIPES, rank_cell_fate
    from genecompass.inference.perturbation.figures import plot_effects
    from genecompass.tokenization.files import atomic_path, write_json

    result = rank_cell_fate(
        cells.open(source),
        model.model,
        start,
        goal,
        list(RECIPES[recipe].factors) if recipe else candidates,
        **cells.named,
        **model.running,
        kind=kind,
        dose=edit.dose,
        level=edit.level,
        quantile=edit.quantile,
        pooling=edit.pooling,
        goal_adata=goal_data if goal_data is None else cells.open(goal_data),
        goal_species=goal_species,
        combinations=0 if combinations == "1" else int(combinations),
        n_best=n_best,
        doses=tuple(doses or ()),
        max_cells=max_cells,
        n_null=n_null,
        ranks=ranks,
        store=resume,
        seed=seed,
    )
    tables = {"ranking": result.ranking, "combinations": result.combinations, "doses": result.doses}
    for name, table in tables.items():
        if table is not None:
            with atomic_path(output / f"{name}.csv") as temporary:
                table.to_csv(temporary, index=False)
    write_json(output / "parameters.json", {**result.parameters, "absent": result.absent})
    if (result.ranking["n_cells"] > 0).any():
        plot_effects(result.ranking, output / "ranking", effect="goal_progress", title=f"{start} to {goal}")
    columns = ["rank", "perturbation", "n_cells", "mean", "null_mean", "n_null", "effect_size", "p", "q"]
    columns += ["log2_fold_change", "fold_change_rank"]
    typer.echo(result.ranking[columns].head(20).to_string(index=False, float_format=lambda x: f"{x:.3g}"))
    if result.absent:
        typer.echo(f"not in the data: {', '.join(result.absent)}")
    typer.echo(f"{output}: {len(result.ranking)} candidates ranked")
