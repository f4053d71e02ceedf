"""Promoter windows: a genome and an annotation to strand-aware sequences around transcription starts."""

import gzip
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...tokenization.errors import InputError
from ...tokenization.gene_table import GeneTable

UPSTREAM = 500
DOWNSTREAM = 2000

_COMPLEMENT = str.maketrans("ACGTNacgtn", "TGCANtgcan")
_ATTRIBUTE = re.compile(r'(\w+) "([^"]*)"')
# the transcript that stands for the gene, best first; then protein-coding ones, then the longest
_CANONICAL_TAGS = ("Ensembl_canonical", "MANE_Select", "appris_principal_1", "appris_principal", "basic")
_MITOCHONDRION = {"M", "MT"}


@dataclass(frozen=True)
class GenomeSource:
    """A species' reference genome and annotation.

    Parameters
    ----------
    fasta
        FASTA, plain or bgzipped (not plain gzip: that cannot be read at random).
    gtf
        GTF of GENCODE or Ensembl, plain or gzip.
    species
        Whose genome this is.
    """

    fasta: str | os.PathLike[str]
    gtf: str | os.PathLike[str]
    species: str


def read_starts(gtf: str | os.PathLike[str]) -> pd.DataFrame:
    """Canonical transcription start of every gene of a GTF.

    The transcript tagged canonical (Ensembl), MANE Select, principal (APPRIS) or basic, in this order, decides;
    among equals a protein-coding one, then the longest, then the first name. A file without transcripts gives the
    genes' own ends.

    Returns
    -------
    DataFrame
        Index ``gene_id`` (no version); ``contig``, ``start`` (0-based position of the first transcribed base),
        ``strand``.

    Raises
    ------
    InputError
        If the file is missing, or a line is no GTF.
    """
    if not Path(gtf).is_file():
        raise InputError(f"{gtf}: no such annotation")
    best: dict[str, tuple[tuple[Any, ...], tuple[str, int, str]]] = {}
    for number, line in enumerate(_lines(gtf), start=1):
        if line.startswith("#") or not line.strip():
            continue
        fields = line.rstrip("\n").split("\t")
        if len(fields) < 9:
            raise InputError(f"{gtf}: line {number} has {len(fields)} columns; a GTF has 9, split by tabs")
        kind, strand = fields[2], fields[6]
        if kind not in ("gene", "transcript", "mRNA"):
            continue
        described = _ATTRIBUTE.findall(fields[8])
        attributes = dict(described)
        if "gene_id" not in attributes or not (fields[3] + fields[4]).isdigit() or strand not in "+-":
            raise InputError(f"{gtf}: line {number}: gene_id, positions or strand are not as in a GTF")
        first, last = int(fields[3]), int(fields[4])
        tags = {value for key, value in described if key == "tag"}
        merit = (
            kind == "gene",
            next((place for place, tag in enumerate(_CANONICAL_TAGS) if tag in tags), len(_CANONICAL_TAGS)),
            attributes.get("transcript_type", attributes.get("transcript_biotype")) != "protein_coding",
            first - last,
            attributes.get("transcript_id", ""),
        )
        gene = re.sub(r"\.\d+$", "", attributes["gene_id"])
        if gene not in best or merit < best[gene][0]:
            best[gene] = (merit, (fields[0], (first if strand == "+" else last) - 1, strand))
    if not best:
        raise InputError(f"{gtf}: no gene or transcript line; is this a GTF?")
    rows = [place for _, place in best.values()]
    return pd.DataFrame(rows, columns=["contig", "start", "strand"], index=pd.Index(list(best), name="gene_id"))


def _lines(path: str | os.PathLike[str]) -> Iterator[str]:
    with gzip.open(path, "rt") if str(path).endswith(".gz") else open(path) as handle:
        yield from handle


def bridge_contigs(wanted: Iterable[str], available: Iterable[str]) -> dict[str, str]:
    """Names of contigs in the annotation -> names in the genome, over ``chr1`` / ``1`` and ``chrM`` / ``MT``.

    Examples
    --------
    >>> bridge_contigs(["chr1", "chrM", "chrX"], ["1", "MT"])
    {'chr1': '1', 'chrM': 'MT'}
    """
    by_key = {_contig_key(name): name for name in reversed(list(available))}
    names = set(by_key.values())
    bridged = {name: name if name in names else by_key.get(_contig_key(name)) for name in dict.fromkeys(wanted)}
    return {name: found for name, found in bridged.items() if found is not None}


def _contig_key(name: str) -> str:
    bare = name.removeprefix("chr")
    return "MT" if bare in _MITOCHONDRION else bare


def promoter_windows(
    source: GenomeSource, table: GeneTable, *, upstream: int = UPSTREAM, downstream: int = DOWNSTREAM
) -> tuple[pd.Series, dict[str, Any]]:
    """Sequences around the transcription starts of a species' genes, read along the gene's strand.

    The window has `upstream` bases before the first transcribed base, and `downstream` bases from it on. What lies
    beyond the end of a contig is N.

    Parameters
    ----------
    source
        Genome and annotation.
    table
        The vocabulary.
    upstream, downstream
        Bases.

    Returns
    -------
    sequences
        Upper-case text of ``upstream + downstream`` letters, indexed by own token.
    report
        Genes found, cut at contig ends, with N, all N (dropped), not annotated, on missing contigs; bridged names.

    Raises
    ------
    InputError
        If a file is missing or unreadable, or no gene of the species gets a sequence.
    """
    if upstream < 0 or downstream < 0 or not upstream + downstream:
        raise InputError(f"promoter windows of {upstream} + {downstream} bases are empty; give positive numbers")
    table.species_index(source.species)
    genome = _open_genome(source.fasta)
    starts = read_starts(source.gtf)
    mine = table.frame[table.frame["species"] == source.species]
    annotated = mine[mine["gene_id"].isin(starts.index)]
    if annotated.empty:
        raise InputError(f"{source.gtf}: none of its {len(starts)} genes is a {source.species} gene of this vocabulary")
    wanted = starts.loc[annotated["gene_id"]]
    bridge = bridge_contigs(wanted["contig"], genome.keys())
    missing = sorted(set(wanted["contig"]) - set(bridge))

    sequences: dict[int, str] = {}
    cut = with_n = all_n = 0
    for token, contig, start, strand in zip(
        annotated["token"], wanted["contig"], wanted["start"], wanted["strand"], strict=True
    ):
        if contig not in bridge:
            continue
        sequence, complete = _window(genome[bridge[contig]], int(start), strand, upstream, downstream)
        cut += not complete
        with_n += "N" in sequence
        if set(sequence) == {"N"}:
            all_n += 1
            continue
        sequences[int(token)] = sequence
    genome.close()
    if not sequences:
        raise InputError(
            f"{source.fasta}: no contig of {source.gtf} is in the genome (annotation: {', '.join(missing[:3])}, ...); "
            "give genome and annotation of the same assembly"
        )
    report = {
        "genes": len(mine),
        "sequences": len(sequences),
        "not_annotated": len(mine) - len(annotated),
        "on_missing_contigs": int((~wanted["contig"].isin(list(bridge))).sum()),
        "missing_contigs": missing[:20],
        "bridged_contigs": sum(name != found for name, found in bridge.items()),
        "cut_at_contig_end": int(cut),
        "with_n": int(with_n),
        "only_n": all_n,
    }
    return pd.Series(sequences, dtype=object).sort_index(), report


def _open_genome(fasta: str | os.PathLike[str]) -> Any:
    try:
        import pyfaidx
    except ImportError as error:
        raise ImportError('reading a genome needs pyfaidx: pip install "genecompass[priors]"') from error
    if not Path(fasta).is_file():
        raise InputError(f"{fasta}: no such genome")
    try:
        return pyfaidx.Fasta(str(fasta), as_raw=True, sequence_always_upper=True)
    except pyfaidx.UnsupportedCompressionFormat as error:
        raise InputError(
            f"{fasta}: plain gzip cannot be read at random; compress it with bgzip, or unpack it"
        ) from error
    except ImportError as error:
        raise ImportError('a bgzipped genome needs biopython: pip install "genecompass[priors]"') from error
    except (pyfaidx.FastaIndexingError, pyfaidx.IndexNotFoundError, ValueError, OSError) as error:
        raise InputError(f"{fasta}: not a readable FASTA ({' '.join(str(error).split())[:150]})") from error


def _window(contig: Any, start: int, strand: str, upstream: int, downstream: int) -> tuple[str, bool]:
    """The window along the strand, and whether all of it lies on the contig."""
    if strand == "+":
        first, last = start - upstream, start + downstream
    else:
        first, last = start - downstream + 1, start + upstream + 1
    length = len(contig)
    inside = str(contig[max(first, 0) : min(last, length)]) if first < length and last > 0 else ""
    before = min(max(-first, 0), last - first)
    sequence = ("N" * before + inside).ljust(last - first, "N")
    sequence = re.sub("[^ACGT]", "N", sequence)
    complete = first >= 0 and last <= length
    return (sequence if strand == "+" else sequence.translate(_COMPLEMENT)[::-1]), complete


def read_windows(path: str | os.PathLike[str], table: GeneTable, species: str) -> pd.Series:
    """Read sequences that were cut out elsewhere: FASTA with gene ids as names.

    Returns
    -------
    Series
        Upper-case sequences, indexed by own token.
    """
    from .gene_names import match_names

    genome = _open_genome(path)
    names = list(genome.keys())
    tokens = match_names(names, table, species, where=str(path)).tokens
    found = {int(token): str(genome[name][:]) for token, name in zip(tokens, names, strict=True) if token >= 0}
    genome.close()
    return pd.Series(found, dtype=object).sort_index()


def share_of_n(sequences: pd.Series) -> float:
    """Part of all bases that is N."""
    total = sequences.str.len().sum()
    return float(np.round(sequences.str.count("N").sum() / total, 6)) if total else 0.0
