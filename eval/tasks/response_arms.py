"""The gene network as it runs in benchmarks: with a table, with the same table shuffled, random, or learned."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...inference.response.conditions import all_genes
from ...inference.response.effects import Effects
from ...inference.response.features import GeneFeatures, random_table, shuffled
from ...inference.response.genes import GeneInputs, GeneOptions, fit_genes
from ...inference.response.predict import graph_cells
from ...inference.response.splits import Split

Matrix = npt.NDArray[np.float64]
LEARNED = "network, learned"
RANDOM = "network on random"


def network_arms(
    tables: Sequence[GeneFeatures],
    *,
    go: Mapping[str, frozenset[str]] | None = None,
    cells: Any = None,
    options: GeneOptions | None = None,
) -> dict[str, Any]:
    """Arms of the gene network for `benchmark_genes`: learned, each table and its shuffled twin, one random table.

    Parameters
    ----------
    tables
        Gene tables.
    go
        Gene to GO terms, for the graph over perturbed genes; the same in every arm.
    cells
        AnnData of raw counts that the effects came from; None where they came as effects.
    options
        See `GeneOptions`; the same in every arm.

    Examples
    --------
    >>> list(network_arms([]))
    ['network, learned', 'network on random']
    """

    def arm(which: str, table: GeneFeatures | None) -> Any:
        def fit(effects: Effects, split: Split, wanted: Sequence[tuple[str, ...]], seed: int) -> Matrix:
            perturbed = effects.conditions.genes
            names = tuple(all_genes(perturbed))
            every = all_genes([effects.genes, names])
            features = None if table is None else table.restricted(every)
            if which == "shuffled" and features is not None:
                features = shuffled(features, seed=seed)
            elif which == "random":
                features = random_table(every, width=tables[0].table.shape[1] if tables else 32, seed=seed)
            known = split.known
            graph = None if cells is None else graph_cells(cells, effects, rows=known.tolist())
            member = fit_genes(
                effects.delta[known],
                [perturbed[i] for i in known],
                GeneInputs(effects.genes, names, features, go, graph),
                validation=np.searchsorted(known, split.validation),
                options=options,
                seed=seed,
            )
            return member.predict(wanted)

        return fit

    arms = {LEARNED: arm("learned", None)}
    for table in tables:
        arms[f"network on {table.name}"] = arm("table", table)
        arms[f"network on {table.name} shuffled"] = arm("shuffled", table)
    return arms | {RANDOM: arm("random", None)}


def compared(tables: Sequence[GeneFeatures], *, networks: bool) -> list[tuple[str, str]]:
    """Which pairs of methods a reader wants to see: each table against its twins and the learned additive model.

    Examples
    --------
    >>> compared([GeneFeatures("GO", (), np.zeros((0, 1)))], networks=False)[0]
    ('ridge on GO', 'ridge on GO shuffled')
    """
    pairs = []
    for kind in ("ridge", "network") if networks else ("ridge",):
        for table in tables:
            mine = f"{kind} on {table.name}"
            pairs += [(mine, f"{mine} shuffled"), (mine, f"{kind} on random"), (mine, "learned additive")]
    if networks:
        pairs += [(LEARNED, "learned additive"), (RANDOM, "learned additive")]
    return pairs
