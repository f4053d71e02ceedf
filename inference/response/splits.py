"""Which conditions train and which test: by gene, by pair, by dose, drug, scaffold or covariate; always seeded."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...tokenization.errors import InputError
from .conditions import all_genes

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Conditions by their part.

    Parameters
    ----------
    train
        To fit on.
    validation
        To stop training by; a part of what is known, never of the test.
    test
        Name of a group to its conditions.
    seen
        Genes (or drugs) that are perturbed in training or validation.
    """

    train: Rows
    validation: Rows
    test: dict[str, Rows]
    seen: frozenset[str] = frozenset()

    @property
    def known(self) -> Rows:
        """Training and validation together: what simple methods, which need no stopping, may read."""
        return np.sort(np.concatenate([self.train, self.validation]))


def split_by_gene(
    genes: Sequence[Sequence[str]],
    *,
    seed: int,
    seen: float = 0.75,
    pairs: float = 0.75,
    validation: float = 0.1,
) -> Split:
    """Hold genes out, as GEARS' simulation split does.

    Parameters
    ----------
    genes
        Perturbed genes of each condition.
    seed
        Of the draw.
    seen
        Share of genes that training may see.
    pairs
        Share of combinations of seen genes that train.
    validation
        Share of training conditions kept for stopping.

    Returns
    -------
    Split
        Groups ``unseen_single``, and ``pair_seen0``, ``pair_seen1``, ``pair_seen2`` by how many genes of a
        combination are seen; only those that are not empty.

    Raises
    ------
    InputError
        Fewer than four genes or conditions.

    Examples
    --------
    >>> split = split_by_gene([("A",), ("B",), ("C",), ("D",), ("A", "B")], seed=0)
    >>> sorted(len(rows) for rows in split.test.values()), len(split.known)
    ([1], 4)
    """
    names = all_genes(genes)
    if len(names) < 4 or len(genes) < 4:
        raise InputError(f"{len(names)} perturbed genes in {len(genes)} conditions are too few to hold any out; need 4")
    generator = np.random.default_rng(seed)
    known = {names[i] for i in generator.permutation(len(names))[: round(len(names) * seen)]}
    test: dict[str, list[int]] = {"unseen_single": [], "pair_seen0": [], "pair_seen1": [], "pair_seen2": []}
    train: list[int] = []
    candidates: list[int] = []
    for i, condition in enumerate(genes):
        n_seen = sum(gene in known for gene in condition)
        if n_seen == len(condition):
            (train if len(condition) == 1 else candidates).append(i)
        elif len(condition) == 1:
            test["unseen_single"].append(i)
        else:
            test[f"pair_seen{min(n_seen, 1)}"].append(i)
    drawn = generator.permutation(candidates).tolist() if candidates else []
    cut = round(len(drawn) * pairs)
    train += drawn[:cut]
    test["pair_seen2"] = sorted(drawn[cut:])
    fit, stop = _hold_out(sorted(train), validation, generator)
    groups = {name: np.array(rows, dtype=np.int64) for name, rows in test.items() if rows}
    return Split(fit, stop, groups, frozenset(g for i in train for g in genes[i]))


def split_random(n: int, *, seed: int, test: float = 0.25, validation: float = 0.1, name: str = "held_out") -> Split:
    """Hold conditions out at random.

    Examples
    --------
    >>> len(split_random(20, seed=0).test["held_out"])
    5
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(n)
    cut = max(1, round(n * test))
    fit, stop = _hold_out(sorted(order[cut:].tolist()), validation, generator)
    return Split(fit, stop, {name: np.sort(order[:cut])})


def split_by_label(
    labels: Sequence[str | float],
    held_out: Sequence[str | float],
    *,
    seed: int,
    validation: float = 0.1,
    by: Sequence[str] | None = None,
    name: str = "held_out",
) -> Split:
    """Hold out every condition with one of some labels: a dose, a drug, a scaffold, a patient.

    Parameters
    ----------
    labels
        One a condition.
    held_out
        Labels that test.
    validation
        Share of the rest kept for stopping.
    by
        Validation takes whole groups of these labels (drugs), where given.

    Raises
    ------
    InputError
        A label that nothing has, or nothing left to train on.

    Examples
    --------
    >>> split_by_label([0.1, 1.0, 0.1, 1.0], [1.0], seed=0, validation=0.0).train.tolist()
    [0, 2]
    """
    values = list(labels)
    absent = [label for label in held_out if label not in values]
    if absent:
        raise InputError(f"nothing has {absent[0]!r} to hold out; there are {', '.join(map(str, sorted(set(values))))}")
    out = set(held_out)
    test = np.array([i for i, label in enumerate(values) if label in out], dtype=np.int64)
    rest = [i for i, label in enumerate(values) if label not in out]
    if not rest:
        raise InputError("every condition is held out; leave some to train on")
    generator = np.random.default_rng(seed)
    if by is None:
        fit, stop = _hold_out(rest, validation, generator)
    else:
        groups = sorted({by[i] for i in rest})
        kept = {groups[i] for i in generator.permutation(len(groups))[: round(len(groups) * validation)]}
        fit = np.array([i for i in rest if by[i] not in kept], dtype=np.int64)
        stop = np.array([i for i in rest if by[i] in kept], dtype=np.int64)
    return Split(fit, stop, {name: test})


def folds(labels: Sequence[str], *, n: int, seed: int) -> list[list[str]]:
    """Distinct labels (drugs, scaffolds) dealt into `n` folds.

    Raises
    ------
    InputError
        Fewer labels than folds.

    Examples
    --------
    >>> sorted(len(fold) for fold in folds(list("abcde"), n=2, seed=0))
    [2, 3]
    """
    names = sorted(set(labels))
    if len(names) < n:
        raise InputError(f"{len(names)} groups cannot make {n} folds; ask for fewer folds")
    order = np.random.default_rng(seed).permutation(len(names))
    return [[names[i] for i in order[k::n]] for k in range(n)]


def _hold_out(rows: Sequence[int], share: float, generator: np.random.Generator) -> tuple[Rows, Rows]:
    drawn = generator.permutation(np.asarray(rows, dtype=np.int64))
    cut = round(len(drawn) * share)
    return np.sort(drawn[cut:]).astype(np.int64), np.sort(drawn[:cut]).astype(np.int64)
