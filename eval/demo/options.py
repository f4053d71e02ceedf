"""What the demo is asked for, and what it found."""

from dataclasses import dataclass, field
from typing import Any

import anndata as ad
import numpy.typing as npt
import pandas as pd

from .cells import LABEL, SPECIES


@dataclass(frozen=True)
class DemoOptions:
    """What the demo runs on, and how long.

    Parameters
    ----------
    output
        Folder for everything it makes; must be new or empty.
    data
        AnnData file with raw counts and labels; None for 700 human blood cells that ship inside scanpy.
    species
        Species of `data`.
    label
        Column of ``obs`` with cell types.
    steps
        Optimiser steps of pre-training.
    epochs
        Passes over the training cells and their thinned copies in LoRA fine-tuning.
    max_cells
        Cells drawn from `data` at most, so that the demo stays a demo.
    max_length
        Genes per cell, highest values first.
    null_genes
        Matched random genes that the deletion is compared with.
    seed
        Of the split, the weights, the masks and the draws.
    """

    output: str
    data: str | None = None
    species: str = SPECIES
    label: str = LABEL
    steps: int = 300
    epochs: int = 3
    max_cells: int = 2000
    max_length: int = 256
    null_genes: int = 60
    seed: int = 0


@dataclass
class DemoResult:
    """What the demo found; `report` writes it down.

    Parameters
    ----------
    cells
        All cells with embeddings, UMAP, split and labels.
    coverage
        The coverage report of the gene matching, as text.
    facts
        One line of the summary each.
    pretraining
        What `genecompass.training.pretraining.pretrain.pretrain` returned.
    scores
        One row per method: macro-F1 on the test cells with its interval, seconds, trainable parameters.
    difference
        Macro-F1 of LoRA less that of the best simple baseline, with the paired interval (`metrics.Interval`).
    predictions
        Method to predicted labels of the test cells.
    marker, marker_group
        The gene that was deleted, and the cell type that it marks.
    effects
        The deletion's summary table.
    seconds
        Wall time by step.
    """

    cells: ad.AnnData
    coverage: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    pretraining: Any = None
    scores: pd.DataFrame = field(default_factory=pd.DataFrame)
    difference: Any = None
    predictions: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    marker: str = ""
    marker_group: str = ""
    effects: pd.DataFrame = field(default_factory=pd.DataFrame)
    seconds: dict[str, float] = field(default_factory=dict)
