"""The form of a prior-knowledge table: a matrix with one row per token, and a record of how it was made."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ...tokenization.errors import InputError
from ...tokenization.files import atomic_path, sha256_of
from ...tokenization.gene_table import SPECIAL_TOKENS, GeneTable

PRIOR_NAMES = ("promoter", "co_expression", "gene_family", "grn")
Missing = Literal["zero", "mean", "random"]

# safetensors does not keep the order of several metadata keys, so everything goes into one, for equal bytes
_METADATA_KEY = "genecompass_priors"


@dataclass(frozen=True)
class PriorTable:
    """One prior: what is known about every gene as a vector, and where that comes from.

    Parameters
    ----------
    name
        ``promoter``, ``co_expression``, ``gene_family`` or ``grn``; other names are possible.
    matrix
        float32 or float16, shape (vocab, width). Row = a gene's own token; ``<pad>`` and ``<mask>`` are zero.
    metadata
        Method, sources with checksums, settings, seed, coverage per species, versions.

    Examples
    --------
    >>> table = PriorTable("grn", np.zeros((4, 8), dtype=np.float32), {})
    >>> table.width
    8
    """

    name: str
    matrix: npt.NDArray[Any]
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Numbers per gene."""
        return int(self.matrix.shape[1])


def assemble(
    name: str,
    tokens: npt.NDArray[np.int64],
    vectors: npt.NDArray[Any],
    table: GeneTable,
    *,
    missing: Missing = "zero",
    seed: int = 0,
    dtype: Literal["float32", "float16"] = "float32",
    metadata: dict[str, Any] | None = None,
) -> PriorTable:
    """Lay gene vectors out over a vocabulary, on a common scale, and count who has knowledge.

    The known rows are multiplied by one number, so that their mean length is 1: a prior then enters the model's
    fusion on the scale of the gene-id embedding. Angles and ratios of lengths stay as they were.

    Parameters
    ----------
    name
        Name of the prior.
    tokens
        Own tokens of the genes with knowledge, without repeats, shape (n,).
    vectors
        Their vectors, shape (n, width).
    table
        The vocabulary.
    missing
        What a gene without knowledge gets. ``zero``: a zero row, so that the model's projection of it is the
        projection's bias, which is learned. ``mean``: the mean row of the species' known genes. ``random``: a
        seeded random row of length 1.
    seed
        Seed of the random rows.
    dtype
        Element type of the table.
    metadata
        Method, sources, settings; coverage, width, scale and versions are added here.

    Returns
    -------
    PriorTable

    Raises
    ------
    InputError
        If no gene has knowledge, or a vector holds NaN or infinity.
    """
    if not len(tokens):
        raise InputError(f"{name}: no gene of the vocabulary has knowledge; check species and gene names of the input")
    if not np.isfinite(vectors).all():
        raise InputError(f"{name}: NaN or infinity in the vectors of {int((~np.isfinite(vectors)).any(1).sum())} genes")

    matrix = np.zeros((table.vocab_size, vectors.shape[1]), dtype=np.float64)
    matrix[tokens] = vectors
    mean_length = float(np.linalg.norm(matrix[tokens], axis=1).mean())
    if mean_length > 0:
        matrix /= mean_length
    known = np.zeros(table.vocab_size, dtype=bool)
    known[tokens] = True
    _fill_missing(matrix, known, table, missing, seed)

    record = {
        "method": name,
        **(metadata or {}),
        "width": int(vectors.shape[1]),
        "dtype": dtype,
        "missing": missing,
        "seed": seed,
        "scale": {"mean_length_before": mean_length},
        "coverage": coverage(known, table),
        "gene_table_sha256": gene_table_fingerprint(table),
        "versions": versions_of("numpy", "genecompass"),
    }
    record["versions"].update((metadata or {}).get("versions", {}))
    return PriorTable(name, matrix.astype(dtype), record)


def _fill_missing(
    matrix: npt.NDArray[np.float64], known: npt.NDArray[np.bool_], table: GeneTable, missing: Missing, seed: int
) -> None:
    if missing == "zero":
        return
    if missing not in ("mean", "random"):
        raise InputError(f"missing={missing!r} is not known; choose zero, mean or random")
    draw = np.random.default_rng([seed, 7]).standard_normal(matrix.shape) if missing == "random" else None
    species = table.frame["species"].to_numpy()
    for name in table.species:
        empty, full = (species == name) & ~known, (species == name) & known
        if draw is not None:
            matrix[empty] = draw[empty] / np.linalg.norm(draw[empty], axis=1, keepdims=True)
        elif full.any():
            matrix[empty] = matrix[full].mean(0)


def coverage(known: npt.NDArray[np.bool_], table: GeneTable) -> dict[str, dict[str, Any]]:
    """Genes with knowledge per species, over all genes and over protein-coding ones where biotypes are given.

    Parameters
    ----------
    known
        True for tokens with knowledge, shape (vocab,).
    table
        The vocabulary.
    """
    species = table.frame["species"].to_numpy()
    coding = table.frame["biotype"].to_numpy() == "protein_coding"
    found: dict[str, dict[str, Any]] = {}
    for name in table.species:
        mine = species == name
        found[name] = {
            "genes": int(mine.sum()),
            "known": int((mine & known).sum()),
            "without_knowledge": int((mine & ~known).sum()),
            "fraction": round(float(known[mine].mean()), 4),
        }
        if (mine & coding).any():
            found[name]["fraction_protein_coding"] = round(float(known[mine & coding].mean()), 4)
    return found


def gene_table_fingerprint(table: GeneTable) -> str:
    """SHA-256 over the gene ids in token order: two tables with the same one have the same rows."""
    return hashlib.sha256("\n".join(table.frame["gene_id"]).encode()).hexdigest()


def source_record(path: str | os.PathLike[str], **more: Any) -> dict[str, Any]:
    """Name (no folder) and checksum of an input file, with whatever else is worth recording."""
    return {"file": Path(path).name, "sha256": sha256_of(path), **more}


def versions_of(*packages: str) -> dict[str, str]:
    """Installed versions of packages, for the record."""
    return {package: version(package) for package in packages}


def write_priors(path: str | os.PathLike[str], priors: Iterable[PriorTable]) -> None:
    """Write one or several tables over the same vocabulary into one safetensors file, atomically.

    The same tables give the same bytes every time.

    Raises
    ------
    InputError
        If the name does not end in ``.safetensors``, two tables share a name, or their vocabularies differ.
    """
    from safetensors.numpy import save_file

    tables = list(priors)
    if not str(path).endswith(".safetensors"):
        raise InputError(f"{path}: prior tables are safetensors files; end the name in .safetensors")
    if not tables:
        raise InputError(f"{path}: no prior table to write")
    names = [table.name for table in tables]
    if len(set(names)) < len(names):
        raise InputError(f"{path}: two tables are called {max(names, key=names.count)!r}; keep one of them")
    if len({len(table.matrix) for table in tables}) > 1:
        sizes = ", ".join(f"{table.name} {len(table.matrix)}" for table in tables)
        raise InputError(f"{path}: tables over different vocabularies cannot share a file (rows: {sizes})")
    record = {"format": 1, "priors": {table.name: table.metadata for table in tables}}
    with atomic_path(path) as temporary:
        save_file(
            {table.name: np.ascontiguousarray(table.matrix) for table in tables},
            temporary,
            metadata={_METADATA_KEY: json.dumps(record, sort_keys=True, ensure_ascii=False)},
        )


def read_prior(path: str | os.PathLike[str]) -> tuple[dict[str, npt.NDArray[Any]], dict[str, dict[str, Any]]]:
    """Read a file of prior tables.

    Returns
    -------
    matrices
        Name of the prior -> matrix, shape (vocab, width).
    metadata
        Name of the prior -> how it was made.

    Raises
    ------
    InputError
        If there is no such file, it is not a whole safetensors file, or it does not hold prior tables.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "grn.safetensors"
    >>> write_priors(file, [PriorTable("grn", np.zeros((4, 8), dtype=np.float32), {"method": "by hand"})])
    >>> matrices, metadata = read_prior(file)
    >>> matrices["grn"].shape, metadata["grn"]["method"]
    ((4, 8), 'by hand')
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise InputError(f"{path}: no such prior table")
    try:
        with safe_open(path, framework="numpy") as handle:
            metadata = handle.metadata() or {}
            matrices = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}); build or download it again") from error
    if _METADATA_KEY not in metadata:
        raise InputError(f"{path}: a safetensors file, but not of prior tables; build one with: genecompass priors")
    for name, matrix in matrices.items():
        if matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.floating):
            raise InputError(f"{path}: {name!r} must be a (tokens x width) matrix, not {matrix.dtype} {matrix.shape}")
    return matrices, json.loads(metadata[_METADATA_KEY])["priors"]


def read_tables(paths: Sequence[str | os.PathLike[str]]) -> list[PriorTable]:
    """Read the tables of several files as one list; the same prior in two files is an error."""
    tables: dict[str, PriorTable] = {}
    for path in paths:
        matrices, metadata = read_prior(path)
        for name, matrix in matrices.items():
            if name in tables:
                raise InputError(f"{path}: {name!r} was already read from another file; name only one")
            tables[name] = PriorTable(name, matrix, metadata.get(name, {}))
    return list(tables.values())


def check_rows(prior: PriorTable, table: GeneTable) -> None:
    """Make sure that a prior's rows follow the tokens of this vocabulary.

    Raises
    ------
    InputError
        If the number of rows or, where recorded, the fingerprint of the gene ids differs.
    """
    if len(prior.matrix) != table.vocab_size:
        raise InputError(
            f"{prior.name}: {len(prior.matrix)} rows, but the vocabulary has {table.vocab_size} tokens; "
            "build the table for this vocabulary"
        )
    recorded = prior.metadata.get("gene_table_sha256")
    if recorded is not None and recorded != gene_table_fingerprint(table):
        raise InputError(f"{prior.name}: built for other gene ids or another order; build it for this vocabulary")


def known_rows(matrix: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """True for tokens whose row is not zero, special tokens excepted. Shape (vocab,)."""
    known: npt.NDArray[np.bool_] = np.any(matrix != 0, axis=1)
    known[: len(SPECIAL_TOKENS)] = False
    return known
