"""Builders of the prior-knowledge tables: promoter, co-expression, gene family, gene regulatory network."""

from importlib import import_module
from typing import Any

_HOMES = {
    "PriorTable": "tables",
    "read_prior": "tables",
    "read_tables": "tables",
    "write_priors": "tables",
    "Gene2VecSettings": "gene2vec",
    "NetworkSource": "networks",
    "build_grn": "networks",
    "FamilySource": "families",
    "build_gene_family": "families",
    "CorrelationSettings": "correlation",
    "CellsOf": "co_expression",
    "build_co_expression": "co_expression",
    "GenomeSource": "genome",
    "build_promoter": "promoter",
    "attach_priors": "attach",
    "read_published_prior": "published",
    "nearest_genes": "inspection",
    "homolog_cosines": "inspection",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
