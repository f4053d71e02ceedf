"""Which perturbations run: those asked for, and the matched random ones that they are compared with."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from ...tokenization.errors import InputError
from .matching import GeneProfile, matched_genes

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
    max_pool: int = 400,
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
    max_pool
        Most random genes for all perturbations together. Where hundreds of genes are asked for, each would draw its
        own and the null would cost more than they; then so many of those drawn are kept, and each gene is matched
        among them.
    """
    units = list(dict.fromkeys(tuple(unit) for unit in asked))
    place = {unit: index for index, unit in enumerate(units)}
    n_asked = len(units)
    exclude = [] if null_among_asked else sorted({column for unit in units for column in unit})
    drawn: dict[int, npt.NDArray[np.int64]] = {}
    wanted = sorted({column for unit in units for column in unit})
    for column in wanted:
        drawn[column] = matched_genes(profile, column, n=n_null, exclude=exclude, seed=seed)
    pool = np.unique(np.concatenate([np.zeros(0, np.int64), *drawn.values()]))
    if len(pool) > max(max_pool, 2 * n_null) and not null_among_asked:
        pool = np.random.default_rng([seed, len(pool)]).permutation(pool)[: max(max_pool, 2 * n_null)]
        outside = np.setdiff1d(profile.columns, pool)
        for column in wanted:
            drawn[column] = matched_genes(profile, column, n=n_null, exclude=outside, seed=seed)
    nulls = [_null_of(unit, [drawn[column] for column in unit], units, place) for unit in units[:n_asked]]
    return Plan(units, n_asked, nulls)


def _null_of(
    unit: Unit, matched: list[npt.NDArray[np.int64]], units: list[Unit], place: dict[Unit, int]
) -> npt.NDArray[np.int64]:
    """Places of a unit's null; new perturbations are added to `units`."""
    found: list[int] = []
    for draw in range(min(len(genes) for genes in matched)):
        # rotate each gene's draws differently, so that combinations do not pair neighbours of the same gene
        other = tuple(int(genes[(draw + step) % len(genes)]) for step, genes in enumerate(matched))
        if len(set(other)) < len(other) or set(other) == set(unit):
            continue
        if other not in place:
            place[other] = len(units)
            units.append(other)
        found.append(place[other])
    return np.asarray(list(dict.fromkeys(found)), dtype=np.int64)
