"""Gene pairs to gene vectors: skip-gram over two-gene sentences (gene2vec; Du et al. 2019, BMC Genomics 20:82)."""

import logging
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from ...tokenization.errors import InputError
from ...tokenization.gene_table import GeneTable

_SENTENCES_A_CHUNK = 100_000
_READS_PER_GENE = 300


@dataclass(frozen=True)
class Gene2VecSettings:
    """How pairs become vectors.

    Parameters
    ----------
    width
        Numbers per gene.
    epochs
        Passes over the pairs. Each draws its own sample and order. By default as many, from 5 to 100, as it takes
        to read about 300 pairs per gene: sparse networks need more passes than dense ones.
    negative
        Noise genes per pair.
    alpha, min_alpha
        Learning rate, falling linearly from the first to the second.
    sentences
        ``pairs``: every pair is a sentence, as published. ``walks``: random walks over the graph of pairs.
    walk_length, walks_per_gene, window
        Used for walks only.
    vectors
        ``input``: the skip-gram's input vectors, as gene2vec writes them. ``sum``: input plus output vectors,
        so that genes that are partners, not only genes with the same partners, are near (Levy et al. 2015).
    seed
        Seed of everything random.
    """

    width: int = 768
    epochs: int | None = None
    negative: int = 5
    alpha: float = 0.025
    min_alpha: float = 0.0001
    sentences: Literal["pairs", "walks"] = "pairs"
    walk_length: int = 10
    walks_per_gene: int = 10
    window: int = 3
    vectors: Literal["input", "sum"] = "sum"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "epochs", "negative", "walk_length", "walks_per_gene", "window"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"gene2vec: {name} must be at least 1, not {value}")
        if self.sentences not in ("pairs", "walks"):
            raise InputError(f"gene2vec: sentences={self.sentences!r} is not known; choose pairs or walks")
        if self.vectors not in ("input", "sum"):
            raise InputError(f"gene2vec: vectors={self.vectors!r} is not known; choose input or sum")

    def record(self) -> dict[str, Any]:
        """All settings as plain values, for the metadata."""
        return asdict(self)


@dataclass(frozen=True)
class Pairs:
    """Weighted gene pairs, each given once.

    Parameters
    ----------
    left, right
        Own tokens, shape (n,).
    weight
        Expected number of times that the pair is read in an epoch, > 0. Shape (n,).
    sign
        Optional -1, 0 or 1 per pair. Where given, a partner that activates and one that represses are two
        different contexts, so that genes switched on and genes switched off by one factor part.
    """

    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float64]
    sign: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.left)

    def select(self, keep: npt.NDArray[Any]) -> "Pairs":
        """The pairs at `keep` (mask or positions)."""
        sign = None if self.sign is None else self.sign[keep]
        return Pairs(self.left[keep], self.right[keep], self.weight[keep], sign)


def train_gene2vec(
    pairs: Pairs, settings: Gene2VecSettings | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Train vectors of the genes in `pairs`.

    The same pairs and settings give the same bytes: gensim's training is reproducible with one worker only, so one
    is used, with a fixed hash; the order of the given pairs does not matter.

    Parameters
    ----------
    pairs
        Weighted pairs of one species. A pair of weight 0.3 is read in about 3 of 10 epochs, one of weight 2 twice
        in each.
    settings
        See `Gene2VecSettings`.

    Returns
    -------
    tokens
        Genes with a vector, ascending, shape (n,).
    vectors
        float32, shape (n, width).

    Raises
    ------
    InputError
        If there are no pairs.
    ImportError
        If gensim is not installed.

    Examples
    --------
    >>> pairs = Pairs(np.array([2, 2, 4]), np.array([3, 4, 5]), np.ones(3))
    >>> tokens, vectors = train_gene2vec(pairs, Gene2VecSettings(width=8))
    >>> tokens.tolist(), vectors.shape
    ([2, 3, 4, 5], (4, 8))
    """
    try:
        from gensim.models import Word2Vec
    except ImportError as error:
        raise ImportError('gene2vec needs gensim: pip install "genecompass[priors]"') from error

    settings = settings or Gene2VecSettings()
    pairs = _in_order(pairs)
    if not len(pairs):
        raise InputError("gene2vec: no gene pairs to learn from")
    logging.getLogger("gensim").setLevel(logging.ERROR)

    genes = np.unique(np.concatenate([pairs.left, pairs.right]))
    reader = _Walks(pairs, settings) if settings.sentences == "walks" else _PairSentences(pairs, settings)
    model = Word2Vec(
        vector_size=settings.width,
        window=settings.window if settings.sentences == "walks" else 1,
        min_count=1,
        sg=1,
        negative=settings.negative,
        sample=0,
        workers=1,
        seed=settings.seed,
        hashfxn=_fixed_hash,
    )
    model.build_vocab_from_freq(reader.frequencies(), corpus_count=1)
    epochs = settings.epochs or _enough_epochs(pairs, len(genes))
    rates = np.linspace(settings.alpha, settings.min_alpha, epochs + 1)
    for epoch in range(epochs):
        sentences = reader.epoch(epoch)
        if not len(sentences):
            continue
        model.train(
            sentences,
            total_examples=len(sentences),
            epochs=1,
            start_alpha=float(rates[epoch]),
            end_alpha=float(rates[epoch + 1]),
        )

    places = [model.wv.key_to_index[str(gene)] for gene in genes]
    vectors = model.wv.vectors[places]
    if settings.vectors == "sum":
        vectors = vectors + model.syn1neg[places]
    return genes, vectors.astype(np.float32)


def _enough_epochs(pairs: Pairs, n_genes: int) -> int:
    return int(np.clip(np.ceil(_READS_PER_GENE * n_genes / pairs.weight.sum()), 5, 100))


def _fixed_hash(word: str) -> int:
    """Python's own hash of a string differs from run to run."""
    return zlib.crc32(word.encode())


def _in_order(pairs: Pairs) -> Pairs:
    keep = np.flatnonzero((pairs.weight > 0) & (pairs.left != pairs.right))
    if not (np.isfinite(pairs.weight).all() and (pairs.weight >= 0).all()):
        raise InputError("gene2vec: pair weights must be finite and not negative")
    return pairs.select(keep[np.lexsort((pairs.right[keep], pairs.left[keep]))])


class _Sentences:
    """One epoch of sentences, as words, made chunk by chunk from an integer matrix of word numbers."""

    def __init__(self, words: npt.NDArray[np.object_], sentences: npt.NDArray[np.int64]) -> None:
        self.words = words
        self.sentences = sentences

    def __len__(self) -> int:
        return len(self.sentences)

    def __iter__(self) -> Iterator[list[str]]:
        for start in range(0, len(self.sentences), _SENTENCES_A_CHUNK):
            yield from self.words[self.sentences[start : start + _SENTENCES_A_CHUNK]].tolist()


class _PairSentences:
    """Every pair is read ``weight`` times an epoch: the whole part always, the rest by a draw."""

    def __init__(self, pairs: Pairs, settings: Gene2VecSettings) -> None:
        self.weight = pairs.weight
        self.seed = settings.seed
        genes = np.unique(np.concatenate([pairs.left, pairs.right]))
        left, right = np.searchsorted(genes, pairs.left), np.searchsorted(genes, pairs.right)
        words = [str(gene) for gene in genes]
        if pairs.sign is None:
            self.sentences = np.stack([left, right], axis=1)
        else:
            # a signed partner is a context word of its own: "gene, +partner" and "partner, +gene"
            words += [mark + str(gene) for mark in "-?+" for gene in genes]
            offset = (pairs.sign + 2) * len(genes)
            self.sentences = np.stack([np.r_[left, right], np.r_[right + offset, left + offset]], axis=1)
            self.weight = np.r_[pairs.weight, pairs.weight]
        self.words = np.array(words, dtype=object)

    def frequencies(self) -> dict[str, int]:
        # in thousandths of a pair: only proportions matter, and gensim counts in whole numbers
        counts = np.bincount(self.sentences.ravel(), np.repeat(self.weight, 2), minlength=len(self.words)) * 1000
        return {word: max(1, round(float(count))) for word, count in zip(self.words, counts, strict=True) if count}

    def epoch(self, number: int) -> _Sentences:
        rng = np.random.default_rng([self.seed, 1, number])
        repeats = np.floor(self.weight + rng.random(len(self.weight))).astype(np.int64)
        chosen = np.repeat(np.arange(len(repeats)), repeats)
        rng.shuffle(chosen)
        return _Sentences(self.words, self.sentences[chosen])


class _Walks:
    """Random walks from every gene over the undirected graph of pairs; steps in proportion to the weights."""

    def __init__(self, pairs: Pairs, settings: Gene2VecSettings) -> None:
        if pairs.sign is not None:
            raise InputError("gene2vec: walks do not use signs; leave the signs out, or use sentences=pairs")
        self.settings = settings
        genes = np.unique(np.concatenate([pairs.left, pairs.right]))
        left, right = np.searchsorted(genes, pairs.left), np.searchsorted(genes, pairs.right)
        graph = sp.coo_matrix((pairs.weight, (left, right)), shape=(len(genes), len(genes))).tocsr()
        self.graph = (graph + graph.T).tocsr()
        self.cumulative = np.r_[0.0, np.cumsum(self.graph.data)]
        self.words = np.array([str(gene) for gene in genes], dtype=object)

    def frequencies(self) -> dict[str, int]:
        strength = np.asarray(self.graph.sum(axis=1)).ravel() * 1000
        return {word: max(1, round(float(count))) for word, count in zip(self.words, strength, strict=True)}

    def epoch(self, number: int) -> _Sentences:
        rng = np.random.default_rng([self.settings.seed, 2, number])
        here = np.tile(np.arange(len(self.words)), self.settings.walks_per_gene)
        rng.shuffle(here)
        steps = [here]
        for _ in range(self.settings.walk_length - 1):
            low, high = self.cumulative[self.graph.indptr[here]], self.cumulative[self.graph.indptr[here + 1]]
            edge = np.searchsorted(self.cumulative, low + rng.random(len(here)) * (high - low), side="right") - 1
            edge = np.clip(edge, self.graph.indptr[here], self.graph.indptr[here + 1] - 1)
            here = self.graph.indices[edge]
            steps.append(here)
        return _Sentences(self.words, np.stack(steps, axis=1))


def vectors_of_all_species(
    pairs: dict[str, Pairs], table: GeneTable, settings: Gene2VecSettings, *, align: bool = True
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], dict[str, Any]]:
    """Train each species by itself, then turn every space onto the leading species' by the homologs.

    Skip-gram spaces of two species have nothing to do with each other. One rotation per species (orthogonal
    Procrustes over homolog pairs with vectors in both) makes them comparable and changes no angle and no length
    within a species; no row is shared or averaged.

    Parameters
    ----------
    pairs
        Species -> its pairs.
    table
        The vocabulary, whose ``homolog_token`` pairs the genes.
    settings
        See `Gene2VecSettings`.
    align
        False leaves every species in its own space.

    Returns
    -------
    tokens, vectors
        As `train_gene2vec`, over all species.
    record
        Per species: genes, pairs, and for aligned ones the homologs used, with the mean cosine of homologs that
        a rotation fitted without them reaches (5-fold), beside that of shuffled pairs.
    """
    tokens: list[npt.NDArray[np.int64]] = []
    vectors: list[npt.NDArray[np.float32]] = []
    record: dict[str, Any] = {}
    for species in (name for name in table.species if name in pairs):
        # a seed of its own: equal graphs with equal seeds would give equal vectors, and homologs that agree by draw
        seed = (settings.seed * 1_000_003 + _fixed_hash(species)) % 2**32
        genes, learned = train_gene2vec(pairs[species], replace(settings, seed=seed))
        record[species] = {"genes": len(genes), "pairs": len(pairs[species])}
        if align and tokens:
            # one BLAS thread: the split of sums over threads would show in the last bits
            with threadpool_limits(1):
                learned, how = _rotate_onto(genes, learned, tokens[0], vectors[0], table, settings.seed)
            record[species]["alignment"] = how
        tokens.append(genes)
        vectors.append(learned)
    return np.concatenate(tokens), np.concatenate(vectors), record


def _rotate_onto(
    tokens: npt.NDArray[np.int64],
    vectors: npt.NDArray[np.float32],
    target_tokens: npt.NDArray[np.int64],
    target: npt.NDArray[np.float32],
    table: GeneTable,
    seed: int,
) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    homolog = table.token_in_cell[tokens]
    place = np.searchsorted(target_tokens, homolog).clip(max=len(target_tokens) - 1)
    has = np.flatnonzero((homolog != tokens) & (target_tokens[place] == homolog))
    if len(has) < 10:
        return vectors, {"homologs": len(has), "rotated": False}

    mine, theirs = vectors[has].astype(np.float64), target[place[has]].astype(np.float64)
    fold = np.random.default_rng([seed, 3]).permutation(len(has)) % 5
    held_out = np.empty(len(has))
    shuffled = np.empty(len(has))
    for number in range(5):
        test = fold == number
        turned = mine[test] @ _rotation(mine[~test], theirs[~test])
        held_out[test] = _cosine(turned, theirs[test])
        shuffled[test] = _cosine(turned, np.roll(theirs[test], 1, axis=0))
    how = {
        "homologs": len(has),
        "rotated": True,
        "held_out_homolog_cosine": round(float(held_out.mean()), 4),
        "shuffled_homolog_cosine": round(float(shuffled.mean()), 4),
    }
    return (vectors @ _rotation(mine, theirs)).astype(np.float32), how


def _rotation(source: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    u, _, vt = np.linalg.svd(source.T @ target)
    return u @ vt


def _cosine(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-12)
