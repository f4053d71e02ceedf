"""Names to tokens: which gene of the vocabulary a gene id or symbol means. Standard library and NumPy alone.

This file travels with a checkpoint, beside ``genes.tsv.gz``.
"""

import csv
import gzip
import io
import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

UNKNOWN, AMBIGUOUS = 0, -1
BY_ID, BY_SYMBOL, BY_PREVIOUS, BY_ALIAS = 1, 2, 3, 4

_ENSEMBL = re.compile(r"^(ENS[A-Z]*G)(\d{11})(?:\.\d+)?(?:_PAR_Y)?$")
# "GRCh38_ENSG...", "mm10___Actb", "hg19:INS": the genome that is put before names when two were mapped together
_GENOME_PREFIX = re.compile(r"^(?:GRCh3\d|GRCm3\d|hg\d\d|mm\d\d?)[_\-.:|]+(?=[A-Za-z0-9])")
# "ENSG00000254647_INS", "INS|ENSG00000254647.7": an id and a symbol in one name
_ID_WITHIN = re.compile(r"(?:^|[_\-:|;, ])(ENS[A-Z]*G\d{11})(?:\.\d+)?(?=$|[_\-:|;, ])")
_REQUIRED = ("token", "gene_id", "symbol", "species", "median", "homolog_token")


def bare_gene_id(name: str) -> str | None:
    """Ensembl gene id without version, genome prefix or a symbol beside it; None for anything that holds no id.

    Examples
    --------
    >>> bare_gene_id("ENSG00000254647.7"), bare_gene_id("INS")
    ('ENSG00000254647', None)
    """
    match = _ENSEMBL.match(_without_genome(name))
    if match:
        return match[1] + match[2]
    within = set(_ID_WITHIN.findall(name)) if "ENS" in name else set()
    return within.pop() if len(within) == 1 else None


@lru_cache(maxsize=1 << 18)  # the same names are asked for by every file, and several times each
def id_family(name: str) -> str | None:
    """The letters that an Ensembl gene id begins with, which tell its species: ``ENSG``, ``ENSMUSG``; else None."""
    bare = bare_gene_id(name)
    return bare[:-11] if bare else None


def _without_genome(name: str) -> str:
    return _GENOME_PREFIX.sub("", name) if name.startswith(("GRC", "hg", "mm")) else name


class GeneIndex:
    """Looks genes up by id, symbol, previous symbol and alias, within one species.

    Parameters
    ----------
    columns
        The gene table, column name to values, in token order: ``token``, ``gene_id``, ``symbol``, ``species``,
        ``median`` (NaN or "" where unknown), ``homolog_token`` (-1 where none), and optionally ``biotype``,
        ``previous_symbols`` and ``alias_symbols`` (names joined by ``|``), and ``weight`` (NaN or "" where unknown).

    Examples
    --------
    >>> index = GeneIndex({"token": [0, 1, 2], "gene_id": ["<pad>", "<mask>", "ENSG00000254647"],
    ...     "symbol": ["", "", "INS"], "species": ["", "", "human"], "median": ["", "", "2"],
    ...     "homolog_token": [-1, -1, -1]})
    >>> index.look_up(["INS", "ENSG00000254647.7", "?"], "human")[0].tolist()
    [2, 2, -1]
    """

    def __init__(self, columns: Mapping[str, Any]) -> None:
        missing = [name for name in _REQUIRED if name not in columns]
        if missing:
            raise ValueError(f"gene table: missing column {missing[0]!r}; expected {', '.join(_REQUIRED)}")
        n = len(columns["token"])
        self.gene_ids = [str(name) for name in columns["gene_id"]]
        self.symbols = _texts(columns["symbol"])
        self.gene_species = _texts(columns["species"])
        self.biotypes = _texts(columns.get("biotype", [""] * n))
        self.previous_symbols = _texts(columns.get("previous_symbols", [""] * n))
        self.alias_symbols = _texts(columns.get("alias_symbols", [""] * n))
        self.known_medians = np.array([_number(value) for value in columns["median"]], dtype=np.float64)
        self._refuse_wrong_numbers(columns["token"])
        self.weights = np.array([_number(value) for value in columns.get("weight", [""] * n)], dtype=np.float64)
        # unknown counts as 1
        self.medians = np.where(self.known_medians > 0, self.known_medians, 1.0)
        self.homolog_tokens = np.array([int(str(value)) for value in columns["homolog_token"]], dtype=np.int64)
        self.species = tuple(dict.fromkeys(name for name in self.gene_species if name))
        own = np.arange(n)
        self.token_in_cell = np.where(self.homolog_tokens >= 0, self.homolog_tokens, own)
        self._species_code = np.array([self.species.index(s) if s else -1 for s in self.gene_species], dtype=np.int64)
        self.value_medians = self._shared_medians()
        self._token_of_id = {name: token for token, name in enumerate(self.gene_ids)}
        # letters that ids of each species begin with; the first gene that has them tells
        self.species_of_ids: dict[str, str] = {}
        for name, home in zip(self.gene_ids, self.gene_species, strict=True):
            family = id_family(name)
            if family:
                self.species_of_ids.setdefault(family, home)
        self._names: dict[str, tuple[dict[str, int], dict[str, int], dict[str, int]]] = {}

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "GeneIndex":
        """Read ``genes.tsv.gz`` (or ``.tsv``) with the standard library."""
        opened = gzip.open if str(path).endswith(".gz") else open
        with opened(path, "rt", encoding="utf-8", newline="") as text:
            rows = csv.reader(text, delimiter="\t")
            header = next(rows)
            columns = list(zip(*rows, strict=True))
        return cls(dict(zip(header, columns, strict=True)))

    def _refuse_wrong_numbers(self, tokens: Any) -> None:
        """Tokens out of order and medians that no count can have mean a damaged table, which would go unseen."""
        if [str(token) for token in tokens] != [str(number) for number in range(len(self.gene_ids))]:
            raise ValueError("gene table: tokens must be 0, 1, 2, ... in order without gaps")
        wrong = np.flatnonzero((self.known_medians <= 0) | np.isinf(self.known_medians))
        if len(wrong):
            gene, median = self.gene_ids[wrong[0]], self.known_medians[wrong[0]]
            raise ValueError(
                f"gene table: {gene} has median {median:g}; it must be positive, or empty where it is unknown"
            )

    def columns(self) -> dict[str, list[Any]]:
        """The gene table again, column by column; ``median`` and ``weight`` are NaN where unknown."""
        names: dict[str, list[Any]] = {
            "token": list(range(len(self))),
            "gene_id": self.gene_ids,
            "symbol": self.symbols,
            "species": self.gene_species,
            "biotype": self.biotypes,
            "median": self.known_medians.tolist(),
            "homolog_token": self.homolog_tokens.tolist(),
        }
        for name, texts in (("previous_symbols", self.previous_symbols), ("alias_symbols", self.alias_symbols)):
            if any(texts):
                names[name] = texts
        if not np.isnan(self.weights).all():
            names["weight"] = self.weights.tolist()
        return names

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write ``genes.tsv.gz`` with the standard library; the same table gives the same bytes."""
        columns = self.columns()
        for name in ("median", "weight"):
            if name in columns:
                columns[name] = ["" if value != value else repr(value) for value in columns[name]]
        text = io.StringIO(newline="")
        rows = csv.writer(text, delimiter="\t", lineterminator="\n")
        rows.writerow(columns)
        rows.writerows(zip(*columns.values(), strict=True))
        with open(path, "wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
            packed.write(text.getvalue().encode("utf-8"))

    def __deepcopy__(self, memo: Any) -> "GeneIndex":
        return self  # nothing changes it, and configurations that hold one are copied often

    def __len__(self) -> int:
        return len(self.gene_ids)

    def species_index(self, name: str) -> int:
        """Index of a species in model inputs; ValueError for one that the vocabulary does not know."""
        if name not in self.species:
            raise ValueError(f"unknown species {name!r}; this vocabulary knows {', '.join(self.species)}")
        return self.species.index(name)

    def look_up(self, names: Sequence[str], species: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int8]]:
        """Own token of each name among the genes of `species`, and how it was found.

        Parameters
        ----------
        names
            Ensembl ids with or without version, or symbols, freely mixed.
        species
            Whose genes the names are.

        Returns
        -------
        tokens : int64 array
            -1 where unknown or ambiguous.
        how : int8 array
            `BY_ID`, `BY_SYMBOL`, `BY_PREVIOUS`, `BY_ALIAS`, `UNKNOWN`, or `AMBIGUOUS`: the name stands for more
            than one gene and none is guessed.
        """
        self.species_index(species)
        current, previous, alias = self._names_of(species)
        tokens = np.full(len(names), -1, dtype=np.int64)
        how = np.zeros(len(names), dtype=np.int8)
        for position, name in enumerate(names):
            token, way = self._find(str(name), species, current, previous, alias)
            tokens[position], how[position] = token, way
        return tokens, how

    def find_columns(
        self, ids: Sequence[str], symbols: Sequence[str], species: str, *, rescue_ids: bool = False
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int8], int]:
        """Own token of each column of a matrix; an id decides alone, a symbol where there is no id.

        Parameters
        ----------
        ids, symbols
            Names of each column; "" where there is none.
        species
            Whose genes they are.
        rescue_ids
            Look columns with an unknown id up by their symbol, unless another column has that gene already.

        Returns
        -------
        tokens, how
            As from `look_up`. A name without id is ambiguous where another column has the gene by its id, and an
            old name where another column has the gene under its own name.
        rescuable : int
            Number of columns that `rescue_ids` finds.
        """
        tokens, how = self.look_up(ids, species)
        retired = np.array([bool(name) for name in ids], dtype=bool) & (how == UNKNOWN)
        again = np.flatnonzero(how == UNKNOWN)
        tokens[again], how[again] = self.look_up([symbols[i] for i in again.tolist()], species)
        taken = np.unique(tokens[(how > UNKNOWN) & ~retired])
        rescuable = retired & (how == BY_SYMBOL) & ~np.isin(tokens, taken)
        lost = retired & ~rescuable if rescue_ids else retired
        tokens[lost], how[lost] = -1, UNKNOWN
        self._undo_unique_names(symbols, tokens, how, retired, species)
        # Whoever made the matrix counted the two names apart, so summing them would be a guess. An antibody against
        # CD4 beside the gene CD4 is such a case: the gene has an id, the antibody only the name.
        by_id = np.unique(tokens[how == BY_ID])
        direct = np.unique(tokens[(how == BY_ID) | (how == BY_SYMBOL)])
        clash = (np.isin(how, (BY_PREVIOUS, BY_ALIAS)) & np.isin(tokens, direct)) | (
            (how == BY_SYMBOL) & np.isin(tokens, by_id)
        )
        tokens[clash], how[clash] = -1, AMBIGUOUS
        return tokens, how, int(rescuable.sum())

    def _undo_unique_names(
        self,
        symbols: Sequence[str],
        tokens: npt.NDArray[np.int64],
        how: npt.NDArray[np.int8],
        has_id: npt.NDArray[np.bool_],
        species: str,
    ) -> None:
        """Give ``TBCE-1``, ``TBCE.1`` back their ``TBCE``: AnnData and R number repeated names, which are summed."""
        present = set(symbols)
        for i in np.flatnonzero((how == UNKNOWN) & ~has_id).tolist():
            base, mark, number = re.match(r"^(.*?)([-.]?)(\d*)$", symbols[i], re.DOTALL).groups()  # type: ignore[union-attr]
            if mark and number and base in present:
                (token,), (way,) = self.look_up([base], species)
                if way == BY_SYMBOL:
                    tokens[i], how[i] = token, way

    def _find(
        self, name: str, species: str, current: dict[str, int], previous: dict[str, int], alias: dict[str, int]
    ) -> tuple[int, int]:
        if not name:
            return -1, UNKNOWN
        exact = self._token_of_id.get(name)
        if exact is not None and self.gene_species[exact] == species:
            return exact, BY_ID
        bare = bare_gene_id(name)
        if bare is not None:
            token = self._token_of_id.get(bare, -1)
            return (token, BY_ID) if token >= 0 and self.gene_species[token] == species else (-1, UNKNOWN)
        name = _without_genome(name)
        if name in current:
            return (current[name], BY_SYMBOL) if current[name] >= 0 else (-1, AMBIGUOUS)
        # a name that is a number is a row number, or an id of another database, and no old name of a gene
        meant = set() if name.isdigit() else {table[name] for table in (previous, alias) if name in table}
        if not meant:
            return self._find_as_r_writes_it(name, current)
        if len(meant) > 1 or -1 in meant:
            return -1, AMBIGUOUS
        return meant.pop(), BY_PREVIOUS if name in previous else BY_ALIAS

    @staticmethod
    def _find_as_r_writes_it(name: str, current: dict[str, int]) -> tuple[int, int]:
        """``HLA.DRA`` is ``HLA-DRA``: R puts dots where a name of a column may not have a dash."""
        dashed = name.replace(".", "-")
        token = current.get(dashed, -1) if dashed != name else -1
        return (token, BY_SYMBOL) if token >= 0 else (-1, UNKNOWN)

    def as_cell_genes(self, tokens: npt.NDArray[np.int64], species: str) -> npt.NDArray[np.int64]:
        """Own tokens of the genes that cells of `species` have in place of these, by homology.

        Mouse cells whose counts were mapped to human ids express the mouse homologs: their own medians and their
        own prior-knowledge rows. A gene without a homolog stays as it is; of several, the lowest token stands.
        """
        rows = np.arange(len(self))
        mine = np.flatnonzero(self._species_code == self.species_index(species))
        shared, first = np.unique(self.token_in_cell[mine], return_index=True)
        rows[shared] = mine[first]
        found = tokens >= 0
        here = np.where(found, tokens, 0)
        mapped = np.where(self._species_code[here] == self.species_index(species), here, rows[self.token_in_cell[here]])
        return np.where(found, mapped, -1)

    def _names_of(self, species: str) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
        """Symbols, previous symbols and aliases of a species' genes; -1 marks a name of more than one gene."""
        if species not in self._names:
            tables: tuple[dict[str, int], dict[str, int], dict[str, int]] = ({}, {}, {})
            for token in np.flatnonzero(self._species_code == self.species.index(species)).tolist():
                texts = (self.symbols[token], self.previous_symbols[token], self.alias_symbols[token])
                for table, text in zip(tables, texts, strict=True):
                    for name in filter(None, [text] if table is tables[0] else text.split("|")):
                        table[name] = token if table.get(name, token) == token else -1
            self._names[species] = tables
        return self._names[species]

    def _shared_medians(self) -> npt.NDArray[np.float64]:
        """Median that scales each gene's counts; genes of a species that share a token take the lowest token's."""
        medians = self.medians.copy()
        for code in range(len(self.species)):
            mine = np.flatnonzero(self._species_code == code)
            _, first, group = np.unique(self.token_in_cell[mine], return_index=True, return_inverse=True)
            medians[mine] = self.medians[mine[first]][group]
        return medians


def _texts(values: Any) -> list[str]:
    return ["" if value is None or value != value else str(value) for value in values]


def _number(value: object) -> float:
    return float("nan") if value is None or value == "" else float(str(value))
