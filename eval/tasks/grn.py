"""Network inference measured as BEELINE does: simulated data with a known network, and real cells with references.

Regulators and genes are restricted as BEELINE restricts them, training has a length fixed beforehand, and every method
that draws at random runs with several seeds. No choice is ever made by the reference.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from ...inference.checkpoint import gene_table_of, load_checkpoint
from ...inference.networks.edges import edges_from_matrix
from ...inference.networks.grn import (
    EXPRESSION_METHODS,
    MODEL_METHODS,
    expression_scores,
    infer_grn,
    log_expression,
    network_genes,
)
from ...inference.perturbation.cells import take_cells
from ...tokenization.errors import InputError
from ...tokenization.gene_table import GeneTable
from ...tokenization.tables import read_table
from ..baselines.network import expression_level_network
from ..metrics.network import NetworkTruth, bootstrap_over_factors, network_scores, restrict_truth
from .summary import long_rows

SEEDED = frozenset(
    {
        "genie3",
        "extra_trees",
        "grnboost2",
        "random",
        "structural_vae",
        "structural_vae_started",
        "structural_vae_masked",
    }
)
# draws of regulators behind each interval
BOOTSTRAP = 200
MEASURES = ("auroc", "auprc_ratio", "auprc_trapezoid_ratio", "early_precision_ratio")


@dataclass
class GrnBenchmark:
    """Scores of every method on every reference.

    Parameters
    ----------
    runs
        One row per data set, reference, method and seed: all measures.
    settings
        What was fixed beforehand.
    """

    runs: pd.DataFrame
    settings: dict[str, Any] = field(default_factory=dict)

    def table(self) -> pd.DataFrame:
        """Mean and standard deviation over seeds of each method, the best early precision first."""
        keys = ["data", "reference", "method"]
        columns = [str(name) for name in self.runs]
        ends = ("_low", "_high")
        measures = [
            name for name in columns if name in MEASURES or name.startswith("early_precision_") or name.endswith(ends)
        ]
        grouped = self.runs.groupby(keys, sort=False)
        means = grouped[measures].mean()
        spread = grouped[measures].std(ddof=1).add_suffix("_sd")
        counts = grouped.size().rename("seeds")
        table = pd.concat([means, spread, counts], axis=1).reset_index()
        return table.sort_values(["data", "reference", "auprc_ratio"], ascending=[True, True, False], ignore_index=True)

    def record(self) -> dict[str, Any]:
        """Settings and scores as JSON, in the rows that model cards read."""
        table = self.table()
        table["dataset"] = table["data"] + " against " + table["reference"]
        shown = ("auroc", "auprc_ratio", "early_precision_ratio")
        # one run has no spread
        table = table.rename(columns={name: f"{name}_mean" for name in shown}).fillna(
            {f"{name}_sd": 0.0 for name in shown}
        )
        rows = long_rows(table, dataset="dataset", metrics=shown, ours=MODEL_METHODS)
        return {"task": "grn", "settings": self.settings, "rows": rows}


def read_reference(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Reference network from a CSV whose first two columns are regulator and target, as BEELINE's files.

    Raises
    ------
    InputError
        If there is no such file, or it has fewer than two columns.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such reference network")
    table = read_table(path, keep_default_na=False)
    if table.shape[1] < 2:
        raise InputError(f"{path}: a reference network needs two columns, regulator and target")
    return table


def beeline_simulated(
    expression: str | os.PathLike[str],
    reference: str | os.PathLike[str],
    *,
    methods: Sequence[str] = EXPRESSION_METHODS,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    n_trees: int = 500,
    n_jobs: int = 1,
) -> GrnBenchmark:
    """Every method on one simulated BEELINE data set.

    Parameters
    ----------
    expression
        CSV of genes by cells, as BEELINE keeps them.
    reference
        CSV of the network behind it; a third column ``Type`` (``+`` / ``-``) adds signed early precision.
    methods
        Of `inference.grn.EXPRESSION_METHODS`.
    seeds
        For the methods that draw at random.
    n_trees
        Of the tree ensembles.

    Examples
    --------
    >>> benchmark = beeline_simulated("GSD/ExpressionData.csv", "GSD/refNetwork.csv")  # doctest: +SKIP
    >>> benchmark.table()[["method", "auprc_ratio", "early_precision_ratio"]]  # doctest: +SKIP
    """
    unknown = [method for method in methods if method not in EXPRESSION_METHODS]
    if unknown:
        raise InputError(f"{unknown[0]!r} is not a method on expression; use some of {', '.join(EXPRESSION_METHODS)}")
    if not Path(expression).is_file():
        raise InputError(f"{expression}: no such expression table")
    X = read_table(expression, index_col=0).T
    genes = [str(name) for name in X.columns]
    truth = restrict_truth(read_reference(reference), genes, all_genes=True, all_regulators=True)
    every = range(len(genes))
    runs = []
    for method in methods:
        for seed in seeds if method in SEEDED else seeds[:1]:
            scores, signed = expression_scores(
                X.to_numpy(), every, every, method, n_trees=n_trees, seed=seed, n_jobs=n_jobs
            )
            edges = edges_from_matrix(scores, genes, genes, evidence=method, signed=signed is not None)
            runs.append(_run(Path(expression).name, Path(reference).name, method, seed, edges, truth))
    return GrnBenchmark(pd.DataFrame(runs), {"seeds": list(seeds), "genes": len(genes), "cells": len(X)})


def beeline_cells(
    adata: Any,
    references: Mapping[str, str | os.PathLike[str]],
    *,
    species: str,
    gene_species: str | None = None,
    model: Any = None,
    processor: Any = None,
    gene_table: GeneTable | None = None,
    regulators: str | os.PathLike[str] | Sequence[str] | None = None,
    methods: Sequence[str] = ("similarity", *EXPRESSION_METHODS),
    name: str = "cells",
    cells: Any = None,
    max_cells: int | None = None,
    n_variable: int = 500,
    min_share: float = 0.1,
    seeds: Sequence[int] = (0, 1, 2),
    n_trees: int = 100,
    **options: Any,
) -> GrnBenchmark:
    """Every method on real cells against reference networks.

    Genes are the transcription factors that at least `min_share` of the cells express and the `n_variable` most
    variable others, much as BEELINE chooses them. A reference is restricted to these; its own sources alone are
    regulators; names are compared in capitals, as BEELINE's mouse networks have them.

    Parameters
    ----------
    references
        Name to CSV.
    model, processor, gene_table
        As for `infer_grn`.
    methods
        Of `inference.grn`; plus ``"expression_level"``, which ranks pairs by how highly both are expressed.
    options
        Passed to `infer_grn`.
    """
    wanted = [m for m in methods if m != "expression_level"]
    unknown = [m for m in wanted if m not in (*MODEL_METHODS, *EXPRESSION_METHODS)]
    if unknown:
        raise InputError(f"unknown method {unknown[0]!r}")
    if model is not None:
        _, processor = load_checkpoint(model, processor=processor)
        gene_table = gene_table_of(processor)
    if gene_table is None:
        raise InputError("give a model or a gene_table")
    taken = take_cells(adata, gene_table, species=species, gene_species=gene_species, cells=cells, max_cells=max_cells)
    rows, columns = network_genes(taken, regulators=regulators, n_variable=n_variable, min_share=min_share)
    genes = [str(taken.names[c]).upper() for c in columns]
    factors = [str(taken.names[c]).upper() for c in rows]
    truths = {key: restrict_truth(_upper(read_reference(path)), genes, regulators=factors)
              for key, path in references.items()}  # fmt: skip
    runs = []
    for method in methods:
        for seed in seeds if method in SEEDED else seeds[:1]:
            if method == "expression_level":
                level = log_expression(taken, columns).mean(axis=0)
                edges = expression_level_network(level, factors, genes, genes=genes)
            else:
                edges = infer_grn(
                    adata,
                    model if method in MODEL_METHODS else None,
                    [str(taken.names[c]) for c in rows],
                    cast(Any, method),
                    species=species,
                    gene_species=gene_species,
                    targets=[str(taken.names[c]) for c in columns],
                    cells=taken.rows,
                    gene_table=gene_table,
                    processor=processor,
                    min_share=min_share,
                    n_trees=n_trees,
                    seed=seed,
                    key_added=None,
                    progress=False,
                    **options,
                )
                edges = edges.assign(regulator=edges["regulator"].str.upper(), target=edges["target"].str.upper())
            runs += [_run(name, key, method, seed, edges, truth) for key, truth in truths.items()]
    settings = {"cells": len(taken), "genes": len(columns), "regulators": len(rows), "seeds": list(seeds)}
    return GrnBenchmark(pd.DataFrame(runs), settings)


def _upper(reference: pd.DataFrame) -> pd.DataFrame:
    source, target = reference.columns[:2]
    return reference.assign(**{source: reference[source].str.upper(), target: reference[target].str.upper()})


def _run(data: str, reference: str, method: str, seed: int, edges: pd.DataFrame, truth: NetworkTruth) -> dict[str, Any]:
    scores = network_scores(edges, truth) | bootstrap_over_factors(edges, truth, n=BOOTSTRAP)
    return {"data": data, "reference": reference, "method": method, "seed": seed} | scores


def spread_of(values: pd.Series) -> str:
    """Mean and standard deviation as text; the mean alone for one value.

    Examples
    --------
    >>> spread_of(pd.Series([1.0, 2.0]))
    '1.50 ± 0.71'
    """
    mean = float(np.mean(values))
    return f"{mean:.2f} ± {float(np.std(values, ddof=1)):.2f}" if len(values) > 1 else f"{mean:.2f}"


def as_text(benchmark: GrnBenchmark) -> str:
    """The benchmark as a Markdown table: mean and spread over seeds, and in brackets 95 % intervals over factors."""
    lines = [
        "| data | reference | method | AUROC | AUPRC ratio | early precision ratio | seeds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    order = benchmark.table()[["data", "reference", "method"]].itertuples(index=False, name=None)
    for data, reference, method in order:
        runs = benchmark.runs.query("data == @data and reference == @reference and method == @method")
        scores = " | ".join(
            f"{spread_of(runs[name])} [{runs[f'{name}_low'].mean():.2f}, {runs[f'{name}_high'].mean():.2f}]"
            for name in ("auroc", "auprc_ratio", "early_precision_ratio")
        )
        lines.append(f"| {data} | {reference} | {method} | {scores} | {len(runs)} |")
    return "\n".join(lines)
