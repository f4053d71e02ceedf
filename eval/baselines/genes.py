"""Simple baselines for gene classification: what a gene's mean expression and detection rate already tell."""

import numpy as np
import numpy.typing as npt
from scipy import sparse
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
