"""From single runs to tables: mean and spread over seeds, and what wins where."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

_SCORES = (
    *(
        "macro_f1",
        "macro_f1_low",
        "macro_f1_high",
        "accuracy",
        "weighted_f1",
        "calibration_error",
        "auroc",
        "auroc_not_c2h2",
        "auprc",
        "positives",
    ),
    *("neighbour_agreement", "own_batch", "nmi_kmeans", "ari_kmeans", "silhouette_label"),
    *("silhouette_batch", "ilisi", "clisi", "graph_connectivity"),
)
_COSTS = ("seconds", "trainable_parameters", "trainable_share", "gradient_and_optimizer_bytes", "training_cells")


def summarise(records: Sequence[dict[str, Any]], *, by: Sequence[str]) -> pd.DataFrame:
    """Mean and standard deviation over seeds (folds are averaged within a seed first), cost as mean over runs.

    Parameters
    ----------
    records
        One dictionary a run, with ``seed`` and perhaps ``fold``.
    by
        Columns that tell methods and settings apart, for example ``["split", "cells_per_class", "method"]``.

    Returns
    -------
    DataFrame
        Columns `by`, ``seeds``, ``<score>_mean``, ``<score>_sd`` (0 for one seed) and costs.

    Examples
    --------
    >>> runs = [{"method": "a", "seed": s, "macro_f1": v} for s, v in enumerate([0.8, 0.9])]
    >>> float(summarise(runs, by=["method"])["macro_f1_mean"].iloc[0].round(3))
    0.85
    """
    frame = pd.DataFrame([{k: v for k, v in r.items() if not isinstance(v, list | dict)} for r in records])
    keys = list(by)
    scores = [name for name in _SCORES if name in frame]
    costs = [name for name in _COSTS if name in frame]
    per_seed = frame.groupby([*keys, "seed"], sort=False)[scores].mean().reset_index()
    grouped = per_seed.groupby(keys, sort=False)
    parts: list[pd.Series[Any]] = [grouped.size().rename("seeds")]
    parts += [grouped[name].mean().rename(f"{name}_mean") for name in scores]
    parts += [grouped[name].std().fillna(0.0).rename(f"{name}_sd") for name in scores]
    parts += [frame.groupby(keys, sort=False)[name].mean() for name in costs]
    return pd.concat(parts, axis=1).reset_index()


def long_rows(
    table: pd.DataFrame, *, dataset: str, metrics: Sequence[str], ours: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows as model cards read them: one a data set, metric and method, with mean and spread.

    Parameters
    ----------
    table
        From `summarise`.
    dataset
        Column that names the data set.
    metrics
        Scores to take.
    ours
        Methods that use the checkpoint.
    """
    return [
        {
            "dataset": str(row[dataset]),
            "method": str(row["method"]),
            "metric": metric,
            "mean": float(row[f"{metric}_mean"]),
            "std": float(row[f"{metric}_sd"]),
            "seeds": int(row["seeds"]),
            "ours": row["method"] in set(ours),
        }
        for row in table.to_dict("records")
        for metric in metrics
    ]


def winners(table: pd.DataFrame, *, by: str, metric: str, ours: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Best method of each data set, and whether a simple baseline wins.

    Examples
    --------
    >>> table = pd.DataFrame({"split": ["x", "x"], "method": ["a", "model"], "macro_f1_mean": [0.9, 0.8]})
    >>> winners(table, by="split", metric="macro_f1", ours=["model"])["x"]["baseline_wins"]
    True
    """
    found = {}
    for name, part in table.groupby(by, sort=False):
        best = part.iloc[int(part[f"{metric}_mean"].to_numpy().argmax())]
        found[str(name)] = {"method": str(best["method"]), "baseline_wins": best["method"] not in set(ours)}
    return found
