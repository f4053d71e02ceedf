"""Does prior knowledge carry signal? Held-out pairs against matched random ones, per table and species."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from ...dataset_scripts.prior_knowledge.gene2vec import Gene2VecSettings, Pairs, train_gene2vec
from ...dataset_scripts.prior_knowledge.networks import NetworkSource, edge_pairs, read_edges
from ...dataset_scripts.prior_knowledge.tables import PriorTable, known_rows
from ...tokenization.errors import InputError
from ...tokenization.gene_table import GeneTable
from ..metrics.intervals import bootstrap_interval
from ..metrics.ranking import auprc, auroc
from .prior_splits import HeldOut, Split, pair_codes

_Ints = npt.NDArray[np.int64]
_MOST_POSITIVES = 2000


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
    known_codes = np.unique(pair_codes(known))
    for attempt in range(200):
        if not len(waiting):
            break
        reach = window * (1 + attempt // 50)
        step = rng.integers(-reach, reach + 1, len(waiting))
        drawn = ladder[np.clip(rung[pairs[waiting, 1]] + step, 0, len(ladder) - 1)]
        tried = np.stack([pairs[waiting, 0], drawn], axis=1)
        good = (drawn != pairs[waiting, 1]) & (drawn != pairs[waiting, 0]) & ~_is_in(pair_codes(tried), known_codes)
        negatives[waiting[good]] = tried[good]
        waiting = waiting[~good]
    found = negatives[:, 0] >= 0
    return pairs[found], negatives[found]


def _is_in(codes: _Ints, ordered: _Ints) -> npt.NDArray[np.bool_]:
    """Which codes occur among ascending ones; `np.isin` would sort the millions of them again at every call."""
    return ordered[np.searchsorted(ordered, codes).clip(max=len(ordered) - 1)] == codes


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
    resamples: int = 200,
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


def recover_evidence(prior: PriorTable, evidence: Pairs, *, seed: int = 0, resamples: int = 200) -> pd.DataFrame:
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


def evidence_over_species(
    prior: PriorTable,
    table: GeneTable,
    files: Sequence[str],
    *,
    ignore_case: bool = False,
    seeds: Sequence[int] = (0, 1, 2),
    resamples: int = 200,
) -> pd.DataFrame:
    """`recover_evidence` for ``SPECIES=FILE`` edge lists; columns as from `benchmark_priors`."""
    parts = []
    for item in files:
        species, equals, path = item.partition("=")
        if not equals:
            raise InputError(f"evidence {item!r}: write SPECIES=FILE")
        edges, _ = read_edges([NetworkSource(path, species, ignore_case=ignore_case)], table)
        for seed in seeds:
            scored = recover_evidence(prior, edge_pairs(edges[species]), seed=seed, resamples=resamples)
            scored.insert(0, "prior", f"{prior.name} on {Path(path).name.split('.')[0]}")
            scored.insert(1, "species", species)
            scored.insert(2, "seed", seed)
            parts.append(scored)
    return pd.concat(parts, ignore_index=True)


def benchmark_priors(
    sources: dict[tuple[str, str], Split],
    vocab_size: int,
    *,
    settings: Gene2VecSettings | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    resamples: int = 200,
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
