"""Measures for inferred gene regulatory networks, as the BEELINE benchmark defines them.

Pratapa et al., Nature Methods 17, 147-154 (2020): every possible edge is ranked by the absolute weight that a method
gave it (0 where it gave none) and compared with a reference network, within the regulators and genes that both
expression data and reference know.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score


@dataclass(frozen=True)
class NetworkTruth:
    """A reference network restricted to what a method could have found.

    Parameters
    ----------
    regulators, targets
        Names of rows and columns.
    edges
        Boolean, (regulators, targets): the reference edges.
    possible
        Boolean, (regulators, targets): the edges that count. Self-edges do not.
    sign
        Int8, (regulators, targets): +1 activation, -1 repression, 0 unknown or no edge.
    """

    regulators: tuple[str, ...]
    targets: tuple[str, ...]
    edges: npt.NDArray[np.bool_]
    possible: npt.NDArray[np.bool_]
    sign: npt.NDArray[np.int8]

    @property
    def density(self) -> float:
        """Share of possible edges that are in the reference: what a random network scores."""
        return float(self.edges[self.possible].mean())

    @property
    def n_edges(self) -> int:
        """Number of reference edges that count."""
        return int(self.edges[self.possible].sum())


def restrict_truth(
    truth: pd.DataFrame,
    genes: Iterable[str],
    *,
    regulators: Iterable[str] | None = None,
    all_genes: bool = False,
    all_regulators: bool = False,
) -> NetworkTruth:
    """Restrict a reference network to measured genes, the way BEELINE does.

    Regulators are the reference's sources that are measured (and, where given, among `regulators`). Targets are the
    genes that occur in the restricted reference. Every regulator-target pair but self-edges is a possible edge.

    Parameters
    ----------
    truth
        Two columns, regulator and target, in this order; a third column ``Type`` of ``+`` and ``-`` is kept as sign.
    genes
        Genes that were measured and given to the method.
    regulators
        Regulators that the method was allowed to use; default all measured genes.
    all_genes
        Count pairs with every measured gene as a target, not only with those that the reference mentions.
    all_regulators
        Count pairs from every allowed regulator among those genes, not only from the reference's sources: BEELINE's
        way with simulated data, where a gene without targets is known to have none.

    Raises
    ------
    ValueError
        If nothing of the reference is left.

    Examples
    --------
    >>> edges = pd.DataFrame({"Gene1": ["A", "A", "X"], "Gene2": ["B", "C", "B"]})
    >>> restricted = restrict_truth(edges, ["A", "B", "C"])
    >>> restricted.regulators, restricted.n_edges, restricted.density
    (('A',), 2, 1.0)
    """
    measured = set(genes)
    allowed = measured if regulators is None else measured & set(regulators)
    source, target = truth.columns[:2]
    kept = truth[truth[source].isin(allowed) & truth[target].isin(measured) & (truth[source] != truth[target])]
    if kept.empty:
        raise ValueError(
            f"no reference edge joins an allowed regulator to a measured gene ({len(truth)} reference edges, "
            f"{len(measured)} genes, {len(allowed)} regulators): compare the spelling of gene names"
        )
    columns = tuple(sorted(measured if all_genes else set(kept[source]) | set(kept[target])))
    rows = tuple(sorted(allowed & set(columns) if all_regulators else set(kept[source])))
    row = pd.Index(rows).get_indexer(pd.Index(kept[source]))
    column = pd.Index(columns).get_indexer(pd.Index(kept[target]))
    edges = np.zeros((len(rows), len(columns)), dtype=bool)
    edges[row, column] = True
    sign = np.zeros(edges.shape, dtype=np.int8)
    if "Type" in kept:
        # an edge listed both ways is of unknown sign
        total = np.zeros(edges.shape, dtype=np.int64)
        np.add.at(total, (row, column), kept["Type"].map({"+": 1, "-": -1}).fillna(0).to_numpy().astype(np.int64))
        sign = np.sign(total).astype(np.int8)
    possible = np.asarray(rows)[:, None] != np.asarray(columns)[None, :]
    return NetworkTruth(rows, columns, edges, possible, sign)


def score_matrix(network: pd.DataFrame, truth: NetworkTruth) -> npt.NDArray[np.float64]:
    """Weights of an edge list on the grid of `truth`; 0 where the list has no edge.

    Parameters
    ----------
    network
        Columns ``regulator``, ``target``, ``weight``.
    """
    row = pd.Index(truth.regulators).get_indexer(pd.Index(network["regulator"]))
    column = pd.Index(truth.targets).get_indexer(pd.Index(network["target"]))
    known = (row >= 0) & (column >= 0)
    scores = np.zeros(truth.edges.shape)
    scores[row[known], column[known]] = network["weight"].abs().to_numpy()[known]
    return scores


def early_precision(scores: npt.ArrayLike, edges: npt.ArrayLike, *, k: int | None = None) -> float:
    """Precision among the top `k` edges; `k` is the number of true edges unless given.

    Edges tied with the last one that gets in all get in, and edges of weight 0 never do, as in BEELINE. A network
    without any edge scores 0.

    Examples
    --------
    >>> early_precision([0.9, 0.5, 0.1, 0.0], [True, False, True, False])
    0.5
    """
    scores, edges = np.asarray(scores, float), np.asarray(edges, bool)
    k = int(edges.sum()) if k is None else k
    if k < 1:
        raise ValueError("early precision needs at least one true edge, and k of 1 or more")
    positive = scores > 0
    if not positive.any():
        return 0.0
    cut = max(np.sort(scores)[::-1][min(k, len(scores)) - 1], scores[positive].min())
    return float(edges[scores >= cut].mean())


def network_scores(network: pd.DataFrame, truth: NetworkTruth) -> dict[str, float]:
    """Score an inferred network by BEELINE's measures.

    Parameters
    ----------
    network
        Columns ``regulator``, ``target``, ``weight`` (absolute values count).
    truth
        From `restrict_truth`.

    Returns
    -------
    dict
        ``auroc``; ``auprc``, the average precision; ``auprc_ratio``, that over the density of the reference (1 is
        random); ``auprc_trapezoid_ratio``, the same with BEELINE's linear interpolation, which rewards ties;
        ``early_precision``, ``early_precision_ratio``; ``early_precision_activation_ratio`` and
        ``..._repression_ratio`` where the reference has signs; ``density``, ``n_edges``, ``n_possible``,
        ``n_regulators``, ``n_targets``.

    Examples
    --------
    >>> truth = restrict_truth(pd.DataFrame({"Gene1": ["A"], "Gene2": ["B"]}), ["A", "B", "C"], all_genes=True)
    >>> network = pd.DataFrame({"regulator": ["A", "A"], "target": ["B", "C"], "weight": [0.9, 0.2]})
    >>> network_scores(network, truth)["auprc_ratio"]
    2.0
    """
    edges = truth.edges[truth.possible]
    scores = score_matrix(network, truth)[truth.possible]
    if edges.all():
        raise ValueError("every possible edge is in the reference: nothing to rank")
    precision, recall, _ = precision_recall_curve(edges, scores)
    auprc = float(average_precision_score(edges, scores))
    early = early_precision(scores, edges)
    result = {
        "auroc": float(roc_auc_score(edges, scores)),
        "auprc": auprc,
        "auprc_ratio": auprc / truth.density,
        "auprc_trapezoid_ratio": float(auc(recall, precision)) / truth.density,
        "early_precision": early,
        "early_precision_ratio": early / truth.density,
        "density": truth.density,
        "n_edges": float(truth.n_edges),
        "n_possible": float(truth.possible.sum()),
        "n_regulators": float(len(truth.regulators)),
        "n_targets": float(len(truth.targets)),
    }
    signs = truth.sign[truth.possible]
    for name, sign in (("activation", 1), ("repression", -1)):
        of_sign = edges & (signs == sign)
        if of_sign.any():
            # edges of the other sign are left out, so that finding them is neither reward nor fault
            counted = of_sign | ~edges
            value = early_precision(scores[counted], of_sign[counted])
            result[f"early_precision_{name}_ratio"] = value / float(of_sign[counted].mean())
    return result


def bootstrap_over_factors(
    network: pd.DataFrame, truth: NetworkTruth, *, n: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, float]:
    """Intervals of network scores when other regulators had been studied: whole regulators are drawn anew.

    Edges of one regulator stand or fall together, so the pairs are not independent observations.

    Parameters
    ----------
    network, truth
        As for `network_scores`.
    n
        Draws; those that hold no reference edge, or nothing else, are drawn again.
    level
        Coverage.

    Returns
    -------
    dict
        ``auroc_low``, ``auroc_high``, ``auprc_ratio_low``, ..., ``early_precision_ratio_high``; NaN with fewer than
        three regulators.
    """
    names = ("auroc", "auprc_ratio", "early_precision_ratio")
    grid, rng = score_matrix(network, truth), np.random.default_rng(seed)
    n_rows = len(truth.regulators)
    draws: list[tuple[float, ...]] = []
    for _ in range(3 * n if n_rows >= 3 else 0):
        rows = rng.integers(0, n_rows, n_rows)
        possible = truth.possible[rows]
        edges, scores = truth.edges[rows][possible], grid[rows][possible]
        if not edges.any() or edges.all():
            continue
        density = float(edges.mean())
        early = early_precision(scores, edges)
        draws.append(
            (float(roc_auc_score(edges, scores)), float(average_precision_score(edges, scores)) / density,
             early / density)
        )  # fmt: skip
        if len(draws) == n:
            break
    if not draws:
        return {f"{name}_{end}": float("nan") for name in names for end in ("low", "high")}
    low, high = np.quantile(np.asarray(draws), [(1 - level) / 2, (1 + level) / 2], axis=0)
    ends = {f"{name}_low": float(value) for name, value in zip(names, low, strict=True)}
    return ends | {f"{name}_high": float(value) for name, value in zip(names, high, strict=True)}


def precision_at_k(ranking: Iterable[str], positives: Iterable[str], k: int) -> float:
    """Share of the first `k` names of a ranking that are positives.

    Examples
    --------
    >>> precision_at_k(["A", "B", "C"], {"B", "Z"}, 2)
    0.5
    """
    if k < 1:
        raise ValueError(f"k must be 1 or more, not {k}")
    top = list(ranking)[:k]
    if not top:
        raise ValueError("the ranking is empty")
    wanted = set(positives)
    return sum(name in wanted for name in top) / len(top)
