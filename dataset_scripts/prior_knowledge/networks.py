"""GRN prior: weighted, signed edge lists of any number of networks to gene vectors."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from ...tokenization.errors import InputError
from ...tokenization.gene_table import GeneTable
from ...tokenization.tables import read_table
from .gene2vec import Gene2VecSettings, Pairs, vectors_of_all_species
from .gene_names import match_names
from .tables import Missing, PriorTable, assemble, source_record, versions_of

# what published networks call their columns, lower-cased
_TF = ("tf", "regulator", "source", "gene1", "source_genesymbol")
_TARGET = ("target", "tg", "gene", "gene2", "target_genesymbol")
_WEIGHT = ("weight", "score", "importance")
_SIGN = ("sign", "mor", "mode", "effect", "is_stimulation")
_CONFIDENCE = ("confidence", "level")
_SIGN_WORDS = {"activation": 1, "repression": -1, "unknown": 0, "stimulation": 1, "inhibition": -1, "+": 1, "-": -1}

EdgeWeight = Literal["frequency", "weight"]


@dataclass(frozen=True)
class NetworkSource:
    """One edge list: a file, its species, and how to read it.

    Parameters
    ----------
    path
        TSV or CSV, plain or gzip: DoRothEA, TRRUST (no header), CollecTRI, PECA2 output, BEELINE, or any file
        with a column for the factor and one for the target.
    species
        Whose genes these are.
    columns
        Where names differ from the usual ones: ``{"tf": ..., "target": ..., "weight": ..., "sign": ...}``.
    confidence
        Keep these values of the confidence column only; None keeps all.
    ignore_case
        See `match_names`.
    """

    path: str | os.PathLike[str]
    species: str
    columns: dict[str, str] | None = None
    confidence: Sequence[str] | None = None
    ignore_case: bool = False


def read_network(source: NetworkSource, table: GeneTable) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read one edge list and find its genes.

    Returns
    -------
    edges
        ``tf``, ``target`` (own tokens), ``weight`` (> 0, mean 1 over the network), ``sign`` (-1, 0, 1); one row
        per edge.
    report
        Edges read and kept, and how the names matched.

    Raises
    ------
    InputError
        If the file has no known columns or no usable edge, or its genes are not of this species.
    """
    raw, columns = _read_columns(source)
    rows = len(raw)
    if source.confidence is not None:
        if "confidence" not in columns:
            raise InputError(f"{source.path}: no confidence column among {', '.join(map(str, raw.columns))}")
        raw = raw[raw[columns["confidence"]].isin(list(source.confidence))]
        if raw.empty:
            raise InputError(f"{source.path}: no edge of confidence {', '.join(source.confidence)}")
    weight = pd.Series(1.0, index=raw.index)
    if "weight" in columns:
        weight = pd.to_numeric(raw[columns["weight"]], errors="coerce")
        if weight.isna().any():
            row = int(np.flatnonzero(weight.isna())[0]) + 1
            raise InputError(f"{source.path}: {columns['weight']!r} of edge {row} is not a number")
    sign = _signs(raw[columns["sign"]]) if "sign" in columns else -(weight < 0).astype(int)

    names = pd.concat([raw[columns["tf"]], raw[columns["target"]]])
    matched = match_names(names, table, source.species, ignore_case=source.ignore_case, where=str(source.path))
    edges = pd.DataFrame(
        {
            "tf": matched.tokens[: len(raw)],
            "target": matched.tokens[len(raw) :],
            "weight": weight.abs().to_numpy(),
            "sign": sign.to_numpy(),
        }
    )
    edges = edges[(edges.tf >= 0) & (edges.target >= 0) & (edges.tf != edges.target) & (edges.weight > 0)]
    if edges.empty:
        raise InputError(f"{source.path}: no edge between two {source.species} genes of this vocabulary")
    edges = edges.groupby(["tf", "target"], as_index=False).agg({"weight": "max", "sign": "sum"})
    edges["sign"] = np.sign(edges["sign"])
    edges["weight"] /= edges["weight"].mean()
    report = {"edges": rows, "kept": len(edges), "factors": int(edges.tf.nunique()), "genes": matched.report}
    return edges, report


def _read_columns(source: NetworkSource, rows: int | None = None) -> tuple[pd.DataFrame, dict[str, str]]:
    """Read the file as text; say which column is what."""
    path = Path(source.path)
    if not path.is_file():
        raise InputError(f"{path}: no such network file")
    separator = "," if ".csv" in path.name else "\t"
    try:
        raw = read_table(path, sep=separator, dtype=str, keep_default_na=False, nrows=rows)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, EOFError) as error:
        raise InputError(f"{path}: not a readable edge list ({error})") from error
    if not source.columns and raw.shape[1] >= 3 and str(raw.columns[2]).lower() in _SIGN_WORDS:
        # TRRUST as published has no header: factor, target, mode, PubMed ids
        raw = read_table(path, sep=separator, dtype=str, keep_default_na=False, header=None, nrows=rows)
        raw.columns = ["tf", "target", "mode", *map(str, raw.columns[3:])]

    given = source.columns or {}
    absent = [name for name in given.values() if name not in raw.columns]
    if absent:
        raise InputError(f"{path}: no column {absent[0]!r}; there are {', '.join(map(str, raw.columns))}")
    by_lower = {str(column).lower(): column for column in raw.columns}
    known = {"tf": _TF, "target": _TARGET, "weight": _WEIGHT, "sign": _SIGN, "confidence": _CONFIDENCE}
    columns = {role: by_lower[name] for role, names in known.items() for name in reversed(names) if name in by_lower}
    columns.update(given)
    if "tf" not in columns or "target" not in columns:
        raise InputError(
            f"{path}: cannot tell factor and target among the columns {', '.join(map(str, raw.columns))}; "
            "name them: columns tf=..., target=..."
        )
    return raw, columns


def has_confidence(path: str | os.PathLike[str]) -> bool:
    """Whether an edge list has a column of confidence levels."""
    return "confidence" in _read_columns(NetworkSource(path, ""), rows=5)[1]


def _signs(column: pd.Series) -> pd.Series:
    words = column.str.lower().map(_SIGN_WORDS)
    numbers = np.sign(pd.to_numeric(column, errors="coerce"))
    return words.fillna(numbers).fillna(0).astype(int)


def pool_networks(networks: Sequence[pd.DataFrame], weight: EdgeWeight = "frequency") -> pd.DataFrame:
    """Pool the networks of one species: an edge counts as often as networks have it.

    Parameters
    ----------
    networks
        As `read_network` gives them.
    weight
        ``frequency``: the number of networks with the edge. ``weight``: the sum of its weights over networks, each
        network's mean weight being 1.

    Returns
    -------
    DataFrame
        ``tf``, ``target``, ``weight``, ``sign`` (of the sum of signs), ``networks``.
    """
    if weight not in ("frequency", "weight"):
        raise InputError(f"edge weight {weight!r} is not known; choose frequency or weight")
    together = pd.concat(networks, ignore_index=True)
    pooled = together.groupby(["tf", "target"], as_index=False).agg(
        weight=("weight", "sum"), sign=("sign", "sum"), networks=("sign", "size")
    )
    pooled["sign"] = np.sign(pooled["sign"])
    if weight == "frequency":
        pooled["weight"] = pooled["networks"].astype(float)
    return pooled


def edge_pairs(edges: pd.DataFrame, *, signed: bool = False) -> Pairs:
    """Edges as gene pairs for gene2vec."""
    return Pairs(
        edges["tf"].to_numpy(np.int64),
        edges["target"].to_numpy(np.int64),
        edges["weight"].to_numpy(np.float64),
        edges["sign"].to_numpy(np.int64) if signed else None,
    )


def read_edges(
    sources: Sequence[NetworkSource], table: GeneTable, weight: EdgeWeight = "frequency"
) -> tuple[dict[str, pd.DataFrame], list[dict[str, Any]]]:
    """Read and pool all networks, species by species.

    Returns
    -------
    edges
        Species -> pooled edges, see `pool_networks`.
    records
        One per source: file, checksum, species, what was kept.
    """
    if not sources:
        raise InputError("GRN: no network given")
    networks: dict[str, list[pd.DataFrame]] = {}
    records = []
    for source in sources:
        edges, report = read_network(source, table)
        networks.setdefault(source.species, []).append(edges)
        confidence = list(source.confidence) if source.confidence else None
        records.append(source_record(source.path, species=source.species, confidence=confidence, **report))
    return {species: pool_networks(parts, weight) for species, parts in networks.items()}, records


def build_grn(
    sources: Sequence[NetworkSource],
    table: GeneTable,
    *,
    settings: Gene2VecSettings | None = None,
    weight: EdgeWeight = "frequency",
    signed: bool = False,
    align: bool = True,
    missing: Missing = "zero",
    dtype: Literal["float32", "float16"] = "float32",
) -> PriorTable:
    """Build the GRN table from edge lists.

    Parameters
    ----------
    sources
        Networks; several per species are pooled, for example one per cell type.
    table
        The vocabulary.
    settings
        Of gene2vec; ``sentences="walks"`` reads walks over the network in place of edges.
    weight
        See `pool_networks`.
    signed
        Keep activation and repression apart (pairs only).
    align
        See `vectors_of_all_species`.
    missing, dtype
        See `assemble`.

    Returns
    -------
    PriorTable

    Examples
    --------
    >>> table = GeneTable.read("genes.parquet")                                          # doctest: +SKIP
    >>> prior = build_grn([NetworkSource("collectri.tsv", "human")], table)              # doctest: +SKIP
    """
    settings = settings or Gene2VecSettings()
    edges, records = read_edges(sources, table, weight)
    pairs = {species: edge_pairs(pooled, signed=signed) for species, pooled in edges.items()}
    tokens, vectors, learned = vectors_of_all_species(pairs, table, settings, align=align)
    metadata = {
        "method": "gene2vec over regulatory edges",
        "sources": records,
        "settings": {**settings.record(), "edge_weight": weight, "signed": signed, "align": align},
        "species": learned,
        "versions": versions_of("gensim"),
    }
    return assemble("grn", tokens, vectors, table, missing=missing, seed=settings.seed, dtype=dtype, metadata=metadata)
