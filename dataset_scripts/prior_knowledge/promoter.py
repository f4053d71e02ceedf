"""Promoter prior: sequences around transcription starts to gene vectors, by k-mers or by any DNA model."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from threadpoolctl import threadpool_limits

from ...tokenization.errors import InputError
from ...tokenization.gene_table import GeneTable
from .genome import DOWNSTREAM, UPSTREAM, GenomeSource, promoter_windows, share_of_n
from .tables import Missing, PriorTable, assemble, source_record, versions_of


class SequenceEmbedder(Protocol):
    """Sequences to vectors; `record` says how, for the metadata."""

    record: dict[str, Any]

    def __call__(self, sequences: pd.Series) -> npt.NDArray[np.float32]:
        """Vectors of the sequences, shape (n, width)."""
        ...


class KmerEmbedder:
    """Frequencies of k-mers on the given strand, projected on their principal components. Needs no weights.

    Square roots of frequencies (so that distances are Hellinger's) are centred and projected; k-mers with N are not
    counted. With fewer sequences than `width`, the columns that have no component are zero.

    Parameters
    ----------
    width
        Numbers per gene, at most ``4**k``.
    k
        Length of the words.

    Examples
    --------
    >>> KmerEmbedder(width=4, k=2)(pd.Series(["ACGTACGT", "AAAATTTT", "GGGGCCCC"])).shape
    (3, 4)
    """

    def __init__(self, width: int = 768, k: int = 5) -> None:
        if not 1 <= k <= 7:
            raise InputError(f"k-mers of length {k}: choose 1 to 7")
        if not 1 <= width <= 4**k:
            raise InputError(f"promoter: width {width} is not between 1 and 4^{k} = {4**k}; take a larger k")
        self.width, self.k = width, k
        self.record: dict[str, Any] = {"embedder": "k-mer frequencies, principal components", "k": k}

    def __call__(self, sequences: pd.Series) -> npt.NDArray[np.float32]:
        """See `SequenceEmbedder`."""
        # one BLAS thread: the split of sums over threads would show in the last bits
        with threadpool_limits(1):
            roots = np.sqrt(np.stack([self.frequencies(sequence) for sequence in sequences]))
            roots -= roots.mean(axis=0)
            covariance = roots.T @ roots
            strength, axes = np.linalg.eigh(covariance)
            order = np.argsort(-strength, kind="stable")[: self.width]
            axes = axes[:, order] * np.sign(axes[np.abs(axes[:, order]).argmax(0), order])
            usable = strength[order] > strength.max() * 1e-10
            self.record["explained"] = round(float(strength[order][usable].sum() / max(strength.sum(), 1e-12)), 4)
            return (roots @ (axes * usable)).astype(np.float32)

    def frequencies(self, sequence: str) -> npt.NDArray[np.float64]:
        """Share of each k-mer among those without N, in the order of A, C, G, T. Shape (4^k,)."""
        codes = _BASE_CODES[np.frombuffer(sequence.encode("ascii"), dtype=np.uint8)]
        words = len(codes) - self.k + 1
        if words < 1:
            return np.zeros(4**self.k)
        number = sum(
            codes[place : place + words].astype(np.int64) * 4 ** (self.k - 1 - place) for place in range(self.k)
        )
        whole = np.logical_and.reduce([codes[place : place + words] < 4 for place in range(self.k)])
        counts = np.bincount(np.asarray(number)[whole], minlength=4**self.k)
        return counts / max(1, counts.sum())


_BASE_CODES = np.full(256, 255, dtype=np.uint8)
_BASE_CODES[np.frombuffer(b"ACGT", dtype=np.uint8)] = np.arange(4)
_BASE_CODES[np.frombuffer(b"acgt", dtype=np.uint8)] = np.arange(4)


def build_promoter(
    sources: Sequence[GenomeSource],
    table: GeneTable,
    *,
    embedder: SequenceEmbedder | None = None,
    upstream: int = UPSTREAM,
    downstream: int = DOWNSTREAM,
    missing: Missing = "zero",
    dtype: Literal["float32", "float16"] = "float32",
    progress: Callable[[str], None] | None = None,
) -> PriorTable:
    """Build the promoter table from genomes and annotations.

    Parameters
    ----------
    sources
        One per species.
    table
        The vocabulary.
    embedder
        `KmerEmbedder` (default), or `genecompass.dataset_scripts.prior_knowledge.dna_model.DnaModelEmbedder`.
    upstream, downstream
        See `promoter_windows`.
    missing, dtype
        See `assemble`.
    progress
        Called with a line per step.

    Returns
    -------
    PriorTable

    Examples
    --------
    >>> table = GeneTable.read("genes.parquet")                                          # doctest: +SKIP
    >>> source = GenomeSource("GRCh38.fa", "gencode.gtf.gz", "human")                    # doctest: +SKIP
    >>> prior = build_promoter([source], table)                                          # doctest: +SKIP
    """
    if not sources:
        raise InputError("promoter: no genome given")
    doubled = [source.species for source in sources if sum(s.species == source.species for s in sources) > 1]
    if doubled:
        raise InputError(f"promoter: two genomes for {doubled[0]}; give one per species")
    embedder = embedder or KmerEmbedder()
    windows, records = [], []
    for source in sources:
        sequences, report = promoter_windows(source, table, upstream=upstream, downstream=downstream)
        report["share_of_n"] = share_of_n(sequences)
        windows.append(sequences)
        checksum = source_record(source.gtf)["sha256"]
        records.append(
            source_record(
                source.fasta, gtf=Path(source.gtf).name, gtf_sha256=checksum, species=source.species, **report
            )
        )
        if progress is not None:
            progress(f"{source.species}: {len(sequences)} promoter sequences of {report['genes']} genes")
    together = pd.concat(windows)
    vectors = embedder(together)
    metadata = {
        "method": "embedding of the sequence around the transcription start",
        "sources": records,
        "settings": {"upstream": upstream, "downstream": downstream, **embedder.record},
        "versions": versions_of("pyfaidx"),
    }
    tokens = together.index.to_numpy(np.int64)
    return assemble("promoter", tokens, vectors, table, missing=missing, dtype=dtype, metadata=metadata)
