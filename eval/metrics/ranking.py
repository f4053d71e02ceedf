"""Scores of ranked predictions: area under the ROC and the precision-recall curve."""

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, roc_auc_score

from ._checks import same_length


def auroc(truth: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting one half.

    Parameters
    ----------
    truth
        0 / 1 or False / True, one a gene (or cell, or edge).
    scores
        Higher means more likely positive.

    Raises
    ------
    ValueError
        Lengths differ, a score is not finite, or only one class is present.

    Examples
    --------
    >>> auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    positives, ranks = _binary(truth, scores)
    return float(roc_auc_score(positives, ranks))


def auprc(truth: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Average precision. Its value by chance is the share of positives: report that beside it.

    Parameters
    ----------
    truth, scores
        As for `auroc`.

    Raises
    ------
    ValueError
        As for `auroc`.

    Examples
    --------
    >>> round(auprc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 4)
    0.8333
    """
    positives, ranks = _binary(truth, scores)
    return float(average_precision_score(positives, ranks))


def _binary(truth: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    same_length(truth=truth, scores=scores)
    classes = np.asarray(truth)
    ranks = np.asarray(scores, dtype=float)
    if not np.isin(classes, [0, 1]).all():
        raise ValueError("truth must hold 0 and 1 (or False and True) only")
    if not np.isfinite(ranks).all():
        raise ValueError(f"scores: entry {int(np.flatnonzero(~np.isfinite(ranks))[0])} is not a finite number")
    positives = classes.astype(bool)
    if positives.all() or not positives.any():
        raise ValueError("truth holds one class only; a ranking needs positives and negatives")
    return positives, ranks
