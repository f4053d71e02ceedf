"""Checks that every metric runs on its input first."""

import numpy as np
import numpy.typing as npt


def same_length(**arrays: npt.ArrayLike) -> int:
    """Length shared by all arrays; `ValueError` naming the two that differ, or that there is nothing to score."""
    lengths = {name: len(np.asarray(array)) for name, array in arrays.items()}
    first, length = next(iter(lengths.items()))
    for name, other in lengths.items():
        if other != length:
            raise ValueError(f"{first} has {length} entries but {name} has {other}; give one entry a cell in each")
    if length == 0:
        raise ValueError(f"{first} is empty: there is nothing to score")
    return length


def as_labels(labels: npt.ArrayLike, name: str) -> npt.NDArray[np.str_]:
    """Labels as strings; `ValueError` where one is missing, because a missing label must not become a class."""
    array = np.asarray(labels, dtype=object)
    missing = np.array([label is None or label != label for label in array], dtype=bool)
    if missing.any():
        raise ValueError(
            f"{name}: entry {int(np.flatnonzero(missing)[0])} has no label (None or NaN); leave such cells out first"
        )
    return array.astype(str)
