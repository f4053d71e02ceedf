"""Do fate rankings find the factors of documented recipes? Beside ranking by fold change between goal and start."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from ...inference.perturbation.cell_fate import rank_cell_fate
from ...tokenization.errors import InputError
from ..metrics import auroc

MODEL = "GeneCompass, beyond matched genes"
MODEL_RAW = "GeneCompass, share of the way"
FOLD_CHANGE = "fold change, goal over start"
# ranking to the column of the fate table by which it ranks, largest first
RANKINGS = {MODEL: "beyond_null", MODEL_RAW: "mean", FOLD_CHANGE: "log2_fold_change"}
DRAWS = 5000
TOP_SHARE = 0.05


@dataclass
class FateBenchmark:
    """How high a recipe's factors stand among all candidates.

    Parameters
    ----------
    scores
        One row a ranking: ``ranking``, ``auroc`` (chance 0.5), ``p`` (one-sided: as high for as many random
        candidates), ``median_rank``, ``in_top`` (factors in the first 5 %), ``n_factors`` and ``n_candidates``; then
        ``difference`` in AUROC to fold change, ``p_difference`` (two-sided, as far apart for random candidates) and
        ``verdict``: ``"better"``, ``"worse"``, or ``"tie"`` where ``p_difference`` is above 0.05.
    ranking
        The fate table with ``factor``: whether the recipe names it.
    absent
        Factors that were not measured or not among the candidates: they are in no score.
    parameters
        How the ranking was done.
    """

    scores: pd.DataFrame
    ranking: pd.DataFrame
    absent: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)

    def record(self, dataset: str) -> dict[str, Any]:
        """Scores as JSON, in the rows that model cards read."""
        rows = [
            {"dataset": dataset, "metric": "auroc of the recipe's factors", "method": row["ranking"],
             "mean": float(row["auroc"]), "ours": str(row["ranking"]).startswith("GeneCompass")}
            for row in self.scores.to_dict("records")
        ]  # fmt: skip
        return {
            "task": "fate",
            "rows": rows,
            "scores": self.scores.astype(object).where(self.scores.notna(), None).to_dict("records"),
            "absent": self.absent,
            "parameters": self.parameters,
        }


def score_rankings(table: pd.DataFrame, is_factor: npt.ArrayLike, *, seed: int = 0) -> pd.DataFrame:
    """Score the rankings of a fate table.

    Parameters
    ----------
    table
        One row a candidate, with the columns of `RANKINGS`; candidates that miss one of them are left out of all.
    is_factor
        Whether the recipe names the candidate.
    seed
        Of the random factors behind the p of differences.

    Raises
    ------
    InputError
        If no factor, or nothing but factors, can be scored.

    Examples
    --------
    >>> model = [3.0, 2, 1, 0]
    >>> table = pd.DataFrame({"beyond_null": model, "mean": model, "log2_fold_change": model[::-1]})
    >>> score_rankings(table, [True, False, False, False])["auroc"].tolist()
    [1.0, 1.0, 0.0]
    """
    columns = list(RANKINGS.values())
    complete = np.isfinite(table[columns].to_numpy(dtype=float)).all(axis=1)
    factor = np.asarray(is_factor, dtype=bool)[complete]
    n, k = len(factor), int(factor.sum())
    if not 0 < k < n:
        raise InputError(f"{k} of {n} candidates are factors of the recipe: nothing to tell apart")
    values = table.loc[complete, columns].to_numpy(dtype=float).T
    ranks = stats.rankdata(values, axis=1)
    rng = np.random.default_rng(seed)
    random = np.array([rng.choice(n, k, replace=False) for _ in range(DRAWS)])
    by_chance = (ranks[:, random].sum(axis=2) - k * (k + 1) / 2) / (k * (n - k))
    observed = [auroc(factor, row) for row in values]
    base = list(RANKINGS).index(FOLD_CHANGE)
    rows = []
    for place, name in enumerate(RANKINGS):
        from_top = n + 1 - ranks[place][factor]
        apart = observed[place] - observed[base]
        as_far = np.abs(by_chance[place] - by_chance[base]) >= abs(apart) - 1e-12
        p_difference = float((1 + as_far.sum()) / (1 + DRAWS)) if place != base else np.nan
        rows.append({
            "ranking": name,
            "auroc": observed[place],
            "p": float((1 + (by_chance[place] >= observed[place] - 1e-12).sum()) / (1 + DRAWS)),
            "median_rank": float(np.median(from_top)),
            "in_top": int((from_top <= max(1, TOP_SHARE * n)).sum()),
            "n_factors": k,
            "n_candidates": n,
            "difference": apart if place != base else np.nan,
            "p_difference": p_difference,
            "verdict": "" if place == base else "tie" if p_difference > 0.05 else "better" if apart > 0 else "worse",
        })  # fmt: skip
    return pd.DataFrame(rows)


def benchmark_fate(
    adata: Any,
    model: Any,
    factors: Collection[str],
    start: str | npt.ArrayLike,
    goal: str | npt.ArrayLike,
    *,
    species: str,
    min_cells: int = 3,
    n_null: int = 30,
    seed: int = 0,
    **options: Any,
) -> FateBenchmark:
    """Rank all transcription factors as fate regulators and see where a recipe's factors stand.

    Parameters
    ----------
    factors
        What the recipe names, as symbols or gene ids of any species that the model's gene table links.
    start, goal, species, min_cells, n_null, seed, **options
        As for `rank_cell_fate`.

    Raises
    ------
    InputError
        If no factor of the recipe was measured; and as `rank_cell_fate` does.

    Examples
    --------
    >>> found = benchmark_fate("pancreas.h5ad", "runs/tiny", ["PAX4"], "cell_type=Alpha", "cell_type=Beta",
    ...                        species="mouse")  # doctest: +SKIP
    >>> found.scores[["ranking", "auroc", "p"]]  # doctest: +SKIP
    """
    wanted = list(dict.fromkeys(map(str, factors)))
    shared = {"species": species, "min_cells": min_cells, "seed": seed, **options}
    # the names under which these cells know the factors, found before the long run; fails if there is none
    known = rank_cell_fate(adata, model, start, goal, wanted, n_null=0, **{**shared, "max_cells": 1})
    named = set(known.ranking["perturbation"])
    result = rank_cell_fate(adata, model, start, goal, n_null=n_null, **shared)
    table = result.ranking.assign(factor=result.ranking["perturbation"].isin(named))
    here = set(table.loc[table["factor"], "perturbation"])
    absent = [*known.absent, *sorted(named - here)]
    scores = score_rankings(table, table["factor"].to_numpy(), seed=seed)
    return FateBenchmark(scores, table, absent, {**result.parameters, "factors": wanted})
