"""Using a trained model: embeddings, annotation, perturbation, networks.

Public names are imported on first use, so that asking for embeddings does not load what networks need.
"""

from importlib import import_module
from typing import Any

# public name -> the module that defines it
_HOMES = {
    "embed": "embedding.in_memory",
    "embed_file": "embedding.streamed",
    "annotate": "annotation.in_memory",
    "annotate_file": "annotation.streamed",
    "explain": "annotation.attribution",
    "perturb": "perturbation.perturb",
    "rank_cell_fate": "perturbation.cell_fate",
    "infer_grn": "networks.grn",
    "load_checkpoint": "checkpoint",
    "encode_cells": "embedding.encode",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
