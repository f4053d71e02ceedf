"""Counts to ranked values: the feature extractor of GeneCompass. Travels with every checkpoint.

Needs transformers and NumPy alone; SciPy matrices and torch tensors are taken as they come.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import FeatureExtractionMixin
from transformers.utils import cached_file

from .gene_index import GeneIndex, id_family
from .ranking import rank_cells

GENES_FILE = "genes.tsv.gz"
_HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder", "proxies")


class GeneCompassFeatureExtractor(FeatureExtractionMixin):
    """Turn raw counts of cells into tokens and values, largest value first.

    ``value = log2(1 + count / median)``, with the non-zero median of each gene over the corpus, from the gene table
    (1 where it knows none). Equal values go by token.

    Parameters
    ----------
    gene_index
        The vocabulary. A configuration does not hold it: it is the file ``genes.tsv.gz`` beside.
    max_length
        Genes kept per cell.
    library_size
        Scale every cell to this total first. None, as GeneCompass does it: counts are taken as they are.
    min_genes
        Fewest expressed known genes of a cell; one with fewer is an error.
    allow_fractional
        Take counts that are not whole numbers, as some quantifiers estimate them.

    Examples
    --------
    >>> index = GeneIndex({"token": range(4), "gene_id": ["<pad>", "<mask>", "ENSG00000254647", "ENSG00000115263"],
    ...     "symbol": ["", "", "INS", "GCG"], "species": ["", "", "human", "human"], "median": [""] * 4,
    ...     "homolog_token": [-1] * 4})
    >>> extractor = GeneCompassFeatureExtractor(index)
    >>> extractor([[1, 3]], genes=["INS", "GCG"], species="human")["input_ids"]
    [array([3, 2], dtype=int32)]
    """

    model_input_names = ["input_ids", "values", "attention_mask", "species"]  # noqa: RUF012 - as transformers has it

    def __init__(
        self,
        gene_index: GeneIndex | None = None,
        max_length: int = 2048,
        library_size: float | None = None,
        min_genes: int = 1,
        allow_fractional: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if max_length < 1:
            raise ValueError(f"max_length is {max_length}; it must be at least 1")
        self.gene_index = gene_index
        self.max_length = max_length
        self.library_size = library_size
        self.min_genes = min_genes
        self.allow_fractional = allow_fractional
        self._last_match: tuple[Any, Any] = (None, None)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> "GeneCompassFeatureExtractor":
        """Load the options, and the gene table beside them, from a folder or Hub repository."""
        hub = {name: kwargs[name] for name in _HUB_ARGUMENTS if kwargs.get(name) is not None}
        options = {name: kwargs[name] for name in ("max_length", "library_size", "min_genes") if name in kwargs}
        extractor = super().from_pretrained(pretrained_model_name_or_path, **hub, **options)
        extractor.gene_index = GeneIndex.read(str(cached_file(pretrained_model_name_or_path, GENES_FILE, **hub)))
        return extractor

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> list[str]:  # type: ignore[override]
        """Write ``preprocessor_config.json``, ``genes.tsv.gz`` and this code."""
        files = super().save_pretrained(save_directory, **kwargs)
        return [*files, self.save_genes(save_directory)]

    def save_genes(self, folder: str | os.PathLike[str]) -> str:
        """Write ``genes.tsv.gz``; gives its path."""
        path = os.path.join(folder, GENES_FILE)
        self._index().write(path)
        return path

    def to_dict(self) -> dict[str, Any]:
        """The options, without the vocabulary."""
        names = ("max_length", "library_size", "min_genes", "allow_fractional", "auto_map")
        options = {name: getattr(self, name) for name in names if hasattr(self, name)}
        return {**options, "feature_extractor_type": type(self).__name__}

    def _index(self) -> GeneIndex:
        if self.gene_index is None:
            raise ValueError("this feature extractor has no gene table; load it with from_pretrained")
        return self.gene_index

    def __call__(
        self,
        counts: Any,
        genes: Any = None,
        species: str | Sequence[str] | None = None,
        gene_species: str | None = None,
    ) -> dict[str, list[Any]]:
        """Tokenise cells.

        Parameters
        ----------
        counts
            Raw counts: a sparse or dense matrix (cells, genes), one cell's counts (genes,), or a list of cells that
            are each a pair (gene names, counts).
        genes
            Ensembl ids or symbols of the columns. Not needed for pairs.
        species
            Species of the cells: one name, or one per cell. May be left out where the vocabulary has one species.
        gene_species
            Species of the gene names, where it is not the cells'.

        Returns
        -------
        dict
            ``input_ids`` (list of int32 arrays), ``values`` (list of float32 arrays), ``species`` (list of int).

        Raises
        ------
        ValueError
            Naming cell and value, for anything but raw counts, unknown species, no known genes, empty cells.
        """
        index = self._index()
        if _is_pairs(counts, genes):
            cells = [(np.atleast_2d(_array(values)), list(names)) for names, values in counts]
            labels = _labels(index, species, len(cells))
            parts = [
                self._rows(*_csr(matrix), names, [label], gene_species, first=number)
                for number, ((matrix, names), label) in enumerate(zip(cells, labels, strict=True))
            ]
        else:
            if genes is None:
                raise ValueError("genes is missing: pass the ids or symbols of the columns of counts")
            csr = _csr(counts)
            parts = [self._rows(*csr, genes, _labels(index, species, len(csr[0]) - 1), gene_species)]
        return {name: [item for part in parts for item in part[name]] for name in ("input_ids", "values", "species")}

    def _rows(
        self,
        indptr: Any,
        columns: Any,
        data: Any,
        width: int,
        genes: Any,
        labels: list[str],
        gene_species: str | None,
        first: int = 0,
    ) -> dict[str, list[Any]]:
        if width != len(genes):
            raise ValueError(f"counts have {width} columns, but there are {len(genes)} genes")
        self._check(indptr, data, first)
        ids: list[Any] = [None] * len(labels)
        values: list[Any] = [None] * len(labels)
        for label in dict.fromkeys(labels):
            token, median = self._match(genes, label, gene_species or label)
            mine = [cell for cell, name in enumerate(labels) if name == label]
            part = (indptr, columns, data) if len(mine) == len(labels) else _take(indptr, columns, data, mine)
            bounds, tokens, numbers = rank_cells(
                *part, token, median, max_length=self.max_length, library_size=self.library_size
            )
            for place, cell in enumerate(mine):
                begin, end = int(bounds[place]), int(bounds[place + 1])
                if end - begin < self.min_genes:
                    raise ValueError(
                        f"cell {first + cell} expresses {end - begin} known genes, fewer than min_genes="
                        f"{self.min_genes}; leave such cells out"
                    )
                ids[cell], values[cell] = tokens[begin:end], numbers[begin:end]
        return {"input_ids": ids, "values": values, "species": [self._index().species_index(name) for name in labels]}

    def _match(self, genes: Any, species: str, gene_species: str) -> tuple[Any, Any]:
        """Cell token and median of every column; the last answer is kept, since batches repeat the question."""
        index = self._index()
        names = [str(name) for name in genes]
        key = (tuple(names), species, gene_species)
        if self._last_match[0] != key:
            ids = [name if id_family(name) else "" for name in names]
            symbols = ["" if known else name for name, known in zip(names, ids, strict=True)]
            tokens, _, _ = index.find_columns(ids, symbols, gene_species)
            if not (tokens >= 0).any():
                raise ValueError(
                    f"none of the {len(names)} genes is a known {gene_species} gene (first: {', '.join(names[:3])}); "
                    "pass Ensembl ids or symbols, and check the species"
                )
            own = index.as_cell_genes(tokens, species)
            safe = np.where(own >= 0, own, 0)
            cell_token = np.where(own >= 0, index.token_in_cell[safe], -1).astype(np.int32)
            self._last_match = (key, (cell_token, index.value_medians[safe]))
        return self._last_match[1]

    def _check(self, indptr: Any, data: Any, first: int) -> None:
        if data.dtype.kind not in "iufb":
            raise ValueError(f"counts are of type {data.dtype}; they must be numbers")
        for complaint, wrong in (
            ("not a number", ~np.isfinite(data)),
            ("negative: scaled data, not raw counts", data < 0),
            (
                "not whole: normalised data, not raw counts (allow_fractional takes estimated counts)",
                data != np.rint(data),
            ),
        ):
            if complaint.startswith("not whole") and self.allow_fractional:
                continue
            if wrong.any():
                entry = int(np.argmax(wrong))
                cell = first + int(np.searchsorted(indptr, entry, side="right")) - 1
                raise ValueError(f"cell {cell} has value {data[entry]:.6g}: {complaint}")


def _is_pairs(counts: Any, genes: Any) -> bool:
    return genes is None and isinstance(counts, list | tuple) and len(counts) > 0 and all(len(c) == 2 for c in counts)


def _labels(index: GeneIndex, species: str | Sequence[str] | None, number: int) -> list[str]:
    if species is None:
        if len(index.species) > 1:
            raise ValueError(f"species is missing: one of {', '.join(index.species)}, or a list with one per cell")
        species = index.species[0]
    labels = [species] * number if isinstance(species, str) else [str(name) for name in species]
    if len(labels) != number:
        raise ValueError(f"{len(labels)} species for {number} cells")
    for name in set(labels):
        index.species_index(name)
    return labels


def _array(values: Any) -> Any:
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)


def _csr(counts: Any) -> tuple[Any, Any, Any, int]:
    """Row bounds, columns, data and width of a sparse or dense matrix."""
    if hasattr(counts, "tocsr"):
        _check_pointers(counts)
        matrix = counts.tocsr()
        if not matrix.has_canonical_format:
            matrix = matrix.copy()
            matrix.sum_duplicates()
        return matrix.indptr, matrix.indices, matrix.data, matrix.shape[1]
    dense = np.atleast_2d(_array(counts))
    if dense.ndim != 2:
        raise ValueError(f"counts have {dense.ndim} dimensions; expected cells by genes")
    rows, columns = np.nonzero(dense)
    indptr = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=len(dense)))))
    return indptr, columns, dense[rows, columns], dense.shape[1]


def _check_pointers(matrix: Any) -> None:
    """Compiled code follows the pointers of a damaged sparse matrix out of the memory it may read."""
    if matrix.format in ("csr", "csc"):
        major, minor = matrix.shape if matrix.format == "csr" else matrix.shape[::-1]
        pointers, entries = np.asarray(matrix.indptr), min(len(matrix.indices), len(matrix.data))
        rising = len(pointers) == major + 1 and pointers[0] == 0 and not (pointers[1:] < pointers[:-1]).any()
        if not rising or pointers[-1] > entries:
            raise ValueError(f"counts are a damaged {matrix.format} matrix: its pointers lead outside of its entries")
        if entries and (matrix.indices.min() < 0 or matrix.indices.max() >= minor):
            raise ValueError(f"counts are a damaged {matrix.format} matrix: an index lies outside of 0..{minor - 1}")


def _take(indptr: Any, columns: Any, data: Any, cells: list[int]) -> tuple[Any, Any, Any]:
    lengths = np.diff(indptr)[cells]
    bounds = np.concatenate(([0], np.cumsum(lengths)))
    where = np.repeat(np.asarray(indptr)[cells] - bounds[:-1], lengths) + np.arange(bounds[-1])
    return bounds, columns[where], data[where]


GeneCompassFeatureExtractor.register_for_auto_class("AutoFeatureExtractor")
