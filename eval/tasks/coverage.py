"""Is a low score a good reason to leave a cell unlabelled? Accuracy of the cells kept, as more are left out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.5)


def accuracy_by_coverage(
    truth: npt.ArrayLike,
    predicted: npt.ArrayLike,
    scores: npt.ArrayLike,
    *,
    coverages: Sequence[float] = COVERAGES,
) -> dict[str, float]:
    """Accuracy among the best-scored part of the cells.

    Parameters
    ----------
    truth, predicted, scores
        Label, prediction and its score; (cells,) each.
    coverages
        Parts of the cells that are labelled.

    Returns
    -------
    dict
        ``accuracy_at_100``, ``accuracy_at_90``, ...; tied scores at the cut count with their mean accuracy.

    Examples
    --------
    >>> accuracy_by_coverage(["a", "b"], ["a", "a"], [0.9, 0.4], coverages=(1.0, 0.5))
    {'accuracy_at_100': 0.5, 'accuracy_at_50': 1.0}
    """
    right = (np.asarray(truth) == np.asarray(predicted)).astype(float)
    levels, which = np.unique(-np.asarray(scores, dtype=np.float64), return_inverse=True)
    size = np.bincount(which, minlength=len(levels))
    mean = np.bincount(which, weights=right, minlength=len(levels)) / size
    # within a tie no order is better than another: every cell counts as the tie's mean
    ordered = np.repeat(mean, size)
    found = {}
    for coverage in coverages:
        kept = max(1, round(coverage * len(ordered)))
        found[f"accuracy_at_{round(100 * coverage)}"] = float(ordered[:kept].mean())
    return found


def coverage_table(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Accuracy by coverage of every method that kept its scores (all labelled cells, first seed), folds together.

    Parameters
    ----------
    records
        From `run_annotation`.
    """
    rows = []
    kept = [record for record in records if record.get("scores") is not None]
    for split, method in dict.fromkeys((record["split"], record["method"]) for record in kept):
        mine = [record for record in kept if (record["split"], record["method"]) == (split, method)]
        joined = [np.concatenate([np.asarray(r[name]) for r in mine]) for name in ("truth", "predicted", "scores")]
        rows.append({"split": split, "method": method, **accuracy_by_coverage(*joined)})
    return rows
