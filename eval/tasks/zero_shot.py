"""Embeddings without training: whether neighbours share a type, clusters find it, batches and species mix."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.decomposition import PCA

from ...inference.checkpoint import gene_table_of, load_checkpoint
from ...inference.embedding.encode import encode_cells
from ...inference.embedding.pooling import Pooling
from ..baselines.annotation import log_counts
from ..metrics import neighbour_agreement, scib_scores
from .labelled_cells import LabelledCells

PCA_ROW = "PCA of log counts"
UNTRAINED = "GeneCompass untrained"
# what `Pooling` calls each; a checkpoint has the first two if it was trained with a cell vector
OURS = {
    "GeneCompass cell vector": "cell",
    "GeneCompass fixed profile": "profile",
    "GeneCompass mean over genes": "mean",
    "GeneCompass species token": "species",
    "GeneCompass both": "both",
}
METHODS = (PCA_ROW, UNTRAINED, *OURS)
_COMPONENTS = 50


def embeddings_of(
    cells: LabelledCells,
    model: str | os.PathLike[str],
    *,
    methods: Sequence[str] = METHODS,
    seed: int = 0,
    device: str | None = None,
) -> dict[str, tuple[npt.NDArray[np.floating], float]]:
    """Embedding by each method, with seconds.

    Parameters
    ----------
    cells
        Cells; their labels are not looked at.
    model
        Checkpoint.
    methods
        Names out of `METHODS`; what the checkpoint does not have is left out.
    seed
        Of PCA and of the untrained weights.
    device
        Where the model runs: a GPU where there is one by default.
    """
    network, processor = load_checkpoint(Path(model), device=device)
    table = gene_table_of(processor)
    found: dict[str, tuple[npt.NDArray[np.floating], float]] = {}
    for method in methods:
        if OURS.get(method) in ("cell", "profile") and not network.config.cell_size:
            continue
        begin = time.perf_counter()
        points: npt.NDArray[np.floating]
        if method == PCA_ROW:
            logged = log_counts(cells.counts)
            seen = np.flatnonzero(logged.getnnz(axis=0) >= 3)
            size = min(_COMPONENTS, len(cells) - 1, len(seen) - 1)
            points = PCA(size, svd_solver="arpack", random_state=seed).fit_transform(logged[:, seen])
        elif method == UNTRAINED:
            torch.manual_seed(seed)
            untrained: Any = type(network)(network.config)
            fresh = untrained.to(network.device)
            buffers = dict(network.named_buffers())
            for name, buffer in fresh.named_buffers():
                buffer.copy_(buffers[name])
            points = encode_cells(fresh, cells.tokenized, pooling="mean")
        else:
            points = Pooling.choose(OURS[method], network.config).embed(network, cells.tokenized, table)
        found[method] = (points, round(time.perf_counter() - begin, 3))
    return found


def run_zero_shot(
    cells: LabelledCells,
    model: str | os.PathLike[str],
    *,
    batches: npt.NDArray[np.str_] | None = None,
    methods: Sequence[str] = METHODS,
    seeds: Sequence[int] = (0,),
    scib: bool = True,
    device: str | None = None,
    report: Any = None,
) -> tuple[list[dict[str, Any]], dict[str, npt.NDArray[np.floating]]]:
    """Score the embeddings.

    Parameters
    ----------
    cells, model, methods, device
        As for `embeddings_of`.
    batches
        Batch by cell, for the mixing scores; the cells' own groups where None.
    seeds
        Of PCA, untrained weights and clustering.
    scib
        Also the scores of scib-metrics.

    Returns
    -------
    records, embeddings
        One record a method and seed; the first seed's embeddings by method.
    """
    groups = cells.groups if batches is None else batches
    records: list[dict[str, Any]] = []
    kept: dict[str, npt.NDArray[np.floating]] = {}
    for seed in seeds:
        for method, (points, seconds) in embeddings_of(cells, model, methods=methods, seed=seed, device=device).items():
            kept.setdefault(method, points)
            scores = {"neighbour_agreement": neighbour_agreement(points, cells.labels)}
            if groups is not None and len(np.unique(groups)) > 1:
                scores["own_batch"] = neighbour_agreement(points, groups)
            if scib:
                scores |= scib_scores(points, cells.labels, groups, seed=seed)
            records.append(
                {
                    "split": cells.name,
                    "method": method,
                    "ours": method.startswith("GeneCompass"),
                    "seed": seed,
                    **scores,
                    "seconds": seconds,
                }
            )
            if report is not None:
                report(records[-1])
    return records, kept
