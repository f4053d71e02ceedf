"""Which perturbations run: those asked for, and the matched random ones that they are compared with."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from ...tokenization.errors import InputError
from .matching import GeneProfile, matched_genes, shared_cells_needed

Unit = tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """Perturbations, each a tuple of columns edited together.

    Parameters
    ----------
    units
        Everything that runs; the first `n_asked` were asked for, the others serve as null.
    n_asked
        How many were asked for.
    nulls
        For each perturbation asked for, the places in `units` of its matched random ones.
    """

    units: list[Unit]
    n_asked: int
    nulls: list[npt.NDArray[np.int64]]


def combine(columns: Sequence[int], size: int) -> list[Unit]:
    """All combinations of `size` different columns, in order; 1 gives each on its own.

    Examples
    --------
    >>> combine([3, 5, 8], 2)
    [(3, 5), (3, 8), (5, 8)]
    """
    if not 1 <= size <= 3:
        raise InputError(f"combinations of {size} genes: use 1, 2 or 3")
    distinct = list(dict.fromkeys(int(c) for c in columns))
    if len(distinct) < size:
        raise InputError(f"combinations of {size} need at least {size} different genes, not {len(distinct)}")
    return list(combinations(distinct, size))


def make_plan(
    asked: Sequence[Unit],
    profile: GeneProfile,
    *,
    n_null: int,
    seed: int = 0,
    null_among_asked: bool = False,
    everywhere: bool = False,
) -> Plan:
    """Draw the matched null of every perturbation.

    A combination is compared with combinations whose genes match one by one.

    Parameters
    ----------
    asked
        Perturbations.
    profile
        Genes of the cells at hand.
    n_null
        Random perturbations for each; 0 for none.
    null_among_asked
        Draw from the genes asked for as well: for a screen of all genes, where the null then costs nothing more.
    everywhere
        Genes are perturbed in all cells, those that do not express them included.
    """
    units = list(dict.fromkeys(tuple(unit) for unit in asked))
    place = {unit: index for index, unit in enumerate(units)}
    n_asked = len(units)
    exclude = [] if null_among_asked else sorted({column for unit in units for column in unit})
    nulls = []
    for unit in units[:n_asked]:
        cells = np.zeros(0, np.int64) if everywhere else profile.cells_with(unit)
        if not n_null or (not everywhere and not len(cells)):
            nulls.append(np.zeros(0, np.int64))
            continue
        several = n_null if len(unit) == 1 else 2 * n_null
        drawn = [matched_genes(profile, column, n=several, exclude=exclude, cells=cells, seed=seed) for column in unit]
        nulls.append(_null_of(unit, drawn, n_null, units, place, profile, cells))
    return Plan(units, n_asked, nulls)


def _null_of(
    unit: Unit,
    matched: list[npt.NDArray[np.int64]],
    n_null: int,
    units: list[Unit],
    place: dict[Unit, int],
    profile: GeneProfile,
    cells: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Places of a unit's null; new perturbations are added to `units`."""
    found: dict[int, None] = {}
    together = profile.places[cells].tocsc() if len(unit) > 1 and len(cells) else None
    fewest = min(len(genes) for genes in matched)
    for draw in range(fewest if len(unit) == 1 else 4 * fewest):
        # rotate each gene's draws differently, so that combinations do not pair neighbours of the same gene
        turn = 1 + draw // fewest
        other = tuple(int(genes[(draw + turn * step) % len(genes)]) for step, genes in enumerate(matched))
        if len(set(other)) < len(other) or set(other) == set(unit):
            continue
        if together is not None:
            shared = np.asarray((together[:, list(other)] > 0).sum(axis=1)).ravel() == len(other)
            if shared.sum() < shared_cells_needed(len(cells)):
                continue
        if other not in place:
            place[other] = len(units)
            units.append(other)
        found[place[other]] = None
        if len(found) == n_null:
            break
    return np.asarray(list(found), dtype=np.int64)
