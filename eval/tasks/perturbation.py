"""Do in-silico deletions find a factor's known targets? Beside a random list and a list by expression level."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ...inference.checkpoint import gene_table_of, load_checkpoint
from ...inference.networks.grn import log_expression
from ...inference.perturbation.cells import columns_of_genes, measured_genes, take_cells
from ...inference.perturbation.perturb import perturb
from ...tokenization.errors import InputError
from ...tokenization.tables import read_table
from ..baselines.network import by_level, random_precision
from ..metrics.network import precision_at_k


@dataclass
class DeletionBenchmark:
    """Precision of deletion effects against known targets.

    Parameters
    ----------
    factors
        One row per factor, ranking and k: ``factor``, ``ranking`` (``deletion``, ``expression_level``,
        ``correlation``), ``k``, ``precision``, ``random`` (the precision that a random list is expected to have),
        ``n_targets`` known among ``n_candidates``, and ``p``: of at least so many targets in a random list.
    absent
        Factors that the cells do not express.
    """

    factors: pd.DataFrame
    absent: list[str] = field(default_factory=list)

    def table(self) -> pd.DataFrame:
        """Mean over factors of each ranking and k, beside the random expectation."""
        grouped = self.factors.groupby(["ranking", "k"], sort=False)
        table = grouped.agg(
            factors=("factor", "nunique"), precision=("precision", "mean"), random=("random", "mean")
        ).reset_index()
        return table.assign(ratio=table["precision"] / table["random"])

    def record(self) -> dict[str, Any]:
        """Scores as JSON, in the rows that model cards read; a random list stands beside each ranking."""
        rows = []
        for row in self.table().to_dict("records"):
            common = {"dataset": f"known targets of {row['factors']} factors", "metric": f"precision at {row['k']}"}
            method = {"deletion": "this model, deletion"}.get(row["ranking"], row["ranking"])
            ours = row["ranking"] == "deletion"
            rows.append({**common, "method": method, "mean": float(row["precision"]), "ours": ours})
            if ours:
                rows.append({**common, "method": "random list", "mean": float(row["random"]), "ours": False})
        return {"task": "perturbation", "absent": self.absent, "rows": rows}


def read_targets(path: str | os.PathLike[str]) -> dict[str, set[str]]:
    """Known targets of each factor: two-column table (CSV, or TSV as TRRUST), or DoRothEA's with confidences A to C.

    Raises
    ------
    InputError
        If there is no such file or it names no pair.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such table of targets")
    separator = "\t" if ".tsv" in path.name else ","
    header = read_table(path, sep=separator, nrows=0).columns
    if {"tf", "target"} <= set(header):
        table = read_table(path, sep=separator)
        if "confidence" in table:
            table = table[table["confidence"].isin(["A", "B", "C"])]
        pairs = table[["tf", "target"]]
    else:
        named = {name.lower() for name in map(str, header)} & {"gene1", "regulator", "tf"}
        pairs = read_table(path, sep=separator, header=0 if named else None).iloc[:, :2]
    pairs = pairs.dropna().astype(str)
    if pairs.empty:
        raise InputError(f"{path}: names no factor with a target")
    return {str(factor): set(group.iloc[:, 1]) for factor, group in pairs.groupby(pairs.columns[0])}


def benchmark_deletions(
    adata: Any,
    model: Any,
    targets: dict[str, set[str]],
    *,
    species: str,
    gene_species: str | None = None,
    factors: Sequence[str] | None = None,
    processor: Any = None,
    ks: Sequence[int] = (10, 20, 50),
    min_targets: int = 10,
    min_cells: int = 10,
    cells: Any = None,
    max_cells: int | None = None,
    n_null: int = 30,
    max_factors: int = 20,
    device: str | None = None,
    max_tokens: int = 16384,
    bf16: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> DeletionBenchmark:
    """Delete each factor and see whether the genes that change most are its known targets.

    Genes are ranked by the distance of their contextual embedding's shift from the shift under matched random
    deletions. Candidates are all genes that at least `min_cells` cells express, without the factor.

    Parameters
    ----------
    targets
        Known targets of each factor, for example from `read_targets`.
    factors
        Default: the `max_factors` with the most known targets among the candidates.
    ks
        Lengths of the list.
    min_targets
        Factors with fewer known targets among the candidates are left out.
    device, max_tokens, bf16
        As for `perturb`.
    """
    _, processor = load_checkpoint(model, processor=processor, device=device)
    taken = take_cells(
        adata, gene_table_of(processor), species=species, gene_species=gene_species, cells=cells, max_cells=max_cells,
        seed=seed,
    )  # fmt: skip
    columns = taken.expressed(min_cells)
    names = [str(taken.names[c]) for c in columns]
    here, absent = measured_genes(factors if factors is not None else list(targets), taken)
    known = {factor: (targets.get(factor, set()) & set(names)) - {factor} for factor in here if factor in set(names)}
    usable = sorted((f for f in known if len(known[f]) >= min_targets), key=lambda f: (-len(known[f]), f))
    if not usable:
        raise InputError(f"no factor has {min_targets} known targets among the {len(names)} genes of these cells")
    usable = usable[:max_factors]
    expression = log_expression(taken, columns)
    result = perturb(
        adata, model, usable, species=species, gene_species=gene_species, processor=processor, cells=taken.rows,
        targets=names, n_null=n_null, min_cells=3, device=device, max_tokens=max_tokens, bf16=bf16, seed=seed,
        progress=progress,
    )  # fmt: skip
    assert result.genes is not None
    shifts = result.genes.query("readout == 'gene_cosine'")
    rows: list[dict[str, Any]] = []
    for factor in usable:
        mine = shifts[shifts["perturbation"] == str(taken.names[columns_of_genes([factor], taken)[0]])]
        ranked = mine.sort_values("effect_size", ascending=False, na_position="last")["target"].tolist()
        # a list may only hold genes for which the deletion could be read
        candidates = [name for name in ranked if name != factor]
        place = {name: index for index, name in enumerate(names)}
        index = [place[name] for name in candidates]
        own = expression[:, place[factor]]
        correlation = np.nan_to_num([abs(stats.spearmanr(own, expression[:, i]).statistic) for i in index])
        rankings = {
            "deletion": candidates,
            "expression_level": by_level(expression[:, index].mean(axis=0), candidates),
            "correlation": by_level(correlation, candidates),
        }
        positives = known[factor] & set(candidates)
        rows += [
            _row(factor, name, k, ranking, positives) for name, ranking in rankings.items() for k in ks
            if k <= len(candidates)
        ]  # fmt: skip
    return DeletionBenchmark(pd.DataFrame(rows), absent)


def _row(factor: str, name: str, k: int, ranking: list[str], positives: set[str]) -> dict[str, Any]:
    precision = precision_at_k(ranking, positives, k)
    hits = round(precision * k)
    return {
        "factor": factor,
        "ranking": name,
        "k": k,
        "precision": precision,
        "random": random_precision(len(positives), len(ranking)),
        "n_targets": len(positives),
        "n_candidates": len(ranking),
        "p": float(stats.hypergeom.sf(hits - 1, len(ranking), len(positives), k)),
    }
