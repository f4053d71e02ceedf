"""GeneCompass: single-cell counts in, gene-regulatory knowledge out, for human and mouse, behind ``AutoModel``.

``import genecompass as gc`` costs nothing: every public name is imported on first use. Asking for any model or
processor class registers all of them with the transformers Auto classes, so that checkpoints load without
``trust_remote_code``.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# public name -> the room that defines it
_HOMES = {
    "GeneCompassConfig": "modeling_genecompass",
    "GeneCompassModel": "modeling_genecompass",
    "GeneCompassForMaskedGeneModeling": "modeling_genecompass",
    "GeneCompassForSequenceClassification": "modeling_genecompass",
    "GeneCompassForTokenClassification": "modeling_genecompass",
    "GeneCompassFeatureExtractor": "tokenization",
    "GeneCompassProcessor": "tokenization",
    "GeneTable": "tokenization",
    "open_cells": "tokenization",
    "open_corpus": "dataset_scripts",
    "embed": "inference",
    "annotate": "inference",
    "perturb": "inference",
    "rank_cell_fate": "inference",
    "infer_grn": "inference",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'genecompass' has no attribute {name!r}")
    value = getattr(import_module(f"genecompass.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
