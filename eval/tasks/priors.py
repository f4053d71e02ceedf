"""Does prior knowledge carry signal? Held-out pairs against matched random ones, per table and species."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from ...dataset_scripts.prior_knowledge.families import RELATIVES_PER_GENE, family_pairs
from ...dataset_scripts.prior_knowledge.gene2vec import Gene2VecSettings, Pairs, train_gene2vec
from ...dataset_scripts.prior_knowledge.tables import PriorTable, known_rows
from ...tokenization.errors import InputError
from ..metrics.intervals import bootstrap_interval
from ..metrics.ranking import auprc, auroc

_Ints = npt.NDArray[np.int64]
_MOST_POSITIVES = 2000


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
    positives = positives[~_among(positives, trained)]
    return HeldOut(train, _answerable(positives, train), known)


def hold_out_datasets(pairs: pd.DataFrame, *, seed: int = 0) -> HeldOut:
    """Learn from half of the data sets, ask for the co-expressed pairs that only the other half shows.

    Parameters
    ----------
    pairs
        ``dataset``, ``left``, ``right`` of one species.

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
    train, test = np.unique(both[is_shown], axis=0), np.unique(both[~is_shown], axis=0)
    test = test[~_among(test, train)]
    learned = Pairs(train[:, 0], train[:, 1], np.ones(len(train)))
    return HeldOut(learned, _answerable(test, learned), np.unique(both, axis=0))


def _answerable(positives: _Ints, train: Pairs) -> _Ints:
    genes = np.unique(np.r_[train.left, train.right])
    return positives[np.isin(positives, genes).all(axis=1)] if len(positives) else positives.reshape(0, 2)


def _codes(pairs: _Ints) -> _Ints:
    return np.minimum(pairs[:, 0], pairs[:, 1]) * 10_000_000 + np.maximum(pairs[:, 0], pairs[:, 1])


def _among(pairs: _Ints, known: _Ints) -> npt.NDArray[np.bool_]:
    return np.isin(_codes(pairs), _codes(known))


def matched_negatives(
    positives: _Ints, degree: _Ints, known: _Ints, *, directed: bool = False, seed: int = 0, window: int = 25
) -> tuple[_Ints, _Ints]:
    """For each positive, a pair that is not known and whose exchanged gene has (nearly) the same degree.

    Matching by degree takes away what popular genes would give: a score that only knows how many partners a gene
    has comes out at chance. For families the degree is the number of relatives, so families are matched by size.

    Parameters
    ----------
    positives
        Shape (n, 2).
    degree
        Partners of every token in the training pairs, shape (vocab,); genes of degree 0 are not drawn.
    known
        Pairs that must not serve as negatives, shape (m, 2).
    directed
        Exchange the second gene only.
    seed
        Of the draw.
    window
        A gene is drawn from this many places up or down the genes in order of degree.

    Returns
    -------
    positives, negatives
        Shape (k, 2) each, row by row; positives for which no negative was found are left out.

    Examples
    --------
    >>> degree = np.array([0, 0, 1, 1, 1, 1])
    >>> matched_negatives(np.array([[2, 3]]), degree, np.array([[2, 3], [2, 4]]), directed=True)[1].tolist()
    [[2, 5]]
    """
    rng = np.random.default_rng([seed, 19])
    genes = np.flatnonzero(degree)
    ladder = genes[np.lexsort((rng.random(len(genes)), degree[genes]))]
    rung = np.full(len(degree), -1)
    rung[ladder] = np.arange(len(ladder))

    pairs = positives.copy()
    swap = np.zeros(len(pairs), dtype=bool) if directed else rng.random(len(pairs)) < 0.5
    pairs[swap] = pairs[swap][:, ::-1]
    negatives = np.full_like(pairs, -1)
    waiting = np.arange(len(pairs))
    known_codes = np.unique(_codes(known))
    for attempt in range(200):
        if not len(waiting):
            break
        reach = window * (1 + attempt // 50)
        step = rng.integers(-reach, reach + 1, len(waiting))
        drawn = ladder[np.clip(rung[pairs[waiting, 1]] + step, 0, len(ladder) - 1)]
        tried = np.stack([pairs[waiting, 0], drawn], axis=1)
        good = (drawn != pairs[waiting, 1]) & (drawn != pairs[waiting, 0]) & ~np.isin(_codes(tried), known_codes)
        negatives[waiting[good]] = tried[good]
        waiting = waiting[~good]
    found = negatives[:, 0] >= 0
    return pairs[found], negatives[found]


def _unit_rows(matrix: Any) -> Any:
    if sp.issparse(matrix):
        lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
        return sp.diags(1 / np.maximum(lengths, 1e-12)) @ matrix
    return matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)


def _row_products(left: Any, right: Any) -> npt.NDArray[np.float64]:
    product = left.multiply(right) if sp.issparse(left) else left * right
    return np.asarray(product.sum(axis=1), dtype=np.float64).ravel()


def _scorers(matrix: Any, graph: sp.csr_matrix) -> dict[str, Callable[[_Ints], npt.NDArray[np.float64]]]:
    """Two readings of a matrix of gene vectors: cosine of the two genes, and of one with the other's partners."""
    unit = _unit_rows(matrix)

    def cosine(pairs: _Ints) -> npt.NDArray[np.float64]:
        return _row_products(unit[pairs[:, 0]], unit[pairs[:, 1]])

    def partners(pairs: _Ints) -> npt.NDArray[np.float64]:
        genes, place = np.unique(pairs[:, 0], return_inverse=True)
        around = _unit_rows(graph[genes] @ unit)
        return _row_products(around[place], unit[pairs[:, 1]])

    return {"cosine": cosine, "cosine with partners": partners}


def recover(
    held_out: HeldOut,
    vocab_size: int,
    *,
    settings: Gene2VecSettings | None = None,
    matrix: npt.NDArray[Any] | None = None,
    seed: int = 0,
    resamples: int = 500,
) -> pd.DataFrame:
    """Learn vectors from the training pairs, and tell held-out pairs from matched random ones.

    Parameters
    ----------
    held_out
        Training pairs and held-out pairs.
    vocab_size
        Number of tokens.
    settings
        Of gene2vec.
    matrix
        Score these vectors, shape (vocab, width), rather than learn some.
    seed
        Of negatives, baselines and bootstrap.
    resamples
        Bootstrap draws, over the first genes of the pairs (whole factors, not single edges).

    Returns
    -------
    DataFrame
        One row per scorer: ``scorer``, ``auroc``, ``auroc_low``, ``auroc_high``, ``auprc``, ``auprc_low``,
        ``auprc_high``, ``positives``. As many negatives as positives, so chance is 0.5 for both. Baselines: a
        random table, the degree alone, and the raw graph's rows in place of vectors.

    Raises
    ------
    InputError
        If no held-out pair can be asked for.
    """
    positives = held_out.positives
    if len(positives) > _MOST_POSITIVES:
        positives = positives[np.random.default_rng([seed, 23]).permutation(len(positives))[:_MOST_POSITIVES]]
    graph = _graph(held_out.train, vocab_size)
    degree = np.diff(graph.indptr)
    positives, negatives = matched_negatives(positives, degree, held_out.known, directed=held_out.directed, seed=seed)
    if len(positives) < 10:
        raise InputError(f"held-out recovery: only {len(positives)} held-out pairs to ask for; more data are needed")

    if matrix is None:
        tokens, vectors = train_gene2vec(held_out.train, settings)
        matrix = np.zeros((vocab_size, vectors.shape[1]), dtype=np.float32)
        matrix[tokens] = vectors
    noise = np.random.default_rng([seed, 29]).standard_normal(matrix.shape).astype(np.float32)
    scorers = {f"table: {name}": scorer for name, scorer in _scorers(matrix, graph).items()}
    scorers |= {f"graph: {name}": scorer for name, scorer in _scorers(graph, graph).items()}
    scorers["random table: cosine"] = _scorers(noise, graph)["cosine"]
    scorers["degree"] = lambda pairs: degree[pairs[:, 1]].astype(np.float64)
    return _judge(scorers, positives, negatives, seed, resamples)


def recover_evidence(prior: PriorTable, evidence: Pairs, *, seed: int = 0, resamples: int = 500) -> pd.DataFrame:
    """Ask a finished table for pairs of another source, for example physical interactions.

    Negatives are matched by degree in the evidence. Same columns as `recover`.
    """
    known = known_rows(prior.matrix)
    keep = known[evidence.left] & known[evidence.right]
    evidence = evidence.select(keep)
    both = np.stack([evidence.left, evidence.right], axis=1)
    rng = np.random.default_rng([seed, 31])
    graph = _graph(evidence, len(prior.matrix))
    degree = np.diff(graph.indptr)
    chosen = both[rng.permutation(len(both))[:_MOST_POSITIVES]]
    positives, negatives = matched_negatives(chosen, degree, both, seed=seed)
    if len(positives) < 10:
        raise InputError(f"{prior.name}: only {len(positives)} pairs of the evidence have vectors; cannot judge it")
    noise = rng.standard_normal(prior.matrix.shape).astype(np.float32)
    scorers = {
        "table: cosine": _scorers(prior.matrix.astype(np.float32), graph)["cosine"],
        "random table: cosine": _scorers(noise, graph)["cosine"],
        "degree": lambda pairs: degree[pairs[:, 1]].astype(np.float64),
    }
    return _judge(scorers, positives, negatives, seed, resamples)


def _graph(pairs: Pairs, vocab_size: int) -> sp.csr_matrix:
    half = sp.coo_matrix((np.ones(len(pairs)), (pairs.left, pairs.right)), shape=(vocab_size, vocab_size)).tocsr()
    graph = (half + half.T).tocsr()
    graph.data[:] = 1
    return graph


def _judge(
    scorers: dict[str, Callable[[_Ints], npt.NDArray[np.float64]]],
    positives: _Ints,
    negatives: _Ints,
    seed: int,
    resamples: int,
) -> pd.DataFrame:
    pairs = np.concatenate([positives, negatives])
    truth = np.r_[np.ones(len(positives), dtype=bool), np.zeros(len(negatives), dtype=bool)]
    rows = []
    for name, scorer in scorers.items():
        scores = scorer(pairs)
        row: dict[str, Any] = {"scorer": name, "positives": len(positives)}
        for metric in (auroc, auprc):
            interval = bootstrap_interval(metric, truth, scores, groups=pairs[:, 0], resamples=resamples, seed=seed)
            row[metric.__name__] = interval.value
            row[f"{metric.__name__}_low"], row[f"{metric.__name__}_high"] = interval.low, interval.high
        rows.append(row)
    return pd.DataFrame(rows)


def benchmark_priors(
    sources: dict[tuple[str, str], Callable[[int], HeldOut]],
    vocab_size: int,
    *,
    settings: Gene2VecSettings | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    resamples: int = 500,
    progress: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """Run held-out recovery of several tables and species over several splits.

    Parameters
    ----------
    sources
        (table, species) -> a function from seed to split.
    vocab_size
        Number of tokens.
    settings
        Of gene2vec; its seed follows the split's.
    seeds
        Splits.
    resamples
        Bootstrap draws.
    progress
        Called with a line per run.

    Returns
    -------
    DataFrame
        Columns of `recover`, with ``prior``, ``species``, ``seed`` in front.
    """
    settings = settings or Gene2VecSettings()
    results = []
    for (prior, species), split in sources.items():
        for seed in seeds:
            held_out = split(seed)
            scored = recover(
                held_out, vocab_size, settings=replace(settings, seed=seed), seed=seed, resamples=resamples
            )
            scored.insert(0, "prior", prior)
            scored.insert(1, "species", species)
            scored.insert(2, "seed", seed)
            results.append(scored)
            if progress is not None:
                best = scored.iloc[0]
                progress(f"{prior}, {species}, split {seed}: AUROC {best['auroc']:.3f} on {best['positives']} pairs")
    return pd.concat(results, ignore_index=True)


def summarise(results: pd.DataFrame) -> pd.DataFrame:
    """Mean over splits per table, species and scorer, with the widest of the splits' intervals."""
    grouped = results.groupby(["prior", "species", "scorer"], sort=False)
    return grouped.agg(
        positives=("positives", "mean"),
        auroc=("auroc", "mean"),
        auroc_low=("auroc_low", "min"),
        auroc_high=("auroc_high", "max"),
        auprc=("auprc", "mean"),
        auprc_low=("auprc_low", "min"),
        auprc_high=("auprc_high", "max"),
        splits=("seed", "nunique"),
    ).reset_index()
