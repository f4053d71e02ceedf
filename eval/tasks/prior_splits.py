"""Splits of prior knowledge into pairs to learn from and pairs to recover."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...dataset_scripts.prior_knowledge.co_expression import CellsOf, dataset_pairs, pool_pairs
from ...dataset_scripts.prior_knowledge.families import RELATIVES_PER_GENE, FamilySource, all_families, family_pairs
from ...dataset_scripts.prior_knowledge.gene2vec import Pairs
from ...dataset_scripts.prior_knowledge.networks import NetworkSource, edge_pairs, read_edges
from ...tokenization.errors import InputError
from ...tokenization.gene_table import GeneTable

_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class HeldOut:
    """Pairs to learn from, and pairs to recover that were not among them.

    Parameters
    ----------
    train
        What the vectors are learned from.
    positives
        Held-out pairs, both genes of which occur in `train`. Shape (n, 2).
    known
        All pairs ever known, in `train` or not: none of them serves as a negative. Shape (m, 2).
    directed
        Only the second gene of a pair is exchanged for a random one (factor and target), else either.
    """

    train: Pairs
    positives: _Ints
    known: _Ints
    directed: bool = False


def hold_out_edges(pairs: Pairs, *, fraction: float = 0.1, directed: bool = False, seed: int = 0) -> HeldOut:
    """Hold out a share of the pairs; those whose genes then occur in no other pair are not asked for.

    Raises
    ------
    InputError
        If nothing can be held out.
    """
    order = np.random.default_rng([seed, 11]).permutation(len(pairs))
    test = np.sort(order[: int(fraction * len(pairs))])
    train = pairs.select(np.setdiff1d(np.arange(len(pairs)), test))
    known = np.stack([pairs.left, pairs.right], axis=1)
    return HeldOut(train, _answerable(known[test], train), known, directed)


def hold_out_family_members(members: pd.DataFrame, *, fraction: float = 0.2, seed: int = 0) -> HeldOut:
    """Hold out members of families of four or more genes, each but for one relative; ask for the other relatives.

    A pair that also shares another family is not asked for, since that family gives it away.

    Parameters
    ----------
    members
        ``token``, ``family``.
    """
    rng = np.random.default_rng([seed, 13])
    kept_parts, shown_pairs, asked = [], [], []
    for family, tokens in members.groupby("family")["token"]:
        genes = rng.permutation(tokens.to_numpy(np.int64))
        hidden = int(fraction * len(genes)) if len(genes) >= 4 else 0
        out, stay = genes[:hidden], genes[hidden:]
        kept_parts.append(pd.DataFrame({"token": stay, "family": family}))
        for gene in out:
            relatives = rng.permutation(stay)[:6]
            shown_pairs.append((gene, relatives[0]))
            asked += [(gene, other) for other in relatives[1:]]
    if not asked:
        raise InputError("gene families: no family of four or more genes to hold members out of")

    inside = family_pairs(pd.concat(kept_parts, ignore_index=True))
    shown = np.sort(np.array(shown_pairs, dtype=np.int64), axis=1)
    train = Pairs(
        np.r_[inside.left, shown[:, 0]],
        np.r_[inside.right, shown[:, 1]],
        np.r_[inside.weight, np.full(len(shown), float(RELATIVES_PER_GENE))],
    )
    everything = family_pairs(members)
    known = np.stack([everything.left, everything.right], axis=1)
    trained = np.stack([train.left, train.right], axis=1)
    positives = np.array(asked, dtype=np.int64)
    positives = positives[~among(positives, trained)]
    return HeldOut(train, _answerable(positives, train), known)


def hold_out_datasets(pairs: pd.DataFrame, *, seed: int = 0) -> HeldOut:
    """Learn from half of the data sets, ask for the co-expressed pairs that only the other half shows.

    Parameters
    ----------
    pairs
        Of one species, columns as of `dataset_pairs`; pooled as for the table.

    Raises
    ------
    InputError
        If there are fewer than two data sets.
    """
    names = np.sort(pairs["dataset"].unique())
    if len(names) < 2:
        raise InputError("co-expression: two or more data sets of a species are needed to hold one out")
    shown = np.random.default_rng([seed, 17]).permutation(names)[: len(names) // 2]
    is_shown = pairs["dataset"].isin(shown).to_numpy()
    both = pairs[["left", "right"]].to_numpy(np.int64)
    (learned,) = pool_pairs(pairs[is_shown]).values()
    test = np.unique(both[~is_shown], axis=0)
    test = test[~among(test, both[is_shown])]
    return HeldOut(learned, _answerable(test, learned), np.unique(both, axis=0))


def _answerable(positives: _Ints, train: Pairs) -> _Ints:
    genes = np.unique(np.r_[train.left, train.right])
    return positives[np.isin(positives, genes).all(axis=1)] if len(positives) else positives.reshape(0, 2)


Split = Callable[[int], HeldOut]


def network_splits(sources: Sequence[NetworkSource], table: GeneTable) -> dict[tuple[str, str], Split]:
    """Held-out edges of the pooled networks of each species: ``("grn", species)`` -> seed -> split."""
    edges, _ = read_edges(sources, table)
    return {("grn", species): partial(_edges_split, edge_pairs(pooled)) for species, pooled in edges.items()}


def _edges_split(pairs: Pairs, seed: int) -> HeldOut:
    return hold_out_edges(pairs, directed=True, seed=seed)


def family_splits(sources: Sequence[FamilySource], table: GeneTable) -> dict[tuple[str, str], Split]:
    """Held-out family members of each species: ``("gene_family", species)`` -> seed -> split."""
    members, _, _ = all_families(sources, table)
    return {("gene_family", species): partial(_members_split, listed) for species, listed in members.items()}


def _members_split(members: pd.DataFrame, seed: int) -> HeldOut:
    return hold_out_family_members(members, seed=seed)


def co_expression_splits(cells: Sequence[CellsOf], transform: str = "auto") -> dict[tuple[str, str], Split]:
    """Held-out pairs and held-out data sets of each species, see `pair_splits`."""
    pairs, _ = dataset_pairs(cells, transform=transform)  # type: ignore[arg-type]
    return pair_splits(pairs)


def pair_splits(pairs: pd.DataFrame) -> dict[tuple[str, str], Split]:
    """As `co_expression_splits`, from pairs that are at hand (columns as of `dataset_pairs`).

    Returns
    -------
    dict
        ``("co_expression", species)``: pairs held out of the pooled ones. ``("co_expression, other data sets",
        species)``, with two or more data sets: pairs that only data sets show that were not learned from. That is
        the harder question: other tissues, other protocols.
    """
    splits: dict[tuple[str, str], Split] = {}
    for species, pooled in pool_pairs(pairs).items():
        splits["co_expression", species] = partial(_pooled_split, pooled)
        mine = pairs[pairs["species"] == species]
        if len(mine["dataset"].unique()) > 1:
            splits["co_expression, other data sets", species] = partial(_datasets_split, mine)
    return splits


def _pooled_split(pairs: Pairs, seed: int) -> HeldOut:
    return hold_out_edges(pairs, seed=seed)


def _datasets_split(pairs: pd.DataFrame, seed: int) -> HeldOut:
    return hold_out_datasets(pairs, seed=seed)


def pair_codes(pairs: _Ints) -> _Ints:
    """One number per unordered pair of tokens."""
    return np.minimum(pairs[:, 0], pairs[:, 1]) * 10_000_000 + np.maximum(pairs[:, 0], pairs[:, 1])


def among(pairs: _Ints, known: _Ints) -> npt.NDArray[np.bool_]:
    """True for pairs that occur in `known`, either way round."""
    return np.isin(pair_codes(pairs), pair_codes(known))
