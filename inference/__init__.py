"""Using a trained model: embeddings, annotation, perturbation, networks.

Public names are imported on first use, so that asking for embeddings does not load what networks need.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

# public name -> the module that defines it
_HOMES = {
    "embed": "embed_adata",
    "embed_file": "embed_file",
    "annotate": "annotate_adata",
    "annotate_file": "annotate_file",
    "perturb": "perturb",
    "rank_cell_fate": "cell_fate",
    "infer_grn": "grn",
    "load_checkpoint": "checkpoint",
    "encode_cells": "encode",
}

__all__ = sorted(_HOMES)


class _Room(ModuleType):
    """Importing the submodule ``perturb`` must not hide the function ``perturb``, whichever was asked for first."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and name in _HOMES and hasattr(value, name):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Room


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
