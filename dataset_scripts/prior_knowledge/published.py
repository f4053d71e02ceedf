"""The published prior tables, from their pickles, without letting them run code."""

import os
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ...tokenization.errors import InputError
from ...tokenization.gene_index import bare_gene_id
from ...tokenization.gene_table import SPECIAL_TOKENS, GeneTable
from ...tokenization.safe_pickle import read_plain_pickle
from .tables import Missing, PriorTable, assemble, source_record


def read_published_prior(
    path: str | os.PathLike[str],
    name: str,
    table: GeneTable,
    *,
    missing: Missing = "zero",
    dtype: Literal["float32", "float16"] = "float32",
) -> PriorTable:
    """Read a pickled dictionary of gene vectors as a prior table.

    Keys may be Ensembl ids (with or without version), or tokens of this vocabulary; values lists or arrays of
    numbers, all of one length. Vectors keep their published scale: what was trained on them expects it.

    Parameters
    ----------
    path
        The pickle. Anything in it but plain data is refused by name.
    name
        Name of the prior.
    table
        The vocabulary, for example the published one.
    missing, dtype
        See `assemble`.

    Raises
    ------
    InputError
        If the file holds code, no dictionary, vectors of several lengths, or no gene of the vocabulary.
    """
    content = read_plain_pickle(path)
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: expected a dictionary of gene -> vector, found {type(content).__name__}")
    token_of = {gene: token for token, gene in enumerate(table.frame["gene_id"])}
    tokens: list[int] = []
    vectors: list[npt.NDArray[np.float64]] = []
    width = None
    for key, value in content.items():
        vector = _vector(value, f"{path}: {key!r}")
        width = len(vector) if width is None else width
        if len(vector) != width:
            raise InputError(f"{path}: {key!r} has {len(vector)} numbers, others {width}; not one table")
        token = _token(key, token_of, len(table))
        if token is not None:
            tokens.append(token)
            vectors.append(vector)
    if not tokens:
        raise InputError(f"{path}: none of its {len(content)} keys is a gene of this vocabulary")
    if len(set(tokens)) < len(tokens):
        raise InputError(f"{path}: two keys stand for the same gene; give a table with one vector per gene")
    metadata = {"method": "published vectors", "sources": [source_record(path)], "genes_in_file": len(content)}
    prior = assemble(name, np.array(tokens), np.stack(vectors), table, missing=missing, dtype=dtype, metadata=metadata)
    scale = prior.metadata["scale"]["mean_length_before"] or 1.0
    matrix = (prior.matrix.astype(np.float64) * scale).astype(prior.matrix.dtype)
    if missing == "zero":
        matrix[tokens] = np.stack(vectors)
    prior.metadata["scale"] = "as published"
    return PriorTable(name, matrix, prior.metadata)


def _vector(value: Any, where: str) -> npt.NDArray[np.float64]:
    try:
        vector = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: not a vector of numbers") from error
    if vector.ndim == 2 and vector.shape[0] == 1:
        vector = vector[0]
    if vector.ndim != 1 or not len(vector):
        raise InputError(f"{where}: expected a vector, found shape {vector.shape}")
    return vector


def _token(key: Any, token_of: dict[str, int], size: int) -> int | None:
    """Own token of a key; None for special tokens and unknown genes."""
    if isinstance(key, int):
        return key if len(SPECIAL_TOKENS) <= key < size else None
    if key in SPECIAL_TOKENS:
        return None
    return token_of.get(bare_gene_id(str(key)) or str(key))
