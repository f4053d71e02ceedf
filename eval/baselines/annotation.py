"""Simple baselines for annotation: what any model must beat, on the same genes, cells and splits.

Settings are scanpy's and scikit-learn's usual ones, fixed beforehand and never chosen on test data.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

_TARGET_SUM = 1e4
_COMPONENTS = 50
_NEIGHBOURS = 15


@dataclass(frozen=True)
class BaselinePrediction:
    """Labels, their probabilities, and how many numbers were fitted to get them.

    Parameters
    ----------
    labels
        One a cell.
    scores
        Probability of that label.
    parameters
        Fitted coefficients.
    """

    labels: npt.NDArray[np.str_]
    scores: npt.NDArray[np.float64]
    parameters: int


Baseline = Callable[..., BaselinePrediction]


def log_counts(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """log(1 + counts scaled to 10,000 a cell).

    Examples
    --------
    >>> log_counts(sparse.csr_matrix([[1.0, 1.0]])).toarray().round(2).tolist()
    [[8.52, 8.52]]
    """
    totals = np.asarray(counts.sum(axis=1)).ravel()
    scaled = sparse.csr_matrix(sparse.diags(_TARGET_SUM / np.maximum(totals, 1)) @ counts)
    scaled.data = np.log1p(scaled.data)
    return scaled


def majority(
    train: sparse.csr_matrix, labels: npt.NDArray[np.str_], test: sparse.csr_matrix, seed: int = 0, align: str = "none"
) -> BaselinePrediction:
    """Call every cell by the most frequent label."""
    names, counts = np.unique(labels, return_counts=True)
    n = test.shape[0]
    return BaselinePrediction(np.full(n, names[counts.argmax()]), np.full(n, counts.max() / counts.sum()), 0)


def logistic_regression(
    train: sparse.csr_matrix, labels: npt.NDArray[np.str_], test: sparse.csr_matrix, seed: int = 0, align: str = "none"
) -> BaselinePrediction:
    """Logistic regression on log counts of the genes that at least three training cells express."""
    seen = np.flatnonzero(train.getnnz(axis=0) >= 3)
    known, asked = log_counts(train)[:, seen], log_counts(test)[:, seen]
    # liblinear's and newton's cost grows with genes; lbfgs on the unscaled log counts converges in seconds
    model = LogisticRegression(max_iter=200, class_weight="balanced", C=1.0).fit(known, labels)
    return _of(model, asked)


def pca_logistic_regression(
    train: sparse.csr_matrix, labels: npt.NDArray[np.str_], test: sparse.csr_matrix, seed: int = 0, align: str = "none"
) -> BaselinePrediction:
    """Logistic regression on 50 principal components, scaled to unit variance.

    ``align="center"`` centres and scales the test set by itself, as the model's rows do across species.
    """
    known, asked = _components(train, test, seed)
    scaler = StandardScaler().fit(known)
    known, asked = (
        scaler.transform(known),
        (StandardScaler().fit(asked) if align == "center" else scaler).transform(asked),
    )
    model = LogisticRegression(max_iter=1000, class_weight="balanced", C=1.0).fit(known, labels)
    return _of(model, asked)


def pca_neighbours(
    train: sparse.csr_matrix, labels: npt.NDArray[np.str_], test: sparse.csr_matrix, seed: int = 0, align: str = "none"
) -> BaselinePrediction:
    """15 nearest neighbours on 50 principal components; ``align="center"`` takes out a shift between the two sets."""
    known, asked = _components(train, test, seed)
    if align == "center":
        known, asked = known - known.mean(axis=0), asked - asked.mean(axis=0)
    model = KNeighborsClassifier(min(_NEIGHBOURS, len(labels)), weights="distance").fit(known, labels)
    return _of(model, asked)


def variable_pca_logistic_regression(
    train: sparse.csr_matrix, labels: npt.NDArray[np.str_], test: sparse.csr_matrix, seed: int = 0, align: str = "none"
) -> BaselinePrediction:
    """Logistic regression on 50 components of the 2,000 most variable genes, scaled to unit variance: scanpy's recipe.

    Genes by their dispersion (variance over mean of unlogged counts) within 20 bins of like mean, as Seurat's flavour;
    genes, centre, scale and rotation come from `train`; scaled values are cut at 10.
    """
    genes = _variable_genes(train)
    known, asked = _scaled(train, test, genes, align)
    size = min(_COMPONENTS, len(known) - 1, len(genes) - 1)
    rotation = PCA(size, svd_solver="arpack", random_state=seed).fit(known)
    scaler = StandardScaler().fit(rotation.transform(known))
    model = LogisticRegression(max_iter=1000, class_weight="balanced", C=1.0)
    model.fit(scaler.transform(rotation.transform(known)), labels)
    return _of(model, scaler.transform(rotation.transform(asked)))


def selected_logistic_regression(
    train: sparse.csr_matrix, labels: npt.NDArray[np.str_], test: sparse.csr_matrix, seed: int = 0, align: str = "none"
) -> BaselinePrediction:
    """Logistic regression on scaled genes in two rounds, in the manner of CellTypist (Dominguez Conde et al. 2022).

    A first fit on all genes picks the 300 of largest weight for each label; the second reads those alone.
    """
    seen = np.flatnonzero(train.getnnz(axis=0) >= 3)
    known, asked = _scaled(train, test, seen, align)
    first = LogisticRegression(max_iter=100, tol=1e-3, C=1.0).fit(known, labels)
    strongest = np.argsort(-np.abs(first.coef_), axis=1, kind="stable")[:, :300]
    chosen = np.unique(strongest)
    model = LogisticRegression(max_iter=300, C=1.0).fit(known[:, chosen], labels)
    return _of(model, asked[:, chosen])


def _variable_genes(counts: sparse.csr_matrix, n: int = 2000) -> npt.NDArray[np.int64]:
    """Columns of the genes whose dispersion stands out most among genes of like mean."""
    totals = np.asarray(counts.sum(axis=1)).ravel()
    scaled = sparse.csr_matrix(sparse.diags(_TARGET_SUM / np.maximum(totals, 1)) @ counts)
    genes = np.flatnonzero(counts.getnnz(axis=0) >= 3)
    mean = np.asarray(scaled.mean(axis=0)).ravel()[genes]
    square = np.asarray(scaled.multiply(scaled).mean(axis=0)).ravel()[genes]
    dispersion = np.log(np.maximum(square - mean**2, 1e-12) / mean)
    edges = np.quantile(mean, np.linspace(0, 1, 21)[1:-1])
    bins = np.digitize(mean, edges)
    standing = np.zeros(len(genes))
    for each in np.unique(bins):
        mine = bins == each
        spread = dispersion[mine].std()
        standing[mine] = (dispersion[mine] - dispersion[mine].mean()) / (spread if spread > 0 else 1.0)
    return np.sort(genes[np.argsort(-standing, kind="stable")[:n]])


def _scaled(
    train: sparse.csr_matrix, test: sparse.csr_matrix, genes: npt.NDArray[np.int64], align: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Log counts of some genes, scaled by the training cells (``align="center"``: each set by itself), cut at 10."""
    known, asked = log_counts(train)[:, genes].toarray(), log_counts(test)[:, genes].toarray()
    scaler = StandardScaler().fit(known)
    other = StandardScaler().fit(asked) if align == "center" else scaler
    return np.clip(scaler.transform(known), -10, 10), np.clip(other.transform(asked), -10, 10)


BASELINES: dict[str, Baseline] = {
    "majority": majority,
    "log counts + logistic regression": logistic_regression,
    "PCA + logistic regression": pca_logistic_regression,
    "PCA + nearest neighbours": pca_neighbours,
    "variable genes, scaled PCA + logistic regression": variable_pca_logistic_regression,
    "scaled genes + logistic regression, two rounds": selected_logistic_regression,
}


def _components(
    train: sparse.csr_matrix, test: sparse.csr_matrix, seed: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Principal components of log counts; centre and rotation come from `train`."""
    seen = np.flatnonzero(train.getnnz(axis=0) >= 3)
    known, asked = log_counts(train)[:, seen], log_counts(test)[:, seen]
    size = min(_COMPONENTS, train.shape[0] - 1, len(seen) - 1)
    rotation = PCA(size, svd_solver="arpack", random_state=seed).fit(known)
    return rotation.transform(known), rotation.transform(asked)


def _of(model: LogisticRegression | KNeighborsClassifier, cells: npt.ArrayLike) -> BaselinePrediction:
    shares = model.predict_proba(cells)
    best = shares.argmax(axis=1)
    parameters = model.coef_.size + model.intercept_.size if isinstance(model, LogisticRegression) else 0
    return BaselinePrediction(model.classes_[best].astype(str), shares[np.arange(len(best)), best], parameters)
