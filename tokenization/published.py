"""The published vocabulary, from its pickles: 50,558 tokens in which several mouse genes can share a human token."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from .errors import InputError
from .gene_index import bare_gene_id, id_family
from .gene_table import SPECIAL_TOKENS, GeneTable
from .safe_pickle import read_plain_pickle

# whose Ensembl ids begin so; the published vocabulary has these two
SPECIES_OF_IDS = {"ENSG": "human", "ENSMUSG": "mouse"}


def import_published(
    tokens: str | os.PathLike[str],
    homologs: str | os.PathLike[str] | None = None,
    medians: Sequence[str | os.PathLike[str]] = (),
    *,
    annotation: pd.DataFrame | None = None,
    species_of_ids: Mapping[str, str] | None = None,
) -> GeneTable:
    """Read the published token dictionary as a gene table with the same token numbers.

    Parameters
    ----------
    tokens
        ``human_mouse_tokens.pickle``: gene id to token, ``<pad>`` 0 and ``<mask>`` 1.
    homologs
        ``homologous_hm_token.pickle``: token of a mouse gene to the human token that it takes. Several mouse genes
        may take one; their counts are summed.
    medians
        Pickles of gene id to non-zero median.
    annotation
        Symbols and biotypes: columns ``gene_id``, ``symbol``, ``biotype``.
    species_of_ids
        First letters of Ensembl ids to species names; default human and mouse. The species of the lowest token is
        index 0 in model inputs.

    Raises
    ------
    InputError
        For files that are not what they should be.

    Examples
    --------
    >>> import pickle, tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "tokens.pickle"
    >>> _ = file.write_bytes(pickle.dumps({"<pad>": 0, "<mask>": 1, "ENSG00000254647": 2}))
    >>> import_published(file).vocab_size
    3
    """
    token_of = _dictionary(tokens)
    names = sorted(token_of, key=lambda name: int(token_of[name]))
    if [int(token_of[name]) for name in names] != list(range(len(names))) or tuple(names[:2]) != SPECIAL_TOKENS:
        raise InputError(f"{tokens}: expected gene id -> token with tokens 0, 1, 2, ... and {SPECIAL_TOKENS} first")
    families = SPECIES_OF_IDS if species_of_ids is None else species_of_ids
    species = [""] * 2 + [families.get(id_family(name) or "", "?") for name in names[2:]]
    if "?" in species:
        raise InputError(
            f"{tokens}: {names[species.index('?')]!r} is not an Ensembl id of {', '.join(families.values())}"
        )
    frame = pd.DataFrame(
        {
            "token": np.arange(len(names)),
            "gene_id": [*names[:2], *(bare_gene_id(name) for name in names[2:])],
            "symbol": "",
            "species": species,
            "biotype": "",
            "median": np.nan,
            "homolog_token": _homolog_tokens(homologs, len(names)),
        }
    )
    for path in medians:
        known = {bare_gene_id(str(name)) or str(name): float(value) for name, value in _dictionary(path).items()}
        frame["median"] = frame["gene_id"].map(known).fillna(frame["median"])
    if annotation is not None:
        described = annotation.drop_duplicates("gene_id").set_index("gene_id")
        for column in ("symbol", "biotype"):
            frame[column] = frame["gene_id"].map(described[column]).fillna("")
    return GeneTable(frame)


def _homolog_tokens(path: str | os.PathLike[str] | None, size: int) -> np.ndarray:
    taken = np.full(size, -1, dtype=np.int64)
    if path is None:
        return taken
    for own, shared in _dictionary(path).items():
        if not (str(own).isdigit() and str(shared).isdigit() and int(own) < size and int(shared) < size):
            raise InputError(f"{path}: expected token -> token below {size}, found {own!r}: {shared!r}")
        taken[int(own)] = int(shared)
    return taken


def _dictionary(path: str | os.PathLike[str]) -> dict:
    content = read_plain_pickle(path)
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: expected a dictionary, found {type(content).__name__}")
    return content
