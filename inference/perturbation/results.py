"""Tables of effects with their noise, and how they are kept."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...tokenization.files import atomic_path, write_json
from .plan import Plan
from .screen import ScreenResult
from .statistics import (
    benjamini_hochberg,
    common_cell_means,
    empirical_p,
    mean_interval,
    pooled_null_p,
    standardised_effect,
)

# a matched gene takes part in the null only if it was perturbed in at least this many, and this share, of the gene's
# own cells; both are then compared over those cells
MIN_SHARED_CELLS = 3
SHARED_CELLS = 0.1
ALL_CELLS = "all"


@dataclass
class PerturbationResult:
    """What perturbations did.

    Parameters
    ----------
    summary
        One row per perturbation, effect and group of cells: ``perturbation``, ``kind``, ``group``, ``effect``,
        ``n_cells``, ``mean`` with the 95 % t interval over cells ``low`` and ``high``, ``null_mean``, ``null_sd``,
        ``n_null``, ``effect_size`` (distance from the null's mean in its standard deviations), ``p`` (empirical, one
        sided), ``q`` (Benjamini-Hochberg over the perturbations of one effect and group).
    genes
        One row per perturbation, read-out and target; ``q`` is over the targets of one perturbation. None unless
        targets were asked for.
    cell_effects
        Effect to a table of cells by perturbations; NaN where a cell took no part.
    parameters
        How it was done and what it cost.

    Examples
    --------
    >>> result = perturb(adata, "runs/tiny", ["CD3E"], species="human")  # doctest: +SKIP
    >>> result.summary.query("effect == 'cell_cosine'")  # doctest: +SKIP
    """

    summary: pd.DataFrame
    genes: pd.DataFrame | None
    cell_effects: dict[str, pd.DataFrame]
    parameters: dict[str, Any]

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write ``summary.csv``, ``genes.parquet``, ``cells_<effect>.parquet`` and ``parameters.json``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / "summary.csv") as temporary:
            self.summary.to_csv(temporary, index=False)
        if self.genes is not None:
            with atomic_path(folder / "genes.parquet") as temporary:
                self.genes.to_parquet(temporary, index=False)
        for effect, table in self.cell_effects.items():
            with atomic_path(folder / f"cells_{effect}.parquet") as temporary:
                table.to_parquet(temporary)
        write_json(folder / "parameters.json", self.parameters)

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

    Returns
    -------
    pandas.DataFrame
        See `PerturbationResult`; the smallest q first within an effect.
    """
    members: dict[str, npt.NDArray[np.bool_]] = {}
    n_cells = next(iter(result.cells.values())).shape[0]
    members[ALL_CELLS] = np.ones(n_cells, dtype=bool)
    if groups is not None:
        labels = np.asarray(groups, dtype=object).astype(str)
        members |= {str(label): labels == label for label in sorted(set(labels))}
    tables = []
    for effect, matrix in result.cells.items():
        for group, chosen in members.items():
            rows = [_row(matrix[chosen], plan, unit) for unit in range(plan.n_asked)]
            table = pd.DataFrame(rows)
            table.insert(0, "perturbation", list(names))
            table.insert(1, "kind", kind)
            table.insert(2, "group", group)
            table.insert(3, "effect", effect)
            table["q"] = benjamini_hochberg(table["p"])
            tables.append(table.sort_values(["q", "p", "mean"], ascending=[True, True, False], na_position="last"))
    return pd.concat(tables, ignore_index=True)


def _row(matrix: npt.NDArray[np.float64], plan: Plan, unit: int) -> dict[str, float | int]:
    own = matrix[:, unit]
    mean, low, high, n = mean_interval(own)
    row: dict[str, float | int] = {"n_cells": n, "mean": mean, "low": low, "high": high}
    own_means, null = common_cell_means(
        own, matrix[:, plan.nulls[unit]], min_cells=max(min(MIN_SHARED_CELLS, n), int(np.ceil(SHARED_CELLS * n)))
    )
    known = len(null) > 0 and n > 0
    row["null_mean"] = float(null.mean()) if known else np.nan
    row["null_sd"] = float(null.std(ddof=1)) if len(null) > 1 else np.nan
    row["n_null"] = len(null)
    row["effect_size"] = standardised_effect(mean, null) if known else np.nan
    row["p"] = empirical_p(own_means, null) if known else np.nan
    return row


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
