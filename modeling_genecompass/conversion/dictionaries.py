"""The published pickled dictionaries as a gene table, read without running anything that is in them."""

import os
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ...tokenization.errors import InputError
from ...tokenization.gene_table import COLUMNS, SPECIAL_TOKENS, GeneTable

# what an Ensembl gene id begins with, longest first
_SPECIES = (("ENSMUSG", "mouse"), ("ENSG", "human"))


def gene_table_of(
    tokens: str | os.PathLike[str],
    homologs: str | os.PathLike[str] | None = None,
    medians: Mapping[str, float] | None = None,
) -> GeneTable:
    """Gene table from ``human_mouse_tokens.pickle`` and ``homologous_hm_token.pickle``.

    Parameters
    ----------
    tokens
        Pickle of gene id -> token.
    homologs
        Pickle of mouse token -> human token.
    medians
        Gene id -> non-zero median count. Without it medians stay unknown and count as 1.

    Raises
    ------
    InputError
        The pickle is not such a dictionary, or its tokens have gaps.
    """
    token_of = _dictionary(tokens)
    by_token: dict[int, str] = {}
    for gene, token in token_of.items():
        if not isinstance(gene, str) or not _is_integer(token):
            raise InputError(f"{tokens}: entry {gene!r}: {token!r} is not gene id -> token")
        by_token[int(token)] = gene
    if sorted(by_token) != list(range(len(token_of))):
        raise InputError(f"{tokens}: tokens must be 0..{len(token_of) - 1} without gaps or repeats")
    genes = [by_token[token] for token in range(len(by_token))]
    if tuple(genes[:2]) != SPECIAL_TOKENS:
        raise InputError(f"{tokens}: tokens 0 and 1 are {genes[0]!r} and {genes[1]!r}, expected <pad> and <mask>")
    frame = pd.DataFrame(
        {
            "token": range(len(genes)),
            "gene_id": genes,
            "symbol": "",
            "species": ["", "", *(_species_of(gene, tokens) for gene in genes[2:])],
            "biotype": "",
            "median": pd.Series(genes).map(dict(medians or {})).astype("float64"),
            "homolog_token": -1,
        }
    )
    for token, shared in _dictionary(homologs).items() if homologs is not None else ():
        if not (_is_integer(token) and _is_integer(shared) and int(token) in by_token and int(shared) in by_token):
            raise InputError(f"{homologs}: entry {token!r}: {shared!r} is not mouse token -> human token")
        frame.loc[int(token), "homolog_token"] = int(shared)
    return GeneTable(frame[list(COLUMNS)])


def read_medians(path: str | os.PathLike[str]) -> dict[str, float]:
    """Gene id -> median from a published pickle."""
    return {str(gene): float(median) for gene, median in _dictionary(path).items()}


def _dictionary(path: str | os.PathLike[str]) -> dict[Any, Any]:
    from ...tokenization.safe_pickle import read_plain_pickle

    content = read_plain_pickle(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, expected a dictionary")
    return content


def _is_integer(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _species_of(gene: str, path: str | os.PathLike[str]) -> str:
    for prefix, species in _SPECIES:
        if gene.startswith(prefix):
            return species
    raise InputError(f"{path}: gene id {gene!r} is neither human (ENSG...) nor mouse (ENSMUSG...)")
