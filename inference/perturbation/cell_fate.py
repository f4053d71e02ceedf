"""Which regulators move cells towards another fate, beyond what random genes like them would do."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy import sparse

from ...tokenization.errors import InputError
from ...tokenization.gene_table import GeneTable
from ...tokenization.readers import CellOptions, open_cells
from ...tokenization.sources import model_or_default
from ..checkpoint import Model, digest_of, gene_table_of, load_checkpoint
from .cells import PerturbedCells, measured_genes, read_gene_list, take_cells
from .edits import Absent, Edit, Kind, Level, Ranks
from .forward import CopyReader, Pooling
from .goal import goal_between
from .perturb import (
    ALL_FACTORS,
    cost_of,
    factor_columns,
    perturbations_asked,
)
from .plan import Unit, combine, make_plan
from .recipes import RECIPES, Recipe
from .results import summarise
from .screen import Screen, run_key

# the effect by which candidates are ranked
RANKED_BY = "goal_progress"


@dataclass
class CellFateResult:
    """Candidates ranked by how far they move start cells towards the goal.

    Parameters
    ----------
    ranking
        One row per candidate: ``rank``, ``perturbation``, ``n_cells``, ``mean`` share of the way from start to goal
        with its interval, and the columns of `PerturbationResult.summary`: the matched null with its size, ``p``
        (two-sided), ``q``, and ``beyond_null``, by which it is ranked; ``goal_cosine``, the mean gain in cosine; and
        ``log2_fold_change`` from start to goal with ``fold_change_rank``, what a model has to beat.
    combinations
        The same for combinations of the best candidates; None if not asked for.
    doses
        Mean share of the way of the best candidates at each dose; None if not asked for.
    absent
        Candidates asked for that the start cells do not hold, by name.
    parameters
        How it was done and what it cost.
    """

    ranking: pd.DataFrame
    combinations: pd.DataFrame | None = None
    doses: pd.DataFrame | None = None
    absent: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)


def select_cells(source: Any, where: str) -> npt.NDArray[np.bool_]:
    """Cells for which an ``obs`` column has one of some values: ``"cell_type=Beta,Alpha"``.

    Numbers and booleans are compared as such, blanks around values do not count, and a value may itself hold commas.

    Raises
    ------
    InputError
        For a query of another form, an unknown column, or values that no cell has.

    Examples
    --------
    >>> import anndata
    >>> adata = anndata.AnnData(np.ones((2, 1)), obs=pd.DataFrame({"kind": ["a", "b"]}, index=["x", "y"]))
    >>> select_cells(adata, "kind=b").tolist()
    [False, True]
    """
    column, equals, values = where.partition("=")
    if not equals or not values:
        raise InputError(f"{where!r}: name cells as column=value, for example cell_type=Beta")
    obs = open_cells(source).obs
    if column not in obs:
        raise InputError(f"obs has no column {column!r}; it has {', '.join(map(str, obs.columns)) or 'none'}")
    labels = obs[column].map(_plain).astype(object)
    known = set(labels)
    pieces, wanted = values.split(","), []
    while pieces:
        # the longest run of pieces that is a value: "T cell, CD4" is one
        sizes = range(len(pieces), 0, -1)
        size = next((size for size in sizes if _plain(",".join(pieces[:size])) in known), 0)
        if not size:
            shown = ", ".join(sorted(map(str, known))[:12])
            raise InputError(f"no cell has {column} {pieces[0].strip()!r}; there are {shown}")
        wanted.append(_plain(",".join(pieces[:size])))
        pieces = pieces[size:]
    return labels.isin(wanted).to_numpy()


def _plain(value: Any) -> str:
    """A value as people type it: 1.0 is 1, True is true, blanks at the ends and in a row are none or one."""
    text = " ".join(str(value).split())
    if text.lower() in ("true", "false"):
        return text.lower()
    try:
        number = float(text)
    except ValueError:
        return text
    return str(int(number)) if np.isfinite(number) and number == int(number) else str(number)


def rank_cell_fate(
    adata: Any,
    model: Model,
    start: str | npt.ArrayLike,
    goal: str | npt.ArrayLike,
    candidates: str | os.PathLike[str] | Sequence[str] = ALL_FACTORS,
    *,
    species: str,
    kind: Kind = "overexpress",
    dose: float | None = None,
    level: Level | None = None,
    absent: Absent | None = None,
    goal_adata: Any = None,
    goal_species: str | None = None,
    gene_species: str | None = None,
    combinations: int = 0,
    n_best: int = 5,
    doses: Sequence[float] = (),
    max_cells: int | None = None,
    n_null: int = 100,
    min_cells: int = 3,
    ranks: Ranks = "kept",
    quantile: float = 0.9,
    pooling: Pooling = "mean",
    bf16: bool = False,
    max_tokens: int = 16384,
    processor: Any = None,
    device: str | torch.device | None = None,
    store: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: bool = True,
    **reading: Unpack[CellOptions],
) -> CellFateResult:
    """Rank genes by how far perturbing them moves start cells towards goal cells.

    The move is the part of the cell embedding's shift that lies on the line from the mean start to the mean goal
    embedding, as a share of its length; every candidate is compared with matched random genes, as in `perturb`.

    Parameters
    ----------
    adata
        AnnData or path with the start cells.
    model
        Checkpoint, or a model with its `processor`.
    start, goal
        Cells as ``"column=value"``, boolean mask or rows; the goal in `goal_adata` where that is given.
    candidates
        ``"tfs"``, or a list or file of genes. Those that the data do not hold are named in the result.
    species
        Of the start cells.
    kind, dose, level, absent, quantile, ranks
        What is done to candidates: see `perturb`. Over-expression inserts a gene that a cell lacks unless told not to,
        at the quantile of its share of the molecules in those goal cells that express it, times the start cell's.
    goal_adata, goal_species
        Goal cells of another file or species. Across species both are read over shared genes and as the start's
        species, so that the way to go is not the difference of species.
    combinations
        2 or 3: also all pairs or triples of the `n_best` candidates.
    doses
        Factors on the count at which the best candidates are also tried, for example ``(0, 0.25, 0.5, 2, 4)``; only
        in cells that express them.
    max_cells
        Draw this many start cells, and at most so many goal cells.
    store
        File (``.npz``) from which the ranking of single candidates goes on after it was cut off.
    **reading
        How files are read: `CellOptions`.

    Returns
    -------
    CellFateResult

    Raises
    ------
    InputError
        For start equal to goal, no start or goal cells, candidates that are all absent, contradictory doses.

    Examples
    --------
    >>> from genecompass.eval.demo.cells import blood_cells
    >>> fate = rank_cell_fate(blood_cells(), None, "cell_type=CD34+", "cell_type=Dendritic", candidates=["SPI1"],
    ...                       species="human", max_cells=10, n_null=5, progress=False)
    >>> fate.ranking["perturbation"].tolist()
    ['SPI1']
    """
    inserts = kind == "set" or (kind == "overexpress" and dose is None)
    edit = Edit(kind, dose, level, absent or ("insert" if inserts else "skip"), quantile)
    dose_edits = [_dose_edit(factor) for factor in doses]
    model = model_or_default(model)
    network, processor = load_checkpoint(model, processor=processor, device=device, fold=True)
    reader = CopyReader(
        network, pooling=pooling, max_tokens=max_tokens, dtype=torch.bfloat16 if bf16 else torch.float32
    )
    table = gene_table_of(processor)
    everyone, target = _start_and_goal(
        adata, start, goal, goal_adata, table,
        max_length=int(reader.base.config.max_position_embeddings), species=species, goal_species=goal_species,
        gene_species=gene_species, reading=reading, seed=seed, inserts=edit.absent == "insert",
    )  # fmt: skip
    cells = everyone if max_cells is None else everyone.draw(max_cells, seed=seed)
    asked, names, missing = _candidates(candidates, cells, edit, min_cells)
    parameters = {
        "model": str(model) if isinstance(model, (str, os.PathLike)) else type(model).__name__,
        "model_digest": digest_of(network),
        "kind": edit.label,
        "absent": edit.absent,
        "species": species,
        "n_start_cells": len(cells),
        "n_candidates": len(asked),
        "n_null": n_null,
        "ranks": ranks,
        "pooling": pooling,
        "bf16": bf16,
        "seed": seed,
    }

    def rank(units: list[Unit], labels: list[str], done: Edit, keep: Any = None) -> pd.DataFrame:
        everywhere = done.absent == "insert"
        plan = make_plan(units, cells.profile(), n_null=n_null, seed=seed, everywhere=everywhere)
        way = goal_between(reader, everyone, target, plan)
        screen = Screen(reader, cells, cells.editor(done), plan, goal=way, ranks=ranks)
        key = run_key(**parameters, rows=cells.rows.tolist(), units=plan.units, start=str(start), goal=str(goal))
        result = screen.run(store=keep, key=key, progress=progress)
        parameters.update(cost_of(result.n_copies, result.n_tokens, result.seconds))
        change = [fold[list(unit)].mean() for unit in units]
        return ranking_of(summarise(result, plan, labels, kind=done.label), dict(zip(labels, change, strict=True)))

    fold = log_fold_change(everyone, target)

    ranking = rank(asked, names, edit, store)
    unit_of = dict(zip(names, asked, strict=True))
    best = [unit_of[name] for name in ranking["perturbation"].head(n_best)]
    together = None
    if combinations:
        units = combine([column for unit in best for column in unit], combinations)
        together = rank(units, ["+".join(str(cells.names[c]) for c in unit) for unit in units], edit)
    by_dose = None
    if dose_edits:
        labels = list(ranking["perturbation"].head(n_best))
        tables = [rank(best, labels, each).assign(dose=factor) for factor, each in zip(doses, dose_edits, strict=True)]
        by_dose = pd.concat(tables, ignore_index=True)
    return CellFateResult(ranking, together, by_dose, missing, parameters)


def log_fold_change(start: PerturbedCells, goal: PerturbedCells) -> npt.NDArray[np.float64]:
    """Log2 fold change of every start column from start to goal cells, by token; NaN where the goal has no such gene.

    Of the mean share of a cell's molecules, in molecules of 10,000, with 0.1 added to both.
    """

    def level(cells: PerturbedCells) -> npt.NDArray[np.float64]:
        depth = np.asarray(cells.counts.sum(axis=1)).ravel()
        share = sparse.diags(1e4 / depth) @ cells.counts
        return np.asarray(share.mean(axis=0)).ravel()

    before, after = level(start), level(goal)
    tokens = goal.match.cell_token
    # columns that share a token were counted in the first of them
    of_token = {int(tokens[column]): after[column] for column in range(len(tokens) - 1, -1, -1) if tokens[column] >= 0}
    there = np.array([of_token.get(int(token), np.nan) for token in start.match.cell_token])
    return np.log2((there + 0.1) / (before + 0.1))


def ranking_of(summary: pd.DataFrame, fold_change: dict[str, float] | None = None) -> pd.DataFrame:
    """Summary of a screen as a ranking by the move towards the goal, largest first.

    `fold_change`, from start to goal by perturbation, is put beside it with its own rank: what a model has to beat.
    """
    moved = summary[(summary["effect"] == RANKED_BY) & (summary["group"] == "all")]
    cosine = summary[(summary["effect"] == "goal_cosine") & (summary["group"] == "all")]
    table = moved.merge(
        cosine[["perturbation", "mean"]].rename(columns={"mean": "goal_cosine"}), on="perturbation", how="left"
    )
    # what stands out from random genes comes first: a strongly expressed gene moves cells further whatever it is
    table = table.sort_values(["beyond_null", "mean"], ascending=False, na_position="last", ignore_index=True)
    table = table.drop(columns=["group", "effect"])
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    if fold_change is not None:
        table["log2_fold_change"] = [fold_change[name] for name in table["perturbation"]]
        table["fold_change_rank"] = table["log2_fold_change"].rank(ascending=False, method="min")
    return table


def _dose_edit(factor: float) -> Edit:
    if factor == 0:
        return Edit("delete")
    if factor == 1:
        raise InputError("dose 1 changes nothing; leave it out")
    return Edit("knockdown", dose=factor) if factor < 1 else Edit("overexpress", dose=factor)


def _start_and_goal(
    adata: Any,
    start: Any,
    goal: Any,
    goal_adata: Any,
    table: GeneTable,
    *,
    max_length: int,
    species: str,
    goal_species: str | None,
    gene_species: str | None,
    reading: CellOptions,
    seed: int,
    inserts: bool,
) -> tuple[PerturbedCells, PerturbedCells]:
    goal_source = adata if goal_adata is None else goal_adata
    start_rows = select_cells(adata, start) if isinstance(start, str) else start
    goal_rows = select_cells(goal_source, goal) if isinstance(goal, str) else goal
    options: dict[str, Any] = {**reading, "max_length": max_length, "seed": seed}
    everyone = take_cells(adata, table, species=species, gene_species=gene_species, cells=start_rows, **options)
    target = take_cells(
        goal_source,
        table,
        species=goal_species or species,
        gene_species=gene_species if goal_adata is None else None,
        cells=goal_rows,
        **options,
    )
    if goal_adata is None and np.array_equal(everyone.rows, target.rows):
        raise InputError("start and goal are the same cells")
    across = goal_species is not None and goal_species != species
    if across:
        shared = shared_tokens(table, species, goal_species or species)
        everyone, target = everyone.with_tokens(shared), target.with_tokens(shared)
    if inserts:
        # a gene that start cells lack is inserted at the level that goal cells show
        there = counts_on_columns_of(target, everyone)
        both = sparse.vstack([everyone.counts, there], format="csr")
        everyone = replace(everyone, reference=both, level_reference=there)
    return everyone, target


def counts_on_columns_of(cells: PerturbedCells, like: PerturbedCells) -> sparse.csr_matrix:
    """Counts of some cells on the columns of others, matched by token."""
    if np.array_equal(cells.match.cell_token, like.match.cell_token):
        return cells.counts
    tokens = like.match.cell_token
    column_of = {int(tokens[column]): column for column in range(len(tokens) - 1, -1, -1) if tokens[column] >= 0}
    target = np.array([column_of.get(int(token), -1) for token in cells.match.cell_token])
    entries = cells.counts.tocoo()
    kept = target[entries.col] >= 0
    where = (entries.row[kept], target[entries.col[kept]])
    return sparse.csr_matrix((entries.data[kept], where), shape=(len(cells), len(tokens)))


def shared_tokens(table: GeneTable, one: str, other: str) -> npt.NDArray[np.int64]:
    """Tokens that genes of both species take."""
    species = table.frame["species"].to_numpy()
    return np.intersect1d(table.token_in_cell[species == one], table.token_in_cell[species == other])


def _candidates(
    candidates: str | os.PathLike[str] | Sequence[str], cells: PerturbedCells, edit: Edit, min_cells: int
) -> tuple[list[Unit], list[str], list[str]]:
    """Candidates that the start cells hold, their names, and the names of those absent."""
    if isinstance(candidates, str) and candidates == ALL_FACTORS:
        columns = factor_columns(cells, min_cells=min_cells)
        return combine(columns.tolist(), 1), [str(cells.names[c]) for c in columns], []
    wanted = read_gene_list(candidates)
    here, missing = measured_genes(wanted, cells, must_be_expressed=edit.absent != "insert")
    if not here:
        raise InputError(f"none of the {len(wanted)} candidates is in the start cells (first: {wanted[0]!r})")
    units, names = perturbations_asked(here, cells, edit=edit)
    return units, names, missing


__all__ = ["RECIPES", "CellFateResult", "Recipe", "rank_cell_fate"]
