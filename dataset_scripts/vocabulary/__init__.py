"""Builders of gene tables: from annotation, from data, from the published pickles; gene medians."""

from importlib import import_module
from typing import Any

_HOMES = {
    "build_vocabulary": "build",
    "from_data": "build",
    "gene_medians": "medians",
    "gene_statistics": "medians",
    "import_published": "published",
    "read_annotation": "annotation",
    "read_homologs": "homologs",
    "read_names": "names",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "...tokenization.published" if name == "import_published" else f".{_HOMES[name]}"
    return getattr(import_module(home, __name__), name)
