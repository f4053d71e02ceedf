"""Is a method better than the best baseline, or is it a tie? Differences on the same cells, with their intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..metrics import macro_f1
from ..metrics.intervals import Interval, paired_difference

RESAMPLES = 300


def difference_to_best_baseline(records: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Macro-F1 of every method less that of the best baseline, over all folds' test cells and all seeds.

    Parameters
    ----------
    records
        From `run_annotation`; those with all labelled cells count, the others have kept no predictions.

    Returns
    -------
    dict
        Split to ``baseline`` (its name) and ``methods``: method to ``value``, ``low``, ``high`` and ``verdict``:
        ``"better"``, ``"worse"``, or ``"tie"`` where the 95 % interval holds 0. Donors are drawn where there are five
        or more, else cells within their label.

    Examples
    --------
    >>> truth = ["B", "T"] * 20
    >>> run = {"split": "x", "fold": 0, "seed": 0, "truth": truth, "groups": None}
    >>> runs = [{**run, "method": "PCA", "ours": False, "predicted": ["B"] * 40, "macro_f1": 0.33},
    ...         {**run, "method": "model", "ours": True, "predicted": truth, "macro_f1": 1.0}]
    >>> difference_to_best_baseline(runs)["x"]["methods"]["model"]["verdict"]
    'better'
    """
    found: dict[str, dict[str, Any]] = {}
    kept = [record for record in records if record.get("predicted") is not None]
    for split in dict.fromkeys(record["split"] for record in kept):
        mine = [record for record in kept if record["split"] == split]
        predictions = {name: _predictions(mine, name) for name in dict.fromkeys(r["method"] for r in mine)}
        level = {name: np.mean([r["macro_f1"] for r in mine if r["method"] == name]) for name in predictions}
        baselines = [name for name in predictions if not any(r["ours"] for r in mine if r["method"] == name)]
        if not baselines:
            continue
        best = max(baselines, key=lambda name: level[name])
        truth, groups = _truth(mine, best)
        methods = {}
        for name, predicted in predictions.items():
            if name == best or any(len(one) != len(truth) for one in predicted):
                continue
            difference = paired_difference(
                macro_f1, truth, predicted, predictions[best], groups=groups, strata=truth, resamples=RESAMPLES
            )
            methods[name] = {"value": difference.value, "low": difference.low, "high": difference.high,
                             "verdict": verdict(difference)}  # fmt: skip
        found[split] = {"baseline": best, "methods": methods}
    return found


def verdict(difference: Interval) -> str:
    """``"better"`` or ``"worse"`` where the interval leaves out 0, else ``"tie"``.

    Examples
    --------
    >>> verdict(Interval(0.02, -0.01, 0.05, 0.95))
    'tie'
    """
    return "better" if difference.low > 0 else "worse" if difference.high < 0 else "tie"


def _predictions(records: list[dict[str, Any]], method: str) -> list[np.ndarray[Any, Any]]:
    """Predictions of all folds one after the other, one array a seed."""
    seeds = sorted({record["seed"] for record in records if record["method"] == method})
    return [
        np.concatenate([np.asarray(r["predicted"]) for r in _of(records, method, seed)]) for seed in seeds
    ]  # fmt: skip


def _truth(records: list[dict[str, Any]], method: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    first = min(record["seed"] for record in records if record["method"] == method)
    runs = _of(records, method, first)
    truth = np.concatenate([np.asarray(run["truth"]) for run in runs])
    if any(run.get("groups") is None for run in runs):
        return truth, None
    return truth, np.concatenate([np.asarray(run["groups"]).astype(str) for run in runs])


def _of(records: list[dict[str, Any]], method: str, seed: int) -> list[dict[str, Any]]:
    mine = [record for record in records if record["method"] == method and record["seed"] == seed]
    return sorted(mine, key=lambda record: int(record["fold"]))
