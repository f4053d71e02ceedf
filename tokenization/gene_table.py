"""The gene table: one row per token, the one place that knows which genes and species exist."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from .errors import InputError
from .files import atomic_path
from .gene_index import GeneIndex
from .packed import refuse_bomb
from .species_names import canonical_species

PAD_TOKEN = 0
MASK_TOKEN = 1
SPECIAL_TOKENS = ("<pad>", "<mask>")
COLUMNS = ("token", "gene_id", "symbol", "species", "biotype", "median", "homolog_token")
# other names of a gene, joined by "|"; tables without them work, and then only current symbols resolve
NAME_COLUMNS = ("previous_symbols", "alias_symbols")
# how much a gene tells of the cell that expresses it; counted with the medians
WEIGHT_COLUMN = "weight"
OPTIONAL_COLUMNS = (*NAME_COLUMNS, WEIGHT_COLUMN)


@dataclass(frozen=True)
class GeneTable:
    """Every token of a vocabulary with its gene, species, median and homolog.

    Parameters
    ----------
    frame
        Columns ``token`` (0, 1, 2, ... without gaps; 0 is ``<pad>``, 1 is ``<mask>``), ``gene_id`` (Ensembl id
        without version), ``symbol``, ``species``, ``biotype``, ``median`` (non-zero median count over the corpus;
        NaN where unknown, which counts as 1) and ``homolog_token`` (the token of another species that this gene
        takes; -1 where it keeps its own). Optional: ``previous_symbols``, ``alias_symbols`` (joined by ``|``);
        ``weight`` (of the gene in a cell's profile, see `genecompass.tokenization.profile`; NaN counts as 1).

    Examples
    --------
    >>> table = GeneTable.from_genes(pd.DataFrame({"gene_id": ["ENSG1"], "symbol": ["INS"], "species": ["human"]}))
    >>> table.vocab_size, table.species
    (3, ('human',))
    """

    frame: pd.DataFrame

    def __post_init__(self) -> None:
        missing = [column for column in COLUMNS if column not in self.frame.columns]
        if missing:
            raise InputError(f"gene table: missing column {missing[0]!r}; expected {', '.join(COLUMNS)}")
        tokens = self.frame["token"].to_numpy()
        if not np.array_equal(tokens, np.arange(len(tokens))):
            raise InputError("gene table: tokens must be 0, 1, 2, ... in order without gaps")
        if tuple(self.frame["gene_id"].iloc[:2]) != SPECIAL_TOKENS:
            raise InputError("gene table: tokens 0 and 1 must be <pad> and <mask>")
        duplicated = self.frame["gene_id"].duplicated()
        if duplicated.any():
            raise InputError(f"gene table: gene id {self.frame['gene_id'][duplicated].iloc[0]!r} appears twice")
        self._check_homologs()

    def _check_homologs(self) -> None:
        homolog = self.frame["homolog_token"].to_numpy()
        takers = np.flatnonzero(homolog >= 0)
        givers = homolog[takers]
        outside = (givers >= len(self.frame)) | (givers < len(SPECIAL_TOKENS))
        chained = ~outside & (homolog[np.where(outside, 0, givers)] >= 0)
        species = self.frame["species"].to_numpy()
        within = ~outside & (species[np.where(outside, 0, givers)] == species[takers])
        wrong = np.flatnonzero(outside | chained | within)
        if len(wrong):
            gene, token = self.frame["gene_id"].iloc[takers[wrong[0]]], givers[wrong[0]]
            raise InputError(
                f"gene table: {gene} takes token {token}, which must be a gene of another species with its own token"
            )

    @classmethod
    def from_genes(cls, genes: pd.DataFrame) -> "GeneTable":
        """Number genes in the given order, after the two special tokens.

        Parameters
        ----------
        genes
            ``gene_id`` and ``species`` are required; ``symbol``, ``biotype``, ``median``, ``previous_symbols``,
            ``alias_symbols`` and ``weight`` are optional.
            ``homolog_gene_id``, optional, names the gene whose token this one takes.
        """
        genes = genes.reset_index(drop=True)
        token_of = pd.Series(np.arange(2, 2 + len(genes)), index=genes["gene_id"])
        homologs = genes.get("homolog_gene_id", pd.Series(np.nan, index=genes.index))
        body = pd.DataFrame(
            {
                "token": np.arange(2, 2 + len(genes)),
                "gene_id": genes["gene_id"],
                "symbol": genes.get("symbol", pd.Series("", index=genes.index)),
                "species": genes["species"],
                "biotype": genes.get("biotype", pd.Series("", index=genes.index)),
                "median": genes.get("median", pd.Series(np.nan, index=genes.index)),
                "homolog_token": homologs.map(token_of).fillna(-1).astype(int),
            }
        )
        for name in NAME_COLUMNS:
            if name in genes:
                body[name] = genes[name].fillna("")
        if WEIGHT_COLUMN in genes:
            body[WEIGHT_COLUMN] = genes[WEIGHT_COLUMN].astype(float)
        special = pd.DataFrame(
            {
                "token": [PAD_TOKEN, MASK_TOKEN],
                "gene_id": list(SPECIAL_TOKENS),
                "symbol": "",
                "species": "",
                "biotype": "",
                "median": np.nan,
                "homolog_token": -1,
            }
        )
        frame = pd.concat([special, body], ignore_index=True)
        names = [name for name in NAME_COLUMNS if name in frame]
        return cls(frame.fillna(dict.fromkeys(["symbol", "biotype", *names], "")))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "GeneTable":
        """Read ``.parquet``, or ``.tsv`` / ``.tsv.gz`` as it travels with a checkpoint.

        A folder stands for a checkpoint: its ``genes.tsv.gz`` or ``genes.parquet`` is read.
        """
        path = Path(path)
        if path.is_dir():
            path = next((path / name for name in ("genes.parquet", "genes.tsv.gz") if (path / name).exists()), path)
        if not path.is_file():
            raise InputError(f"{path}: no gene table here (genes.parquet or genes.tsv.gz)")
        try:
            return cls._read_file(path)
        except InputError as error:
            line = " ".join(str(error).split())
            raise InputError(line if path.name in line else f"{path}: {line}") from error
        except Exception as error:  # a damaged table can make pandas, gzip and pyarrow say anything
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise InputError(f"{path}: not a readable gene table ({reason})") from error

    @classmethod
    def _read_file(cls, path: Path) -> "GeneTable":
        refuse_bomb(path)
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
        else:
            text = ["gene_id", "symbol", "species", "biotype", *NAME_COLUMNS]
            frame = pd.read_csv(
                path,
                sep="\t",
                dtype=dict.fromkeys(text, str),
                keep_default_na=False,
                na_values={"median": [""], WEIGHT_COLUMN: [""]},
                float_precision="round_trip",
            )
        missing = [column for column in COLUMNS if column not in frame.columns]
        if missing:
            raise InputError(f"{path}: missing column {missing[0]!r}; expected {', '.join(COLUMNS)}")
        names = [name for name in NAME_COLUMNS if name in frame]
        frame = frame.fillna(dict.fromkeys(["symbol", "species", "biotype", *names], ""))
        kinds = {"token": "int64", "homolog_token": "int64", "median": "float64"}
        if WEIGHT_COLUMN in frame:
            kinds[WEIGHT_COLUMN] = "float64"
        return cls(frame[[name for name in (*COLUMNS, *OPTIONAL_COLUMNS) if name in frame]].astype(kinds))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write ``.parquet`` or ``.tsv.gz``, by the ending, atomically and with the same bytes every time."""
        with atomic_path(path) as temporary:
            if str(path).endswith(".parquet"):
                self.frame.to_parquet(temporary, index=False)
            elif str(path).endswith(".gz"):
                self.index.write(temporary)  # as checkpoints have it: pandas would put a random name into the header
            else:
                self.frame.to_csv(temporary, sep="\t", index=False)

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def vocab_size(self) -> int:
        """Number of tokens, the two special ones included."""
        return len(self.frame)

    @cached_property
    def species(self) -> tuple[str, ...]:
        """Species names; a species' position is its index in model inputs. The leading species is 0."""
        return tuple(name for name in self.frame["species"].unique() if name)

    def species_called(self, name: str) -> str:
        """The table's own name of a species that is spelled in another of the field's ways; else `name` itself."""
        return canonical_species(name, self.species)

    def species_index(self, name: str) -> int:
        """Index of a species in model inputs; raises `InputError` for a species that the table does not know."""
        name = self.species_called(name)
        if name not in self.species:
            raise InputError(f"unknown species {name!r}; this vocabulary knows {', '.join(self.species)}")
        return self.species.index(name)

    @cached_property
    def index(self) -> GeneIndex:
        """Look-up of genes by id, symbol, previous symbol and alias."""
        return GeneIndex({str(name): self.frame[name].tolist() for name in self.frame.columns})

    @cached_property
    def token_in_cell(self) -> npt.NDArray[np.int64]:
        """For every gene's own token, the token it takes in a cell: its homolog's where it has one. Shape (vocab,)."""
        own = self.frame["token"].to_numpy()
        homolog = self.frame["homolog_token"].to_numpy()
        return np.where(homolog >= 0, homolog, own)

    @cached_property
    def medians(self) -> npt.NDArray[np.float64]:
        """Non-zero median count per own token; 1 where unknown. Shape (vocab,)."""
        return self.frame["median"].fillna(1.0).to_numpy()

    @property
    def has_weights(self) -> bool:
        """Whether gene weights were counted."""
        return WEIGHT_COLUMN in self.frame and bool(self.frame[WEIGHT_COLUMN].notna().any())

    @cached_property
    def weights(self) -> npt.NDArray[np.float32]:
        """Weight of each token in a cell's profile; 1 where unknown. Shape (vocab,)."""
        if WEIGHT_COLUMN not in self.frame:
            return np.ones(self.vocab_size, dtype=np.float32)
        return self.frame[WEIGHT_COLUMN].fillna(1.0).to_numpy(dtype=np.float32)

    def cell_medians(self, species: str) -> npt.NDArray[np.float64]:
        """Median that scales each token's counts in a cell of `species`; 1 where unknown. Shape (vocab,)."""
        return self.medians[self.prior_rows(species)]

    def prior_rows(self, species: str) -> npt.NDArray[np.int64]:
        """For every token in a cell of `species`, the row of the prior-knowledge tables to read. Shape (vocab,).

        A mouse cell has the human token of a shared gene but reads the mouse gene's own row. Of several genes
        that share a token, the one with the lowest own token gives its row.
        """
        rows = np.arange(self.vocab_size)
        mine = self.frame[(self.frame["species"] == species) & (self.frame["homolog_token"] >= 0)]
        first = mine.drop_duplicates("homolog_token", keep="first")
        rows[first["homolog_token"].to_numpy()] = first["token"].to_numpy()
        return rows
