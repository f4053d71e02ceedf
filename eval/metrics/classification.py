"""Scores of predicted labels: accuracy, macro- and weighted F1, a table by class, the confusion matrix.

Macro-F1 here is the mean over the labels *present in the truth*. A prediction of a label that the test set does
not hold is an error of the cell that got it and never a class of its own, so a model that knows more labels than
the test set is neither punished twice nor excused.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from ._checks import as_labels, same_length


def accuracy(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    """Share of cells whose label is right.

    Parameters
    ----------
    truth, predicted
        One label a cell.

    Raises
    ------
    ValueError
        Lengths differ, nothing to score, or a label is missing.

    Examples
    --------
    >>> accuracy(["B", "T", "T"], ["B", "T", "NK"])
    0.6666666666666666
    """
    same_length(truth=truth, predicted=predicted)
    return float(np.mean(as_labels(truth, "truth") == as_labels(predicted, "predicted")))


def macro_f1(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    """Mean F1 over the labels present in the truth; predictions of other labels count as errors.

    Parameters
    ----------
    truth, predicted
        One label a cell.

    Raises
    ------
    ValueError
        Lengths differ, nothing to score, or a label is missing.

    Examples
    --------
    >>> macro_f1(["B", "B", "T"], ["B", "NK", "T"])  # (2/3 + 1) / 2
    0.8333333333333333
    """
    return _f1(truth, predicted, "macro")


def weighted_f1(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    """F1 averaged over the labels present in the truth, weighted by their number of cells.

    Examples
    --------
    >>> round(weighted_f1(["B", "B", "T"], ["B", "NK", "T"]), 4)  # (2 * 2/3 + 1) / 3
    0.7778
    """
    return _f1(truth, predicted, "weighted")


def _f1(truth: npt.ArrayLike, predicted: npt.ArrayLike, average: str) -> float:
    same_length(truth=truth, predicted=predicted)
    expected, given = as_labels(truth, "truth"), as_labels(predicted, "predicted")
    return float(f1_score(expected, given, labels=np.unique(expected), average=average, zero_division=0))


def per_class_table(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> pd.DataFrame:
    """Precision, recall, F1 and number of cells by label.

    Labels that were predicted but are not in the truth stand at the end with ``cells`` 0: they show where wrong
    predictions went, and do not enter any average.

    Returns
    -------
    DataFrame
        Index ``label``; columns ``precision``, ``recall``, ``f1``, ``cells``, ``predicted``.

    Examples
    --------
    >>> float(per_class_table(["B", "B", "T"], ["B", "NK", "T"]).loc["B", "recall"])
    0.5
    """
    same_length(truth=truth, predicted=predicted)
    expected, given = as_labels(truth, "truth"), as_labels(predicted, "predicted")
    labels = _labels_in_order(expected, given)
    precision, recall, f1, cells = precision_recall_fscore_support(expected, given, labels=labels, zero_division=0)
    counts = pd.Series(given).value_counts()
    return pd.DataFrame(
        {
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "cells": cells.astype(int),
            "predicted": [int(counts.get(label, 0)) for label in labels],
        },
        index=pd.Index(labels, name="label"),
    )


def confusion_table(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> pd.DataFrame:
    """Cells by true label (rows: labels in the truth) and predicted label (columns: all labels).

    Examples
    --------
    >>> int(confusion_table(["B", "B", "T"], ["B", "NK", "T"]).loc["B", "NK"])
    1
    """
    same_length(truth=truth, predicted=predicted)
    expected, given = as_labels(truth, "truth"), as_labels(predicted, "predicted")
    labels = _labels_in_order(expected, given)
    counts = confusion_matrix(expected, given, labels=labels)
    table = pd.DataFrame(counts, index=pd.Index(labels, name="truth"), columns=pd.Index(labels, name="predicted"))
    return table.loc[list(np.unique(expected))]


def _labels_in_order(truth: npt.NDArray[np.str_], predicted: npt.NDArray[np.str_]) -> list[str]:
    """Labels of the truth, sorted, then labels that only the predictions hold, sorted."""
    present = np.unique(truth)
    return [*present.tolist(), *np.setdiff1d(predicted, present).tolist()]
