"""Scores of an embedding without training: neighbours, clusters, batches.

`neighbour_agreement` needs scikit-learn alone. The others are scib-metrics' (Luecken et al. 2022), an extra:
``pip install "genecompass[metrics]"``.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import NearestNeighbors

from ._checks import as_labels, same_length


def neighbour_agreement(embedding: npt.ArrayLike, labels: npt.ArrayLike, *, k: int = 15) -> float:
    """Mean share of a cell's nearest neighbours that carry its label, averaged by label so that rare ones count.

    Parameters
    ----------
    embedding
        Cells x dimensions.
    labels
        One a cell.
    k
        Neighbours, the cell itself left out.

    Raises
    ------
    ValueError
        Lengths differ or there are not more than `k` cells.

    Examples
    --------
    >>> neighbour_agreement([[0.0], [0.1], [9.0], [9.1]], ["B", "B", "T", "T"], k=1)
    1.0
    """
    points = np.asarray(embedding, dtype=float)
    n = same_length(embedding=points, labels=labels)
    if n <= k:
        raise ValueError(f"{n} cells are too few for {k} neighbours each; lower k")
    names = as_labels(labels, "labels")
    neighbours = NearestNeighbors(n_neighbors=k + 1).fit(points).kneighbors(return_distance=False)
    same = names[neighbours[:, :k]] == names[:, None]
    return float(np.mean([same[names == name].mean() for name in np.unique(names)]))


def scib_scores(
    embedding: npt.ArrayLike, labels: npt.ArrayLike, batches: npt.ArrayLike | None = None, *, seed: int = 0
) -> dict[str, float]:
    """Cluster and batch scores of scib-metrics, all scaled so that higher is better.

    Parameters
    ----------
    embedding
        Cells x dimensions.
    labels
        Cell type by cell.
    batches
        Batch (donor, plate, species) by cell; without it, or with one batch only, the batch scores are left out.
    seed
        Of the k-means clustering.

    Returns
    -------
    dict
        ``nmi_kmeans``, ``ari_kmeans``, ``silhouette_label``, and with batches ``silhouette_batch``, ``ilisi``,
        ``clisi``, ``graph_connectivity``.

    Raises
    ------
    ImportError
        scib-metrics is not installed.

    Examples
    --------
    >>> points = np.random.default_rng(0).normal(size=(60, 4)) + np.repeat([[0], [9]], 30, axis=0)
    >>> scib_scores(points, ["B"] * 30 + ["T"] * 30)["ari_kmeans"] > 0.99  # doctest: +SKIP
    True
    """
    try:
        import scib_metrics
    except ImportError as error:
        raise ImportError('cluster and batch scores need scib-metrics: pip install "genecompass[metrics]"') from error
    points = np.asarray(embedding, dtype=np.float32)
    n = same_length(embedding=points, labels=labels)
    names = as_labels(labels, "labels")
    clusters = scib_metrics.nmi_ari_cluster_labels_kmeans(points, names)
    scores: dict[str, Any] = {
        "nmi_kmeans": clusters["nmi"],
        "ari_kmeans": clusters["ari"],
        "silhouette_label": scib_metrics.silhouette_label(points, names),
    }
    if batches is not None and len(np.unique(as_labels(batches, "batches"))) > 1:
        groups = as_labels(batches, "batches")
        neighbours = scib_metrics.nearest_neighbors.pynndescent(points, n_neighbors=min(90, n - 1), random_state=seed)
        scores["silhouette_batch"] = scib_metrics.silhouette_batch(points, names, groups)
        scores["ilisi"] = scib_metrics.ilisi_knn(neighbours, groups)
        scores["clisi"] = scib_metrics.clisi_knn(neighbours, names)
        scores["graph_connectivity"] = scib_metrics.graph_connectivity(neighbours.subset_neighbors(15), names)
    return {name: float(value) for name, value in scores.items()}
