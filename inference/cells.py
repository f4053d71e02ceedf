"""Cells of any source, tokenised in chunks of a fixed size: the same chunks, so the same numbers after a resume."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from ..tokenization.errors import InputError
from ..tokenization.gene_table import GeneTable
from ..tokenization.readers import CellSource
from ..tokenization.tokenize import TokenizedCells, tokenize_cells

CHUNK = 2048


@dataclass(frozen=True)
class Reading:
    """How to read cells.

    Parameters
    ----------
    species
        Species of the cells, or an ``obs`` column that says it.
    gene_species
        Species of the gene names, where it is not the cells'.
    max_length
        Genes a cell.
    whole_cells
        Keep all genes beside those, for models with a cell vector.

    Examples
    --------
    >>> Reading("mouse").max_length
    2048
    """

    species: str
    gene_species: str | None = None
    max_length: int = 2048
    whole_cells: bool = False


@dataclass
class Coverage:
    """What was understood of the genes and counts, added up over chunks.

    Parameters
    ----------
    counts, counts_kept
        All counts, and those of known genes.
    genes
        Of the first chunk: genes by how they were matched.
    """

    counts: float = 0.0
    counts_kept: float = 0.0
    genes: dict[str, Any] = field(default_factory=dict)

    def add(self, report: Any) -> None:
        """Add one chunk's report."""
        for name, coverage in report.coverage.items():
            self.counts += float(coverage.counts)
            self.counts_kept += float(coverage.counts_kept)
            self.genes.setdefault(name, str(coverage))

    def merge(self, other: "Coverage") -> None:
        """Add what another process saw."""
        self.counts += other.counts
        self.counts_kept += other.counts_kept
        self.genes = {**other.genes, **self.genes}

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for ``uns``."""
        return {
            "share_of_counts_kept": self.counts_kept / self.counts if self.counts else 0.0,
            "genes": dict(self.genes),
        }


def chunks(
    source: CellSource,
    table: GeneTable,
    reading: Reading,
    *,
    start: int = 0,
    stop: int | None = None,
    chunk: int = CHUNK,
    coverage: Coverage | None = None,
) -> Iterator[tuple[int, TokenizedCells]]:
    """Tokenise `source` chunk by chunk; cells without a known gene stay in their place with length 0.

    Yields
    ------
    first, tokenized
        Row of the chunk's first cell, and the chunk.
    """
    stop = source.n_cells if stop is None else stop
    for first in range(start, stop, chunk):
        tokenized = tokenize_cells(
            source,
            table,
            species=reading.species,
            gene_species=reading.gene_species,
            max_length=reading.max_length,
            whole_cells=reading.whole_cells,
            empty_cells="keep",
            start=first,
            stop=min(first + chunk, stop),
        )
        if coverage is not None:
            coverage.add(tokenized.report)
        yield first, tokenized


def provenance(model: Any, name: str) -> dict[str, Any]:
    """Which model and versions made a result, for ``uns["genecompass"]``.

    Parameters
    ----------
    model
        The loaded model.
    name
        What the user called it.
    """
    return {
        "model": name,
        "revision": str(getattr(model.config, "_commit_hash", None) or "local"),
        "versions": {package: metadata.version(package) for package in ("genecompass", "torch", "transformers")},
    }


def require_species(species: str | None) -> str:
    """The species, which nobody can guess: the same symbol is a human and a mouse gene.

    Raises
    ------
    InputError
        None was given.
    """
    if species is None:
        raise InputError("whose cells are these? pass species='human', species='mouse' or the obs column that says it")
    return species


def name_of(model: Any) -> str:
    """What the user called a model: its folder or repository; the class where it is an object without a home."""
    if isinstance(model, str):
        return model
    return str(getattr(model, "name_or_path", "") or (model if hasattr(model, "__fspath__") else type(model).__name__))
