"""Tables of effects with their noise, and how they are kept."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...tokenization.errors import InputError
from ...tokenization.files import atomic_path, write_json
from .exports import geneformer_table, perturbed_cells
from .plan import Plan
from .screen import ScreenResult
from .statistics import (
    Alternative,
    Floats,
    benjamini_hochberg,
    cell_levels,
    compare_with_matched,
    empirical_p,
    mean_interval,
    pooled_null_p,
    smallest_p,
    standardised_effect,
)

# effects that may be below 0: both directions are tested
SIGNED = frozenset({"goal_cosine", "goal_progress"})
ALL_CELLS = "all"


@dataclass
class PerturbationResult:
    """What perturbations did.

    Parameters
    ----------
    summary
        One row per perturbation, effect and group of cells: ``perturbation``, ``kind``, ``group``, ``effect``,
        ``n_cells``, ``mean`` with the 95 % t interval over cells ``low`` and ``high``; of the matched random genes,
        as if seen in the same cells, ``null_mean``, ``null_sd``, the 2.5 and 97.5 % quantiles ``null_low`` and
        ``null_high``,
        and ``n_null``, how many they are; ``beyond_null``, the mean difference to them; ``effect_size``, the same in
        their standard deviations; ``smallest_p`` that so many allow; ``p`` (empirical; one-sided for distances,
        two-sided for moves towards a goal; missing for a group of too few cells); ``q`` (Benjamini-Hochberg over all
        perturbations and groups of one effect). ``mean_ranked_anew`` with ``ranks="both"``.
    genes
        One row per perturbation, read-out and target; ``q`` is over the targets of one perturbation. None unless
        targets were asked for.
    cell_effects
        Effect to a table of cells by perturbations; NaN where a cell took no part.
    parameters
        How it was done and what it cost.
    gene_ids
        Gene id of each gene perturbed.
    cells
        Annotation of the cells.
    embeddings
        (cells, 1 + perturbations, hidden): as they are, then under each perturbation. None unless kept.

    Examples
    --------
    >>> import genecompass as gc
    >>> from genecompass.eval.demo.cells import blood_cells
    >>> result = gc.perturb(blood_cells()[:40], None, ["CD3D"], species="human", n_null=5, progress=False)
    >>> result.summary.query("effect == 'cell_cosine'")["perturbation"].tolist()
    ['CD3D']
    """

    summary: pd.DataFrame
    genes: pd.DataFrame | None
    cell_effects: dict[str, pd.DataFrame]
    parameters: dict[str, Any]
    gene_ids: dict[str, str] = field(default_factory=dict)
    cells: pd.DataFrame | None = None
    embeddings: npt.NDArray[np.float32] | None = None

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write ``summary.csv``, ``geneformer.csv``, ``cells_<effect>.parquet`` and ``parameters.json``.

        With targets also ``genes.parquet``, with embeddings ``perturbed.h5ad``.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / "summary.csv") as temporary:
            self.summary.to_csv(temporary, index=False)
        with atomic_path(folder / "geneformer.csv") as temporary:
            self.to_geneformer().to_csv(temporary, index=False)
        if self.embeddings is not None:
            with atomic_path(folder / "perturbed.h5ad") as temporary:
                self.to_anndata().write_h5ad(temporary)
        if self.genes is not None:
            with atomic_path(folder / "genes.parquet") as temporary:
                self.genes.to_parquet(temporary, index=False)
        for effect, table in self.cell_effects.items():
            with atomic_path(folder / f"cells_{effect}.parquet") as temporary:
                table.to_parquet(temporary)
        write_json(folder / "parameters.json", self.parameters)

    def to_geneformer(self) -> pd.DataFrame:
        """The summary over all cells under the names of Geneformer's in-silico perturbation tables.

        Returns
        -------
        pandas.DataFrame
            One row per perturbation: ``Gene_name``, ``Ensembl_ID``, ``N_Detections``, ``Cosine_sim_mean`` (1 less the
            cosine distance), and with a goal ``Shift_to_goal_end`` (gain in cosine), else ``Test_avg_shift``; then
            ``Null_avg_shift``, ``Test_vs_null_avg_shift``, ``Test_vs_null_pval``, ``Test_vs_null_FDR`` and
            ``N_Null_Genes``. Unlike there, p is against random genes matched one by one.
        """
        return geneformer_table(self.summary, self.gene_ids)

    def to_anndata(self) -> Any:
        """Cells as they are and perturbed, as pertpy has them: ``obs["perturbation"]``, ``"control"`` for none.

        Returns
        -------
        anndata.AnnData
            One observation per cell and perturbation that it underwent; ``obsm["X_genecompass"]`` holds embeddings
            (without the perturbed genes' own slots), ``uns["genecompass_perturbation"]`` the tables.

        Raises
        ------
        InputError
            Without kept embeddings (``embeddings=True``).
        """
        if self.embeddings is None or self.cells is None:
            raise InputError("no embeddings were kept; run perturb with embeddings=True")
        names = list(next(iter(self.cell_effects.values())).columns)
        adata = perturbed_cells(self.cells, self.embeddings, names)
        self.store(adata)
        return adata

    def store(self, adata: Any, *, key: str = "genecompass_perturbation") -> None:
        """Put the tables into ``adata.uns[key]``, in a form that ``write_h5ad`` can store."""
        adata.uns[key] = {
            "summary": self.summary.copy(),
            **({"genes": self.genes.copy()} if self.genes is not None else {}),
            "parameters": {name: str(value) for name, value in self.parameters.items()},
        }


def summarise(
    result: ScreenResult,
    plan: Plan,
    names: Sequence[str],
    *,
    kind: str,
    groups: npt.ArrayLike | None = None,
    min_group_cells: int = 10,
) -> pd.DataFrame:
    """Effects of the perturbations asked for, against their matched null, over all cells and by group.

    Parameters
    ----------
    result, plan
        From the screen.
    names
        Names of the perturbations asked for.
    kind
        What was done, for the table.
    groups
        Group of every cell, for example its type.
    min_group_cells
        A group in which fewer cells underwent the perturbation is shown without p.

    Returns
    -------
    pandas.DataFrame
        See `PerturbationResult`; the smallest q first within an effect.

    Warns
    -----
    UserWarning
        If perturbations have so few comparable genes that their p cannot reach 0.05.
    """
    members: dict[str, npt.NDArray[np.bool_]] = {}
    n_cells = next(iter(result.cells.values())).shape[0]
    members[ALL_CELLS] = np.ones(n_cells, dtype=bool)
    if groups is not None:
        labels = np.asarray(groups, dtype=object).astype(str)
        members |= {str(label): labels == label for label in sorted(set(labels))}
    tables = []
    cells = _levels_and_scales(result, plan)
    for effect in result.cells:
        parts = []
        for group, chosen in members.items():
            fewest = 1 if group == ALL_CELLS else min_group_cells
            rows = [_row(result, effect, chosen, plan, unit, fewest, cells[effect]) for unit in range(plan.n_asked)]
            part = pd.DataFrame(rows)
            part.insert(0, "perturbation", list(names))
            part.insert(1, "kind", kind)
            part.insert(2, "group", group)
            part.insert(3, "effect", effect)
            parts.append(part)
        table = pd.concat(parts, ignore_index=True)
        # everything tested of one effect is one family: perturbations and groups
        table["q"] = benjamini_hochberg(table["p"])
        first = (table["group"] != ALL_CELLS).astype(int)
        order = table.assign(first=first).sort_values(
            ["first", "group", "q", "p", "beyond_null"], ascending=[True, True, True, True, False], na_position="last"
        )
        tables.append(order.drop(columns="first"))
    table = pd.concat(tables, ignore_index=True)
    _warn_of_few(table)
    return table


def _warn_of_few(table: pd.DataFrame) -> None:
    tested = table[(table["group"] == ALL_CELLS) & table["p"].notna()]
    short = tested[tested["smallest_p"] > 0.05]
    if len(short):
        of, all_of = short["perturbation"].nunique(), tested["perturbation"].nunique()
        few = int(short["n_null"].min())
        warnings.warn(
            f"{of} of {all_of} perturbations cannot reach p <= 0.05: as few as {few} random genes are like them in "
            "their cells (column n_null); use more cells or a larger n_null (40 or more serve every effect)",
            stacklevel=3,
        )


def _levels_and_scales(result: ScreenResult, plan: Plan) -> dict[str, tuple[Floats, Floats]]:
    """Level and scale of each cell for every effect, from the random genes alone."""
    random = np.unique(np.concatenate([np.zeros(0, np.int64), *plan.nulls]))
    made: dict[str, tuple[Floats, Floats]] = {}
    for effect, matrix in result.cells.items():
        values = matrix[:, random]
        if effect in SIGNED:
            made[effect] = cell_levels(values), made["cell_euclidean"][1]
            continue
        some = values[np.isfinite(values) & (values > 0)]
        if len(some) < 0.5 * np.isfinite(values).sum() or not len(some):
            made[effect] = np.zeros(len(values)), np.ones(len(values))
            continue
        # what the model does not react to at all must not decide a cell's scale
        logarithm = np.log(np.maximum(values, 1e-3 * float(np.median(some))))
        made[effect] = np.zeros(len(values)), np.exp(cell_levels(logarithm))
    return made


def _row(
    result: ScreenResult,
    effect: str,
    chosen: npt.NDArray[np.bool_],
    plan: Plan,
    unit: int,
    fewest: int,
    cells: tuple[Floats, Floats],
) -> dict[str, float | int]:
    effects = result.cells[effect][chosen]
    mean, low, high, n = mean_interval(effects[:, unit])
    alternative: Alternative = "two-sided" if effect in SIGNED else "greater"
    row: dict[str, float | int] = {"n_cells": n, "mean": mean, "low": low, "high": high}
    compared = compare_with_matched(
        unit, plan.nulls[unit], effects, result.place[chosen], level=cells[0][chosen], scale=cells[1][chosen]
    )
    null = compared.null
    known = len(null) > 0 and n > 0
    row["null_mean"] = float(null.mean()) if known else np.nan
    row["null_sd"] = float(null.std(ddof=1)) if len(null) > 1 else np.nan
    for name, share in (("null_low", 0.025), ("null_high", 0.975)):
        row[name] = float(np.quantile(null, share)) if known else np.nan
    row["n_null"] = len(null)
    row["beyond_null"] = compared.beyond
    row["effect_size"] = standardised_effect(compared.own, null) if known else np.nan
    tested = known and n >= fewest
    row["smallest_p"] = smallest_p(len(null), alternative) if tested else np.nan
    row["p"] = empirical_p(compared.own, null, alternative=alternative) if tested else np.nan
    return row


def with_means(
    summary: pd.DataFrame,
    result: ScreenResult,
    plan: Plan,
    names: Sequence[str],
    groups: npt.ArrayLike | None,
    column: str,
) -> pd.DataFrame:
    """Summary with the mean effects of another run of the same perturbations in a column after ``mean``."""
    labels = None if groups is None else np.asarray(groups, dtype=object).astype(str)
    means: dict[tuple[str, str, str], float] = {}
    for effect, matrix in result.cells.items():
        for group in sorted(set(summary["group"])):
            chosen = slice(None) if group == ALL_CELLS or labels is None else labels == group
            for unit in range(plan.n_asked):
                means[names[unit], group, effect] = mean_interval(matrix[chosen, unit])[0]
    keys = zip(summary["perturbation"], summary["group"], summary["effect"], strict=True)
    summary = summary.copy()
    summary.insert(list(summary.columns).index("mean") + 1, column, [means.get(key, np.nan) for key in keys])
    return summary


def summarise_targets(
    result: ScreenResult, plan: Plan, names: Sequence[str], target_names: Sequence[str], *, min_cells: int = 3
) -> pd.DataFrame:
    """Change of every target under every perturbation, against the change under its matched null.

    Parameters
    ----------
    min_cells
        A pair seen in fewer cells is left out.

    Returns
    -------
    pandas.DataFrame
        ``perturbation``, ``target``, ``readout``, ``n_cells``, ``mean``, ``null_mean``, ``effect_size``
        (`statistics.pooled_null_p`'s d), ``p``, ``q``.
    """
    n = result.pairs["n"]
    tables = []
    for readout in (name for name in result.pairs if name != "n"):
        with np.errstate(invalid="ignore", divide="ignore"):
            means = np.where(n >= min_cells, result.pairs[readout] / n, np.nan)
        for unit in range(plan.n_asked):
            p, size, centre = pooled_null_p(means[unit], means[plan.nulls[unit]])
            table = pd.DataFrame(
                {
                    "perturbation": names[unit],
                    "target": np.asarray(target_names, dtype=object),
                    "readout": readout,
                    "n_cells": n[unit].astype(np.int64),
                    "mean": means[unit],
                    "null_mean": centre,
                    "effect_size": size,
                    "p": p,
                    "q": benjamini_hochberg(p),
                }
            )
            tables.append(table[np.isfinite(means[unit])])
    table = pd.concat(tables, ignore_index=True)
    strength = table["effect_size"].abs()
    order = table.assign(strength=strength).sort_values(
        ["perturbation", "readout", "p", "strength"], ascending=[True, True, True, False], na_position="last"
    )
    return order.drop(columns="strength").reset_index(drop=True)


def cell_tables(
    result: ScreenResult, plan: Plan, names: Sequence[str], cell_names: Sequence[str]
) -> dict[str, pd.DataFrame]:
    """Effects of the perturbations asked for, cell by cell."""
    return {
        effect: pd.DataFrame(matrix[:, : plan.n_asked], index=pd.Index(cell_names, name="cell"), columns=list(names))
        for effect, matrix in result.cells.items()
    }
