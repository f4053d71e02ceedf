"""What a method for unseen compounds has to beat: means, and what the nearest structures did."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ...inference.response.additive import choose_penalty
from ...inference.response.compounds import tanimoto
from ...inference.response.doses import DoseEffects

Matrix = npt.NDArray[np.float64]
PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


def signature_baselines(
    known: DoseEffects, wanted: DoseEffects, bits: Mapping[str, Matrix], *, seed: int = 0
) -> dict[str, Matrix]:
    """Every baseline's prediction; of `wanted` only drugs and doses are read.

    Parameters
    ----------
    known, wanted
        Signatures.
    bits
        Drug to its fingerprint.
    seed
        Of folds over drugs for the ridge's penalty.

    Returns
    -------
    dict
        Name to (signatures, genes).

    Examples
    --------
    >>> known = DoseEffects(("a", "b"), ("", ""), np.ones(2), ("x",), np.array([[1.0], [3.0]]), np.ones(2, int))
    >>> wanted = DoseEffects(("c",), ("",), np.ones(1), ("x",), np.zeros((1, 1)), np.ones(1, int))
    >>> bits = {"a": np.array([1.0, 0]), "b": np.array([0.0, 1]), "c": np.array([0.0, 1])}
    >>> found = signature_baselines(known, wanted, bits)
    >>> found["train mean"].tolist(), found["nearest structure"].tolist()
    ([[2.0]], [[3.0]])
    """
    mean = known.delta.mean(axis=0)
    like = tanimoto(_rows(wanted, bits), _rows(known, bits))
    apart = np.abs(np.log(wanted.doses)[:, None] - np.log(known.doses)[None, :])
    same = apart <= apart.min(axis=1, keepdims=True) + 1e-9
    found: dict[str, list[Matrix]] = {"mean of dose": [], "nearest structure": [], "5 nearest structures": []}
    for i in range(len(wanted)):
        rows = np.flatnonzero(same[i])
        order = rows[np.argsort(-like[i, rows], kind="stable")]
        found["mean of dose"].append(known.delta[rows].mean(axis=0))
        found["nearest structure"].append(known.delta[order[0]])
        found["5 nearest structures"].append(known.delta[order[:5]].mean(axis=0))
    stacked = {name: np.stack(values) for name, values in found.items()}
    ends = {"no change": np.zeros_like(wanted.delta), "train mean": np.repeat(mean[None], len(wanted), axis=0)}
    return ends | stacked | {"kernel ridge, structure x dose": kernel_ridge(known, wanted, bits, seed=seed)}


def kernel_ridge(known: DoseEffects, wanted: DoseEffects, bits: Mapping[str, Matrix], *, seed: int = 0) -> Matrix:
    """Ridge with the kernel Tanimoto times a Gaussian of log dose, around the mean; drugs in folds choose its penalty.

    Examples
    --------
    >>> known = DoseEffects(("a", "b"), ("", ""), np.ones(2), ("x",), np.array([[1.0], [3.0]]), np.ones(2, int))
    >>> kernel_ridge(known, known, {"a": np.array([1.0, 0]), "b": np.array([0.0, 1])}).shape
    (2, 1)
    """
    drugs = sorted(set(known.drugs))

    def predict(one: DoseEffects, other: DoseEffects, penalty: float) -> Matrix:
        mean = one.delta.mean(axis=0)
        K = _kernel(one, one, bits) + penalty * np.eye(len(one))
        return np.asarray(mean + _kernel(other, one, bits) @ np.linalg.solve(K, one.delta - mean), dtype=np.float64)

    def rows(some: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        names = {drugs[i] for i in some}
        return np.flatnonzero([drug in names for drug in known.drugs])

    def error(fit: npt.NDArray[np.int64], held: npt.NDArray[np.int64], penalty: float) -> float:
        other = known.take(rows(held))
        return float(((predict(known.take(rows(fit)), other, penalty) - other.delta) ** 2).sum())

    return predict(known, wanted, choose_penalty(len(drugs), PENALTIES, error, seed=seed))


def _rows(effects: DoseEffects, bits: Mapping[str, Matrix]) -> Matrix:
    return np.stack([bits[drug] for drug in effects.drugs])


def _kernel(one: DoseEffects, other: DoseEffects, bits: Mapping[str, Matrix]) -> Matrix:
    apart = np.log10(one.doses)[:, None] - np.log10(other.doses)[None, :]
    return tanimoto(_rows(one, bits), _rows(other, bits)) * np.exp(-(apart**2) / 2)
