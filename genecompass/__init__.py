"""GeneCompass: single-cell counts in, gene-regulatory knowledge out, for human and mouse, behind ``AutoModel``.

``import genecompass as gc`` costs nothing: every public name is imported on first use. After it, the transformers
Auto classes load GeneCompass checkpoints with the installed code, without ``trust_remote_code``.
"""

from importlib import import_module
from typing import Any

from .auto_classes import register_when_needed

__version__ = "0.2.0"

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
    "explain": "inference",
    "perturb": "inference",
    "rank_cell_fate": "inference",
    "infer_grn": "inference",
    "fit_response": "inference.response.predict",
    "ResponseModel": "inference.response.predict",
    "Reference": "inference.annotation.in_memory",
    "finetune_cells": "training.finetuning.finetune",
    "finetune_genes": "training.finetuning.finetune",
    "adapt": "training.pretraining.adapt",
    "add_species": "dataset_scripts.new_species",
    "pretrain": "training.pretraining.pretrain",
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


register_when_needed()
