"""Gene tables that a method may read: GO, a checkpoint's, any file; with coverage, shuffled and random twins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from ...tokenization.errors import InputError
from ...tokenization.tables import read_table as read_text_table

Matrix = npt.NDArray[np.float64]
WIDTH = 32


@dataclass(frozen=True)
class GeneFeatures:
    """One row of numbers a gene.

    Parameters
    ----------
    name
        Of the arm.
    genes
        Of the rows.
    table
        (genes, width).
    """

    name: str
    genes: tuple[str, ...]
    table: Matrix

    def rows(self, wanted: Sequence[str]) -> Matrix:
        """(wanted, width), standardised by column over the genes in the table; a gene without a row is 0, the mean.

        Examples
        --------
        >>> GeneFeatures("x", ("A", "B"), np.array([[0.0], [2.0]])).rows(["B", "absent"]).tolist()
        [[1.0], [0.0]]
        """
        if not self.genes:
            return np.zeros((len(wanted), self.table.shape[1]))
        spread = self.table.std(axis=0)
        scaled = (self.table - self.table.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        place = {gene: i for i, gene in enumerate(self.genes)}
        found = np.zeros((len(wanted), self.table.shape[1]))
        for i, gene in enumerate(wanted):
            if gene in place:
                found[i] = scaled[place[gene]]
        return found

    def coverage(self, wanted: Sequence[str]) -> float:
        """Share of `wanted` that has a row.

        Examples
        --------
        >>> GeneFeatures("x", ("A",), np.ones((1, 1))).coverage(["A", "B"])
        0.5
        """
        return float(np.mean([gene in set(self.genes) for gene in wanted])) if len(wanted) else 0.0

    def restricted(self, wanted: Sequence[str]) -> "GeneFeatures":
        """Only rows of these genes; what a twin has to permute to be one.

        Examples
        --------
        >>> GeneFeatures("x", ("A", "B"), np.eye(2)).restricted(["B", "C"]).genes
        ('B',)
        """
        keep = set(wanted)
        rows = [i for i, gene in enumerate(self.genes) if gene in keep]
        return GeneFeatures(self.name, tuple(self.genes[i] for i in rows), self.table[rows])


def shuffled(features: GeneFeatures, *, seed: int) -> GeneFeatures:
    """The same rows dealt to other genes: as good a code, without the meaning.

    Examples
    --------
    >>> twin = shuffled(GeneFeatures("go", ("A", "B", "C"), np.eye(3)), seed=0)
    >>> twin.name, sorted(twin.table.sum(axis=0).tolist())
    ('go shuffled', [1.0, 1.0, 1.0])
    """
    order = np.random.default_rng([seed, 1]).permutation(len(features.genes))
    return GeneFeatures(f"{features.name} shuffled", features.genes, features.table[order])


def random_table(genes: Sequence[str], *, width: int = WIDTH, seed: int) -> GeneFeatures:
    """Standard normal numbers for every gene.

    Examples
    --------
    >>> random_table(["A", "B"], width=3, seed=0).table.shape
    (2, 3)
    """
    numbers = np.random.default_rng([seed, 2]).standard_normal((len(genes), width))
    return GeneFeatures("random", tuple(genes), numbers)


def read_go(path: str | Path) -> dict[str, frozenset[str]]:
    """Gene symbol to GO terms, from a table with a term in the first column and its genes, joined by ``|``, in one.

    Parameters
    ----------
    path
        TSV, perhaps gzipped, with the columns ``go_id`` and ``gene_symbols``.

    Raises
    ------
    InputError
        No such file, or other columns.

    Examples
    --------
    >>> read_go("GO_annotations-9606-direct-expev.tsv")["KLF1"]  # doctest: +SKIP
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such table of annotations")
    table = read_text_table(path, sep="\t", dtype=str, keep_default_na=False)
    if not {"go_id", "gene_symbols"} <= set(table.columns):
        raise InputError(f"{path}: a table of annotations needs columns go_id and gene_symbols")
    found: dict[str, set[str]] = {}
    for term, genes in zip(table["go_id"], table["gene_symbols"], strict=True):
        for gene in genes.split("|"):
            if gene:
                found.setdefault(gene, set()).add(term)
    return {gene: frozenset(terms) for gene, terms in found.items()}


def go_table(terms: Mapping[str, frozenset[str]], genes: Sequence[str], *, width: int = WIDTH) -> GeneFeatures:
    """The first axes of a gene-by-term table (rare terms count more), over `genes` that have a term.

    Parameters
    ----------
    terms
        From `read_go`.
    genes
        Whose rows are wanted.
    width
        Axes; fewer where there are fewer genes.

    Raises
    ------
    InputError
        If fewer than two of the genes have a term.

    Examples
    --------
    >>> go_table({"A": frozenset({"t"}), "B": frozenset({"u"})}, ["A", "B", "C"], width=8).table.shape
    (2, 2)
    """
    known = [gene for gene in dict.fromkeys(genes) if terms.get(gene)]
    if len(known) < 2:
        raise InputError(f"{len(known)} of {len(genes)} genes have a GO term; are these symbols of the same species?")
    names = sorted({term for gene in known for term in terms[gene]})
    place = {term: j for j, term in enumerate(names)}
    pairs = [(i, place[term]) for i, gene in enumerate(known) for term in terms[gene]]
    rows, columns = np.array(pairs).T
    X = sparse.csr_matrix((np.ones(len(pairs)), (rows, columns)), shape=(len(known), len(names)))
    weight = np.log(len(known) / np.asarray(X.sum(axis=0)).ravel()) + 1.0
    return GeneFeatures("GO", tuple(known), principal_rows(X.multiply(weight).toarray(), width))


def principal_rows(X: Matrix, width: int) -> Matrix:
    """Rows of a table on its first principal axes; signs are fixed, so that the same table gives the same numbers.

    Examples
    --------
    >>> principal_rows(np.array([[0.0, 0.0], [2.0, 0.0]]), 1).round(6).tolist()
    [[-1.0], [1.0]]
    """
    centred = X - X.mean(axis=0)
    u, s, vt = np.linalg.svd(centred, full_matrices=False)
    k = min(width, len(s))
    sign = np.sign(vt[np.arange(k), np.abs(vt[:k]).argmax(axis=1)])
    return u[:, :k] * s[:k] * np.where(sign == 0, 1.0, sign)


def read_table(name: str, path: str | Path) -> GeneFeatures:
    """A gene table from CSV, TSV or parquet: gene names first, then numbers.

    Raises
    ------
    InputError
        No such file, a gene twice, or text where numbers belong.

    Examples
    --------
    >>> read_table("mine", "genes.csv")  # doctest: +SKIP
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such gene table")
    if path.suffix == ".parquet":
        table = pd.read_parquet(path)
        table = table if table.index.dtype == object else table.set_index(table.columns[0])
    else:
        table = read_text_table(path, index_col=0, sep="\t" if ".tsv" in path.suffixes else ",")
    text = [str(column) for column in table if not pd.api.types.is_numeric_dtype(table[column])]
    if text or table.shape[1] == 0:
        raise InputError(f"{path}: column {text[0] if text else 2!r} holds no numbers; give gene names, then numbers")
    if table.isna().to_numpy().any():
        raise InputError(f"{path}: a number is missing; leave such genes out")
    genes = [str(gene) for gene in table.index]
    if len(set(genes)) < len(genes):
        raise InputError(f"{path}: gene {next(g for g in genes if genes.count(g) > 1)!r} has two rows")
    return GeneFeatures(name, tuple(genes), table.to_numpy(dtype=np.float64))
