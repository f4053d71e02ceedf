"""In-silico perturbation: change a gene in a cell, read what the model makes of it, beside random genes like it."""

import logging
import os
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Literal, Unpack

import numpy as np
import numpy.typing as npt
import torch

from ...tokenization.errors import InputError
from ...tokenization.readers import CellOptions
from ...tokenization.sources import model_or_default
from ..checkpoint import Model, digest_of, gene_table_of, load_checkpoint
from .cells import (
    PerturbedCells,
    columns_of_genes,
    measured_genes,
    read_gene_list,
    take_cells,
)
from .edits import Absent, Edit, Kind, Level
from .factors import transcription_factors_among
from .forward import CopyReader, Pooling
from .goal import goal_between
from .plan import Plan, Unit, combine, make_plan
from .results import PerturbationResult, cell_tables, summarise, summarise_targets, with_means
from .screen import Screen, run_key

logger = logging.getLogger(__name__)
ALL_EXPRESSED = "expressed"
ALL_FACTORS = "tfs"
Readout = Literal["states", "values", "ids"]
RankMode = Literal["kept", "anew", "both"]


def perturb(
    adata: Any,
    model: Model,
    genes: str | Sequence[str | Sequence[str]],
    kind: Kind = "delete",
    *,
    species: str,
    gene_species: str | None = None,
    dose: float | None = None,
    level: Level | None = None,
    absent: Absent = "skip",
    combinations: int = 1,
    transcription_factors: str | os.PathLike[str] | Sequence[str] | None = None,
    cells: npt.ArrayLike | None = None,
    max_cells: int | None = None,
    groupby: str | None = None,
    goal: Any = None,
    targets: str | Sequence[str] | None = None,
    readout: Readout = "states",
    hide_targets: bool = False,
    n_null: int = 100,
    min_cells: int = 1,
    min_group_cells: int = 10,
    ranks: RankMode = "kept",
    quantile: float = 0.9,
    embeddings: bool = False,
    pooling: Pooling = "mean",
    bf16: bool = False,
    max_tokens: int = 16384,
    processor: Any = None,
    device: str | torch.device | None = None,
    store: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: bool = True,
    **reading: Unpack[CellOptions],
) -> PerturbationResult:
    """Perturb genes in silico and measure what the model makes of it, against matched random genes.

    Every perturbation is compared with the same perturbation of random genes of the same expression rank and
    detection rate, in the same cells: one gene moves a cell's embedding so little that a score alone means nothing.
    All other genes keep their ranks, and the perturbed gene's own slot is left out of the cell's embedding before and
    after: what is measured is what the model makes of the other genes, not that the others moved up by one.

    Parameters
    ----------
    adata
        AnnData or path to one, with raw counts.
    model
        Checkpoint (folder or Hub repository) or a model with its `processor`.
    genes
        A gene; a list; a list whose items may themselves be lists of genes to perturb together; ``"expressed"``: all
        genes that at least `min_cells` of the cells express; ``"tfs"``: all transcription factors among them.
    kind, dose, level, absent, quantile
        What is done to counts: see `perturbation.edits.Edit`.
    species, gene_species
        Species of the cells, and of the gene names where the counts were mapped to another species.
    combinations
        2 or 3: perturb all pairs or triples of a flat list of genes.
    transcription_factors
        List or file for ``"tfs"``; default the curated human list of Lambert et al. (2018): see `factors`.
    cells, max_cells
        Boolean mask or rows of the cells to use, and how many of them to draw at random.
    groupby
        Column of ``obs``: effects are given for each of its groups as well.
    goal
        Where cells should move: boolean mask or rows of `adata`, or another AnnData or path of the same species.
    targets
        ``"expressed"`` or a list: also give the change of each of these genes under each perturbation.
    readout
        What is read for genes: contextual embeddings (``"states"``), also the values that the masked-gene head
        predicts (``"values"``), also the log-probability of each target's own id (``"ids"``).
    hide_targets
        Mask the targets while reading, so that the head infers them from the other genes. Choose few.
    n_null
        Matched random genes per perturbation. The smallest p is 1 / (n_null + 1), twice that for moves towards a goal.
    min_cells
        Cells that must express a gene of ``"expressed"`` or ``"tfs"``.
    min_group_cells
        A group with fewer cells that underwent a perturbation is shown without p.
    ranks
        ``"kept"``: the other genes of a cell keep their ranks. ``"anew"``: the edited cell is ranked as a new one, as
        published methods do; then most of what a deletion shows is every later gene moving up. ``"both"``: as
        ``"kept"``, with the mean of the second in ``mean_ranked_anew`` beside it.
    embeddings
        Keep the perturbed cells' embeddings: see `PerturbationResult.to_anndata`.
    pooling
        Cell embedding: ``"mean"`` over genes, as `embed` gives it, or the ``"species"`` slot.
    bf16
        Compute in bfloat16: about twice as fast, but effects below about 1e-5 in cosine drown in its rounding.
    max_tokens
        Gene slots in a batch.
    processor, device
        As for `load_checkpoint`.
    store
        File (``.npz``): a run that was cut off goes on from it.
    seed
        Of the draw of cells and of the null.
    progress
        Show a bar over cells.
    **reading
        How files are read: `CellOptions`.

    Returns
    -------
    PerturbationResult

    Raises
    ------
    InputError
        For an unknown gene, one that no cell expresses, a contradictory dose, too few cells, no goal cells, or a
        checkpoint without the head that the read-out needs.

    Examples
    --------
    >>> from genecompass.eval.demo.cells import blood_cells
    >>> result = perturb(blood_cells()[:40], None, ["CD3D"], species="human", n_null=5, progress=False)
    >>> result.summary.query("effect == 'cell_cosine'")["perturbation"].tolist()
    ['CD3D']
    """
    edit = Edit(kind, dose, level, absent, quantile)
    if ranks not in ("kept", "anew", "both"):
        raise InputError(f"ranks={ranks!r}: use 'kept', 'anew' or 'both'")
    if readout not in ("states", "values", "ids"):
        raise InputError(f"readout={readout!r}: use 'states', 'values' or 'ids'")
    if targets is None and (readout == "ids" or hide_targets):
        raise InputError("readout='ids' and hide_targets need targets")
    model = model_or_default(model)
    network, processor = load_checkpoint(
        model, "masked" if readout != "states" else None, processor=processor, device=device, fold=True
    )
    reader = CopyReader(
        network, pooling=pooling, max_tokens=max_tokens, dtype=torch.bfloat16 if bf16 else torch.float32
    )
    table = gene_table_of(processor)
    taken = take_cells(
        adata,
        table,
        species=species,
        gene_species=gene_species,
        cells=cells,
        max_cells=max_cells,
        max_length=reader.base.config.max_position_embeddings,
        seed=seed,
        **reading,
    )
    groups = group_of_cells(taken, groupby)
    asked, names = perturbations_asked(
        genes, taken, edit=edit, size=combinations, factors=transcription_factors, min_cells=min_cells
    )
    everywhere = absent == "insert"
    plan = make_plan(
        asked, taken.profile(), n_null=n_null, seed=seed, null_among_asked=genes == ALL_EXPRESSED, everywhere=everywhere
    )
    target_columns = _target_columns(targets, taken, min_cells)
    goal_cells = None if goal is None else _goal_cells(goal, adata, taken, species, gene_species, reading)
    screen = Screen(
        reader,
        taken,
        taken.editor(edit),
        plan,
        goal=None if goal_cells is None else goal_between(reader, taken, goal_cells, plan),
        targets=target_columns,
        read_values=readout != "states",
        read_ids=readout == "ids",
        hide_targets=hide_targets,
        ranks="anew" if ranks == "anew" else "kept",
        keep_embeddings=embeddings,
    )
    parameters = {
        "model": str(model) if isinstance(model, (str, os.PathLike)) else type(model).__name__,
        "model_digest": digest_of(network),
        "kind": edit.label,
        "absent": absent,
        "species": species,
        "n_cells": len(taken),
        "n_perturbations": plan.n_asked,
        "n_null": n_null,
        "pooling": pooling,
        "readout": readout,
        "hide_targets": hide_targets,
        "ranks": ranks,
        "own_slot": "in the embedding" if pooling == "species" else "left out of the embedding",
        "min_group_cells": min_group_cells,
        "bf16": bf16,
        "seed": seed,
        "genecompass": version("genecompass"),
    }
    key = run_key(
        **parameters, rows=taken.rows.tolist(), units=plan.units, targets=target_columns, goal=goal is not None,
        embeddings=embeddings,
    )  # fmt: skip
    result = screen.run(store=store, key=key, progress=progress)
    parameters |= cost_of(result.n_copies, result.n_tokens, result.seconds)
    summary = summarise(result, plan, names, kind=edit.label, groups=groups, min_group_cells=min_group_cells)
    if ranks == "both":
        alone = Plan(plan.units[: plan.n_asked], plan.n_asked, [np.zeros(0, np.int64)] * plan.n_asked)
        again = Screen(reader, taken, taken.editor(edit), alone, goal=screen.goal, ranks="anew").run(progress=progress)
        summary = with_means(summary, again, alone, names, groups, "mean_ranked_anew")
    return PerturbationResult(
        summary=summary,
        genes=(
            summarise_targets(result, plan, names, [str(taken.names[c]) for c in target_columns], min_cells=min_cells)
            if target_columns
            else None
        ),
        cell_effects=cell_tables(result, plan, names, [str(name) for name in taken.obs.index]),
        parameters=parameters,
        gene_ids={str(taken.names[c]): taken.gene_id(c) for unit in asked for c in unit},
        cells=taken.obs,
        embeddings=result.embeddings,
    )


def perturbations_asked(
    genes: str | Sequence[str | Sequence[str]],
    cells: PerturbedCells,
    *,
    edit: Edit,
    size: int = 1,
    factors: str | os.PathLike[str] | Sequence[str] | None = None,
    min_cells: int = 1,
) -> tuple[list[Unit], list[str]]:
    """Columns to edit together, and the name of each perturbation (``A+B`` for two genes).

    Raises
    ------
    InputError
        For no gene, unknown genes, or genes that no cell expresses unless they are to be inserted.
    """
    units: list[Unit]
    if isinstance(genes, str) and genes in (ALL_EXPRESSED, ALL_FACTORS):
        columns = cells.expressed(min_cells)
        if genes == ALL_FACTORS:
            columns = factor_columns(cells, factors, min_cells=min_cells)
        if not len(columns):
            raise InputError(f"no gene is expressed in {min_cells} or more of the {len(cells)} cells")
        units = combine(columns.tolist(), size)
    else:
        items = [genes] if isinstance(genes, str) else list(genes)
        if not items:
            raise InputError("no gene to perturb")
        expressed = edit.absent != "insert"
        if size > 1:
            if not all(isinstance(item, str) for item in items):
                raise InputError("combinations need a flat list of genes")
            units = combine(columns_of_genes([str(item) for item in items], cells, must_be_expressed=expressed), size)
        else:
            units = [
                tuple(columns_of_genes([item] if isinstance(item, str) else item, cells, must_be_expressed=expressed))
                for item in items
            ]
            if any(not unit or len(set(unit)) < len(unit) for unit in units):
                raise InputError("a combination is empty or holds the same gene twice")
    units = list(dict.fromkeys(units))
    return units, ["+".join(str(cells.names[column]) for column in unit) for unit in units]


def factor_columns(
    cells: PerturbedCells,
    factors: str | os.PathLike[str] | Sequence[str] | None = None,
    *,
    min_cells: int = 1,
) -> npt.NDArray[np.int64]:
    """Columns of the transcription factors that at least `min_cells` cells express.

    Raises
    ------
    InputError
        If there is none.
    """
    expressed = cells.expressed(min_cells)
    if factors is None:
        columns = expressed[transcription_factors_among(cells.human_symbols(expressed))]
    else:
        names = read_gene_list(factors)
        wanted, absent = measured_genes(names, cells)
        if not wanted:
            raise InputError(
                f"none of the {len(names)} regulators is expressed here (first read: {', '.join(names[:3])})"
            )
        if absent:
            more = ", ..." if len(absent) > 10 else ""
            logger.warning("%s of %s regulators not found: %s%s", len(absent), len(names), ", ".join(absent[:10]), more)
        columns = np.intersect1d(columns_of_genes(wanted, cells), expressed) if wanted else np.zeros(0, np.int64)
    if not len(columns):
        raise InputError(
            f"no transcription factor is expressed in {min_cells} or more of the {len(cells)} cells; "
            "pass transcription_factors= with names as the data has them"
        )
    return columns.astype(np.int64)


def group_of_cells(cells: PerturbedCells, column: str | None) -> npt.NDArray[np.object_] | None:
    """Group of every cell from a column of ``obs``."""
    if column is None:
        return None
    if column not in cells.obs:
        raise InputError(f"obs has no column {column!r}; it has {', '.join(map(str, cells.obs.columns))}")
    return cells.obs[column].astype(str).to_numpy(dtype=object)


def _goal_cells(
    goal: Any, adata: Any, start: PerturbedCells, species: str, gene_species: str | None, reading: CellOptions
) -> PerturbedCells:
    elsewhere = isinstance(goal, (str, os.PathLike)) or hasattr(goal, "obs")
    source, rows = (goal, None) if elsewhere else (adata, goal)
    return take_cells(
        source, start.table, species=species, gene_species=gene_species, cells=rows,
        max_length=start.max_length, **reading,
    )  # fmt: skip


def _target_columns(targets: str | Sequence[str] | None, cells: PerturbedCells, min_cells: int) -> list[int]:
    if targets is None:
        return []
    if isinstance(targets, str) and targets == ALL_EXPRESSED:
        return cells.expressed(min_cells).tolist()
    names = [targets] if isinstance(targets, str) else list(targets)
    return list(dict.fromkeys(columns_of_genes(names, cells)))


def cost_of(n_copies: int, n_tokens: int, seconds: float) -> dict[str, float | int]:
    """What a screen cost, in all and for each perturbed copy of a cell."""
    return {
        "n_copies": n_copies,
        "n_tokens": n_tokens,
        "seconds": round(seconds, 3),
        "milliseconds_per_copy": round(1000 * seconds / n_copies, 4) if n_copies else 0.0,
    }


__all__ = ["PerturbationResult", "Plan", "perturb"]
