"""Counts to tokens: gene table, readers, quality control, ranking, processor, batching."""

from importlib import import_module
from typing import Any

_HOMES = {
    "InputError": "errors",
    "GeneTable": "gene_table",
    "GeneCompassFeatureExtractor": "feature_extraction_genecompass",
    "GeneCompassProcessor": "processing_genecompass",
    "CellSource": "readers",
    "open_cells": "readers",
    "match_genes": "matching",
    "QualityControl": "quality",
    "TokenizedCells": "tokenize",
    "iter_tokenized": "tokenize",
    "tokenize_cells": "tokenize",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
