"""What a method for doses has to beat: means, the nearest dose, lines and Hill curves through a drug's own doses."""

import numpy as np
import numpy.typing as npt
from scipy.optimize import curve_fit

from ...inference.response.doses import DoseEffects

Matrix = npt.NDArray[np.float64]
BASELINES = (
    *("no change", "train mean", "mean of nearest dose", "mean of other covariates", "drug mean over doses"),
    *("shrunken drug mean", "nearest lower dose", "scaled lower dose", "line in log dose", "Hill curve"),
)


def dose_baselines(known: DoseEffects, wanted: DoseEffects) -> dict[str, Matrix]:
    """Every baseline's prediction; of `wanted` only drugs, doses and covariates are read.

    Where a drug (or covariate) is not known, a method that needs it takes the mean of all at the nearest dose.

    Returns
    -------
    dict
        Name to (conditions, genes).

    Examples
    --------
    >>> known = DoseEffects(("a", "a"), ("", ""), np.array([1.0, 10.0]), ("x",), np.array([[1.0], [3.0]]), np.ones(2))
    >>> wanted = DoseEffects(("a",), ("",), np.array([3.0]), ("x",), np.zeros((1, 1)), np.ones(1))
    >>> found = dose_baselines(known, wanted)
    >>> found["nearest lower dose"].tolist(), found["drug mean over doses"].tolist()
    ([[1.0]], [[2.0]])
    """
    rows: dict[str, list[Matrix]] = {name: [] for name in BASELINES}
    growth, weight = _growth(known), _weight_of_drug(known)
    for i in range(len(wanted)):
        drug, covariate, dose = wanted.drugs[i], wanted.covariates[i], float(wanted.doses[i])
        mine = np.array([d == drug and c == covariate for d, c in zip(known.drugs, known.covariates, strict=True)])
        same_drug = np.array([d == drug for d in known.drugs])
        mean = known.delta.mean(axis=0)
        nearest = _at(known, _closest(known.doses, dose))
        own = mine if mine.any() else same_drug
        rows["no change"].append(np.zeros_like(mean))
        rows["train mean"].append(mean)
        rows["mean of nearest dose"].append(known.delta[nearest].mean(axis=0))
        same = same_drug & _at(known, _closest(known.doses[same_drug], dose)) if same_drug.any() else nearest
        rows["mean of other covariates"].append(known.delta[same].mean(axis=0))
        if not own.any():
            for name in BASELINES[4:]:
                rows[name].append(known.delta[nearest].mean(axis=0))
            continue
        doses, delta = known.doses[own], known.delta[own]
        rows["drug mean over doses"].append(delta.mean(axis=0))
        rows["shrunken drug mean"].append(mean + weight * (delta.mean(axis=0) - mean))
        below = doses[doses <= dose]
        at = float(below.max()) if len(below) else float(doses.min())
        lower = delta[doses == at].mean(axis=0)
        rows["nearest lower dose"].append(lower)
        rows["scaled lower dose"].append(lower * growth ** np.log(dose / at))
        rows["line in log dose"].append(_line(np.log(doses), delta, np.log(dose)))
        rows["Hill curve"].append(_hill(doses, delta, dose))
    return {name: np.stack(values) for name, values in rows.items()}


def _closest(doses: Matrix, dose: float) -> float:
    return float(doses[np.argmin(np.abs(np.log(doses) - np.log(dose)))])


def _at(known: DoseEffects, dose: float) -> npt.NDArray[np.bool_]:
    return known.doses == dose


def _growth(known: DoseEffects) -> float:
    """By how much effects grow with a unit of log dose, from one of a drug's doses to its next."""
    logs = []
    for drug in sorted(set(known.drugs)):
        mine = np.array([d == drug for d in known.drugs])
        doses, sizes = known.doses[mine], np.linalg.norm(known.delta[mine], axis=1)
        order = np.argsort(doses, kind="stable")
        step = np.diff(np.log(doses[order]))
        grown = np.diff(np.log(np.maximum(sizes[order], 1e-12)))
        logs += (grown[step > 0] / step[step > 0]).tolist()
    return float(np.exp(np.median(logs))) if logs else 1.0


def _weight_of_drug(known: DoseEffects) -> float:
    """How far to go from the mean of all to a drug's mean, 0 to 1: as known effects, each left out, say."""
    mean = known.delta.mean(axis=0)
    up, down = 0.0, 0.0
    for key in sorted(set(zip(known.drugs, known.covariates, strict=True))):
        mine = known.delta[[pair == key for pair in zip(known.drugs, known.covariates, strict=True)]]
        if len(mine) > 1:
            others = (mine.sum(axis=0) - mine) / (len(mine) - 1) - mean
            up += float((others * (mine - mean)).sum())
            down += float((others**2).sum())
    return float(np.clip(up / down, 0.0, 1.0)) if down > 0 else 1.0


def _line(x: Matrix, delta: Matrix, at: float) -> Matrix:
    if np.ptp(x) == 0:
        return delta.mean(axis=0)
    centred = x - x.mean()
    slope = centred @ delta / (centred @ centred)
    return np.asarray(delta.mean(axis=0) + slope * (at - x.mean()), dtype=np.float64)


def _hill(doses: Matrix, delta: Matrix, dose: float) -> Matrix:
    """The drug's first axis through zero times a Hill curve fitted to its scores; the line where none fits."""
    if len(set(doses.tolist())) < 3:
        return _line(np.log(doses), delta, np.log(dose))
    axis = np.linalg.svd(delta, full_matrices=False)[2][0]
    scores = delta @ axis
    sign = 1.0 if scores.sum() >= 0 else -1.0

    def curve(log_dose: Matrix, top: float, log_ec50: float, slope: float) -> Matrix:
        return np.asarray(top / (1 + np.exp(-slope * (log_dose - log_ec50))), dtype=np.float64)

    low, high = np.log(doses.min()), np.log(doses.max())
    top = max(float((sign * scores).max()), 1e-9)
    try:
        found, _ = curve_fit(
            curve, np.log(doses), sign * scores, p0=[top, (low + high) / 2, 1.0],
            bounds=([0, low - 3, 0.3], [3 * top, high + 3, 4.0]), maxfev=2000,
        )  # fmt: skip
    except (RuntimeError, ValueError):
        return _line(np.log(doses), delta, np.log(dose))
    return np.asarray(sign * curve(np.array([np.log(dose)]), *found)[0] * axis, dtype=np.float64)
