"""What an inferred network looks like: a table of edges, its files, and a drawing."""

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse, stats

from ...tokenization.errors import InputError
from ...tokenization.files import atomic_path
from ...tokenization.tables import read_table

COLUMNS = ("regulator", "target", "weight", "sign", "evidence")
FORMATS = (".csv", ".tsv", ".parquet", ".graphml", ".gexf")


def edges_from_matrix(
    scores: npt.ArrayLike,
    regulators: Sequence[str],
    targets: Sequence[str],
    *,
    evidence: str,
    signed: bool,
    threshold: float | None = None,
    top_k: int | None = None,
) -> pd.DataFrame:
    """Turn a matrix of scores into edges, the heaviest first.

    Parameters
    ----------
    scores
        (regulators, targets). NaN means not measured; such pairs and self-edges are left out.
    regulators, targets
        Names of rows and columns.
    evidence
        How the edge was found, for example ``"correlation"``.
    signed
        Whether the sign of a score says activation or repression. If not, ``sign`` is 0.
    threshold
        Keep edges of at least this weight.
    top_k
        Keep this many targets for every regulator. Ties go by name of the target.

    Returns
    -------
    pandas.DataFrame
        ``regulator``, ``target``, ``weight`` (>= 0), ``sign`` (-1, 0 or 1), ``evidence``.

    Examples
    --------
    >>> edges = edges_from_matrix([[0.0, -0.8]], ["A"], ["A", "B"], evidence="correlation", signed=True)
    >>> edges.to_dict("list")
    {'regulator': ['A'], 'target': ['B'], 'weight': [0.8], 'sign': [-1], 'evidence': ['correlation']}
    """
    matrix = np.asarray(scores, dtype=np.float64)
    if matrix.shape != (len(regulators), len(targets)):
        raise ValueError(
            f"scores are {matrix.shape}, but there are {len(regulators)} regulators, {len(targets)} targets"
        )
    names_of_rows, names_of_columns = np.asarray(regulators, dtype=object), np.asarray(targets, dtype=object)
    keep = np.isfinite(matrix) & (names_of_rows[:, None] != names_of_columns[None, :])
    if threshold is not None:
        keep &= np.abs(matrix) >= threshold
    row, column = np.nonzero(keep)
    values = matrix[row, column]
    edges = pd.DataFrame(
        {
            "regulator": names_of_rows[row],
            "target": names_of_columns[column],
            "weight": np.abs(values),
            "sign": np.sign(values).astype(np.int8) if signed else np.zeros(len(values), np.int8),
            "evidence": evidence,
        }
    )
    edges = edges.sort_values(["weight", "regulator", "target"], ascending=[False, True, True], ignore_index=True)
    if top_k is not None:
        edges = edges.groupby("regulator", sort=False).head(top_k).reset_index(drop=True)
    return edges


def _networkx() -> Any:
    try:
        return import_module("networkx")
    except ImportError as error:
        raise ImportError('graphs need networkx: pip install "genecompass[perturbation]"') from error


def to_graph(edges: pd.DataFrame) -> Any:
    """Directed networkx graph with ``weight``, ``sign`` and ``evidence`` on its edges.

    Examples
    --------
    >>> edges = edges_from_matrix([[0.5]], ["A"], ["B"], evidence="random", signed=False)
    >>> to_graph(edges).number_of_edges()
    1
    """
    graph = _networkx().DiGraph()
    columns = (edges[name].tolist() for name in COLUMNS)
    for regulator, target, weight, sign, evidence in zip(*columns, strict=True):
        graph.add_edge(str(regulator), str(target), weight=float(weight), sign=int(sign), evidence=str(evidence))
    for name in set(edges["regulator"].astype(str)):
        graph.nodes[name]["regulator"] = True
    for name in graph.nodes:
        graph.nodes[name].setdefault("regulator", False)
    return graph


def write_network(edges: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write edges, atomically, as what the ending says: .csv, .tsv, .parquet, .graphml or .gexf.

    Raises
    ------
    InputError
        For any other ending, before anything is written.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise InputError(f"{path}: cannot write a network as {path.suffix or 'this'}; use one of {', '.join(FORMATS)}")
    graph = to_graph(edges) if path.suffix in (".graphml", ".gexf") else None
    with atomic_path(path) as temporary:
        if path.suffix == ".parquet":
            edges.to_parquet(temporary, index=False)
        elif path.suffix in (".csv", ".tsv"):
            edges.to_csv(temporary, index=False, sep="," if path.suffix == ".csv" else "\t")
        elif path.suffix == ".graphml":
            _networkx().write_graphml(graph, temporary)
        else:
            _networkx().write_gexf(graph, temporary)


def read_network(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read edges that `write_network` wrote as .csv, .tsv or .parquet."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix == ".parquet":
        edges = pd.read_parquet(path)
    else:
        edges = read_table(path, sep="\t" if path.suffix == ".tsv" else ",", keep_default_na=False)
    missing = [name for name in COLUMNS[:3] if name not in edges]
    if missing:
        raise InputError(f"{path}: a network needs the columns regulator, target and weight; {missing[0]!r} is missing")
    return edges


def store_network(adata: Any, edges: pd.DataFrame, *, key: str = "genecompass_grn", parameters: dict[str, Any]) -> None:
    """Put edges and how they were made into ``adata.uns[key]``, signed weights into ``adata.varp[key]`` (from, to)."""
    adata.uns[key] = {"edges": edges.copy(), "parameters": {name: str(value) for name, value in parameters.items()}}
    names = pd.Index(adata.var_names)
    if not names.is_unique:
        return
    row, column = names.get_indexer(pd.Index(edges["regulator"])), names.get_indexer(pd.Index(edges["target"]))
    known = (row >= 0) & (column >= 0)
    weights = as_sources(edges)["weight"].to_numpy()[known]
    adata.varp[key] = sparse.csr_matrix((weights, (row[known], column[known])), shape=(len(names), len(names)))


def as_sources(edges: pd.DataFrame) -> pd.DataFrame:
    """Edges as ``source``, ``target``, ``weight``, as decoupler reads networks; repression has a negative weight.

    Examples
    --------
    >>> edges = edges_from_matrix([[0.0, -0.8]], ["A"], ["A", "B"], evidence="correlation", signed=True)
    >>> as_sources(edges).to_dict("list")
    {'source': ['A'], 'target': ['B'], 'weight': [-0.8]}
    """
    weight = edges["weight"] * np.where(edges["sign"] < 0, -1.0, 1.0)
    return pd.DataFrame({"source": edges["regulator"], "target": edges["target"], "weight": weight})


def overlap(
    scores: npt.NDArray[np.float64], others: npt.NDArray[np.float64], counted: npt.NDArray[np.bool_]
) -> dict[str, float]:
    """How much two networks of the same pairs agree.

    Parameters
    ----------
    scores, others
        (regulators, targets); larger is stronger, NaN not measured.
    counted
        Pairs that count.

    Returns
    -------
    dict
        ``n``: a tenth of the pairs; ``shared``: the part of both networks' `n` strongest that is in both; ``chance``:
        what two random networks share; ``spearman`` over all pairs.

    Examples
    --------
    >>> overlap(np.eye(4), np.eye(4), np.ones((4, 4), bool))["shared"]
    1.0
    """
    both = counted & np.isfinite(scores) & np.isfinite(others)
    a, b = scores[both], others[both]
    if not len(a):
        return {}
    n = max(1, len(a) // 10)
    strongest = [set(np.argsort(-x, kind="stable")[:n].tolist()) for x in (a, b)]
    varies = len(a) > 1 and np.ptp(a) > 0 and np.ptp(b) > 0
    return {
        "n": n,
        "shared": len(strongest[0] & strongest[1]) / n,
        "chance": n / len(a),
        "spearman": float(stats.spearmanr(a, b).statistic) if varies else float("nan"),
    }


def draw_regulator(
    edges: pd.DataFrame, regulator: str, path: str | os.PathLike[str], *, top_k: int = 20, seed: int = 0
) -> None:
    """Draw a regulator with its strongest targets; red activates, blue represses, grey is of unknown sign.

    Parameters
    ----------
    edges
        A network; edges among the drawn targets are drawn too, lighter.
    regulator
        Its name; unknown is an `InputError`.
    path
        ``.png``, ``.svg`` or ``.pdf``.
    top_k
        How many targets to show.
    seed
        Of the layout.
    """
    networkx = _networkx()
    mine = edges[edges["regulator"] == regulator].nlargest(top_k, "weight")
    if mine.empty:
        known = ", ".join(sorted(set(edges["regulator"].astype(str)))[:5])
        raise InputError(f"regulator {regulator!r} has no edge in this network; it has {known}, ...")
    figure_module = import_module("matplotlib.figure")
    names = {regulator, *mine["target"]}
    among = edges[edges["regulator"].isin(names) & edges["target"].isin(names)]
    graph = to_graph(among)
    layout = networkx.spring_layout(graph, seed=seed, weight=None)
    figure = figure_module.Figure(figsize=(7, 6), layout="constrained")
    axes = figure.add_subplot()
    largest = max(float(mine["weight"].max()), 1e-12)
    colour = {1: "#c0392b", -1: "#2166ac", 0: "#7f8c8d"}
    own = [(a, b) for a, b in graph.edges if a == regulator]
    other = [(a, b) for a, b in graph.edges if a != regulator]
    for pairs, strength in ((other, 0.25), (own, 0.9)):
        networkx.draw_networkx_edges(
            graph,
            layout,
            edgelist=pairs,
            ax=axes,
            alpha=strength,
            width=[0.5 + 3 * graph.edges[pair]["weight"] / largest for pair in pairs],
            edge_color=[colour[graph.edges[pair]["sign"]] for pair in pairs],
            arrowsize=9,
        )
    face = ["#f4d03f" if name == regulator else "#ecf0f1" for name in graph.nodes]
    networkx.draw_networkx_nodes(graph, layout, ax=axes, node_size=650, node_color=face, edgecolors="#555555")
    networkx.draw_networkx_labels(graph, layout, ax=axes, font_size=8)
    axes.set_axis_off()
    axes.set_title(f"{regulator}: {len(mine)} strongest targets ({mine['evidence'].iloc[0]})")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)
