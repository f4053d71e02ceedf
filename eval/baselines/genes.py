"""Simple baselines for gene classification: what a gene's expression, its partners and its name already tell."""

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .annotation import log_counts


def expression_features(counts: sparse.csr_matrix, tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Mean log expression, share of cells that express the gene, mean where expressed. Shape (genes, 3).

    Parameters
    ----------
    counts
        Cells x vocabulary, raw.
    tokens
        Genes to describe.

    Examples
    --------
    >>> expression_features(sparse.csr_matrix([[0.0, 1.0], [1.0, 1.0]]), np.array([0]))[0, 1].item()
    0.5
    """
    logged = log_counts(counts)[:, tokens]
    mean = np.asarray(logged.mean(axis=0)).ravel()
    detected = logged.getnnz(axis=0) / logged.shape[0]
    return np.column_stack([mean, detected, np.divide(mean, detected, out=np.zeros_like(mean), where=detected > 0)])


_ZINC_FINGER = re.compile(r"(ZNF|ZSCAN|ZFP|ZKSCAN|ZBTB)\d", re.IGNORECASE)


def is_zinc_finger_by_name(symbol: str) -> bool:
    """Whether a symbol is one of those that nearly all C2H2 zinc fingers without another name carry.

    Examples
    --------
    >>> is_zinc_finger_by_name("ZNF143"), is_zinc_finger_by_name("KLF4")
    (True, False)
    """
    return _ZINC_FINGER.match(symbol) is not None


def name_rule_scores(
    symbols: Sequence[str], labels: npt.NDArray[np.integer], train: npt.NDArray[np.integer]
) -> npt.NDArray[np.float64]:
    """Score genes by whether their symbol is a zinc finger's, in the direction that the training genes show. (genes,).

    Examples
    --------
    >>> name_rule_scores(["ZNF1", "KLF4", "ZNF2", "SOX2"], np.array([0, 1, 0, 1]), np.array([0, 1])).tolist()
    [0.0, 1.0, 0.0, 1.0]
    """
    other = np.array([not is_zinc_finger_by_name(symbol) for symbol in symbols], dtype=float)
    inside = other[train] > 0
    # a fold without zinc fingers, or with nothing else, shows no direction: the share of class 1 decides
    known = inside.any() and not inside.all()
    rises = not known or labels[train][inside].mean() >= labels[train][~inside].mean()
    return other if rises else 1.0 - other


def families_by_name(symbols: Sequence[str]) -> list[str]:
    """Family of each gene by its symbol: the letters before the first digit; C2H2 zinc fingers and HOX genes are one.

    Relatives have like sequences, like names and often like labels, so they must not stand on both sides of a fold.

    Examples
    --------
    >>> families_by_name(["ZNF143", "ZBTB7A", "HOXA9", "SOX2", "MYC"])
    ['C2H2', 'C2H2', 'HOX', 'SOX', 'MYC']
    """
    stems = [re.split(r"[\d-]", symbol.upper(), maxsplit=1)[0] or symbol.upper() for symbol in symbols]
    return [
        "C2H2" if is_zinc_finger_by_name(symbol) else "HOX" if re.fullmatch("HOX[A-D]", stem) else stem
        for symbol, stem in zip(symbols, stems, strict=True)
    ]


def gene_coordinates(
    counts: sparse.csr_matrix, tokens: npt.NDArray[np.integer], *, components: int = 32, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Coordinates of genes in the principal components of cells: co-expression without a network. (genes, components).

    Log counts, every gene centred and scaled to unit variance over the cells.

    Parameters
    ----------
    counts
        Cells x vocabulary, raw.
    tokens
        Genes to describe; the components are those of all genes that a cell expresses.
    """
    logged = log_counts(counts).tocsc()
    expressed = np.flatnonzero(logged.getnnz(axis=0))
    X = logged[:, expressed].toarray().T
    X -= X.mean(axis=1, keepdims=True)
    X /= np.maximum(X.std(axis=1, keepdims=True), 1e-9)
    size = max(1, min(components, min(X.shape) - 1))
    coordinates = TruncatedSVD(size, random_state=seed).fit_transform(X)
    everywhere = np.zeros((counts.shape[1], size))
    everywhere[expressed] = coordinates
    return everywhere[tokens]


def linear_scores(
    train: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], test: npt.NDArray[np.floating]
) -> npt.NDArray[np.float64]:
    """Probability of class 1 by logistic regression on standardised features. Shape (test genes,)."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))
    return model.fit(train, labels).predict_proba(test)[:, 1]


def forest_scores(
    train: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], test: npt.NDArray[np.floating], seed: int
) -> npt.NDArray[np.float64]:
    """Probability of class 1 by 300 trees, which also see that expression may matter in more than one direction."""
    model = RandomForestClassifier(300, min_samples_leaf=3, class_weight="balanced", random_state=seed, n_jobs=1)
    return model.fit(train, labels).predict_proba(test)[:, 1]
