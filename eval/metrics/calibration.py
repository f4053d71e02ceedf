"""Do scores mean what they say? Expected calibration error, and the temperature that mends over-confidence."""

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from ._checks import as_labels, same_length


def expected_calibration_error(
    truth: npt.ArrayLike, predicted: npt.ArrayLike, confidence: npt.ArrayLike, *, bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy over equally wide bins of confidence, weighted by cells.

    Parameters
    ----------
    truth, predicted
        One label a cell.
    confidence
        Probability of the predicted label, 0 to 1.
    bins
        Number of bins.

    Raises
    ------
    ValueError
        Lengths differ or a confidence lies outside 0 to 1.

    Notes
    -----
    Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.

    Examples
    --------
    >>> round(expected_calibration_error(["B", "T"], ["B", "B"], [0.9, 0.6]), 3)  # (|1 - 0.9| + |0 - 0.6|) / 2
    0.35
    """
    same_length(truth=truth, predicted=predicted, confidence=confidence)
    scores = np.asarray(confidence, dtype=float)
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("confidence must be probabilities between 0 and 1")
    right = as_labels(truth, "truth") == as_labels(predicted, "predicted")
    # bins are open on the left and closed on the right; 0 belongs to the first
    place = np.clip(np.ceil(scores * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(place, weights=right - scores, minlength=bins)
    return float(np.abs(gaps).sum() / len(scores))


def fit_temperature(logits: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Temperature by which to divide logits so that held-out cells are most likely (Guo et al. 2017).

    Labels do not change, only their scores. Fit it on validation cells, never on the test set.

    Parameters
    ----------
    logits
        Cells x classes.
    truth
        Index of the true class by cell.

    Returns
    -------
    float
        Between 0.05 and 20; 1 where there is nothing to fit on.

    Examples
    --------
    >>> fit_temperature([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0]], [0, 0, 1]) > 1  # over-confident: 2 of 3 are right
    True
    """
    scores, classes = np.asarray(logits, dtype=float), np.asarray(truth, dtype=int)
    if len(classes) == 0:
        return 1.0
    rows = np.arange(len(classes))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(scores / np.exp(log_temperature), axis=1)[rows, classes].mean())

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return float(np.exp(found.x))
