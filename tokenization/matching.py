"""Which token every column of a count matrix has, and what of the matrix that leaves out."""

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from .coverage import CoverageReport
from .errors import InputError
from .gene_index import BY_ALIAS, BY_ID, BY_PREVIOUS, BY_SYMBOL, id_family
from .gene_table import GeneTable
from .readers import CellSource

# where files keep gene ids and symbols, besides the names of the variables
ID_COLUMNS = ("ensembl_id", "gene_id", "gene_ids", "feature_id", "ensembl", "ensembl_gene_id", "Accession", "id")
SYMBOL_COLUMNS = (
    "gene_symbol",
    "gene_symbols",
    "feature_name",
    "gene_name",
    "gene_names",
    "symbol",
    "gene_short_name",
    "Gene",
    "name",
    "var_names",
)
_LARGEST_WRONG_SHARE = 0.5
# below this share of names that are ids or current symbols, short old names are taken for accidents
_CERTAIN_SHARE = 0.2
_CHANCE_NAME = re.compile(r"^[A-Za-z]{0,2}[-_.]?\d{0,4}$")


@dataclass
class GeneMatch:
    """Columns of one matrix, read as genes of one species' cells.

    Attributes
    ----------
    column_token
        Own token of each column's gene; -1 where unknown or ambiguous. Shape (genes,).
    cell_token
        The token that stands for it in a cell: the homolog's where the gene has one. Columns with the same token
        are summed. Shape (genes,).
    column_median
        Median count that scales the column. Genes of a species that share a token share the median of the lowest
        own token among them, so that a token has one scale whatever the matrix measured. Shape (genes,).
    report
        How many genes were found and how; filled with counts as cells are read.
    """

    column_token: npt.NDArray[np.int64]
    cell_token: npt.NDArray[np.int32]
    column_median: npt.NDArray[np.float64]
    species: str
    species_index: int
    names: Sequence[str]
    report: CoverageReport = field(repr=False)


def match_genes(
    var: pd.DataFrame,
    table: GeneTable,
    *,
    species: str,
    gene_species: str | None = None,
    column: str | None = None,
    rescue_ids: bool = False,
    mixed: bool = False,
) -> GeneMatch:
    """Find the token of every column of a matrix.

    A column with an Ensembl id is looked up by that alone; one without by its current symbol, else by a previous or
    alias symbol, provided that this name means one gene only and that gene is not in the matrix already.

    Parameters
    ----------
    var
        One row per column of the matrix; the index and well-known columns hold ids and symbols.
    table
        The vocabulary.
    species
        Species of the cells.
    gene_species
        Species of the gene names; default `species`. Mouse cells whose counts were mapped to human orthologs have
        ``species="mouse", gene_species="human"``.
    column
        Column of `var` that holds ids or symbols; then nothing else is looked at.
    rescue_ids
        Look columns whose id the vocabulary does not know up by their symbol: ids that Ensembl has retired since
        the data were made. The report says how many there are (``rescuable``).
    mixed
        The matrix also holds genes of other species, whose cells stand in the same file.

    Raises
    ------
    InputError
        For an unknown species or column, names of another species, or no known gene at all.

    Examples
    --------
    >>> table = GeneTable.from_genes(pd.DataFrame({"gene_id": ["ENSG00000254647"], "symbol": ["INS"],
    ...                                            "species": ["human"]}))
    >>> match_genes(pd.DataFrame(index=["INS", "nothing"]), table, species="human").column_token
    array([ 2, -1])
    """
    cells = table.species_index(species)
    species = table.species_called(species)
    gene_species = table.species_called(gene_species or species)
    table.species_index(gene_species)
    ids, symbols = column_names(var, column, set(table.index.symbols))
    _check_ids(ids, table, gene_species, mixed)
    tokens, how, rescuable = table.index.find_columns(ids, symbols, gene_species, rescue_ids=rescue_ids)
    _drop_chance_hits(symbols, ids, tokens, how)
    _check_symbols(symbols, tokens, how, table, gene_species)
    names = [symbol or gene_id for symbol, gene_id in zip(symbols, ids, strict=True)]
    if not (tokens >= 0).any():
        shown = ", ".join(repr(str(name)) for name in list(var.index[:3]))
        raise InputError(
            f"none of the {len(var)} genes is known as a {gene_species} gene of this vocabulary (first: {shown}); "
            "name the column that holds Ensembl ids or symbols, or check the species"
        )
    own = table.index.as_cell_genes(tokens, species)
    safe = np.where(own >= 0, own, 0)
    cell_token = np.where(own >= 0, table.index.token_in_cell[safe], -1).astype(np.int32)
    report = CoverageReport.of(names, how, mapped=(own >= 0) & (cell_token != own), species=species)
    report.rescuable = rescuable
    return GeneMatch(
        column_token=own,
        cell_token=cell_token,
        column_median=table.index.value_medians[safe],
        species=species,
        species_index=cells,
        names=names,
        report=report,
    )


def match_columns(
    cells: CellSource, table: GeneTable, *, species: str, gene_species: str | None = None, mixed: bool = False
) -> GeneMatch:
    """`match_genes` of an open file, as it was said when it was opened that its genes are named."""
    match = match_genes(
        cells.var,
        table,
        species=species,
        gene_species=gene_species,
        column=cells.gene_column,
        rescue_ids=cells.rescue_ids,
        mixed=mixed,
    )
    if cells.shared_genes is None:
        return match
    apart = ~np.isin(match.cell_token, measured_tokens(cells.shared_genes, table))
    match.report.not_shared = int((apart & (match.cell_token >= 0)).sum())
    if match.report.not_shared == match.report.matched:
        raise InputError(f"{cells.name} and {cells.shared_genes.name} share no gene that the vocabulary knows")
    return replace(
        match,
        column_token=np.where(apart, -1, match.column_token),
        cell_token=np.where(apart, -1, match.cell_token).astype(np.int32),
    )


def measured_tokens(cells: CellSource, table: GeneTable) -> npt.NDArray[np.int32]:
    """Tokens that cells of a file can hold, whatever its species: that of which most of its genes are known.

    Raises
    ------
    InputError
        Its genes are not known of any species.
    """
    ids, symbols = column_names(cells.var, cells.gene_column, set(table.index.symbols))
    found = [table.index.find_columns(ids, symbols, species)[0] for species in table.species]
    tokens = max(found, key=lambda own: int((own >= 0).sum()))
    if not (tokens >= 0).any():
        raise InputError(f"{cells.name}: none of its genes is known, so none can be shared")
    return np.unique(table.index.token_in_cell[tokens[tokens >= 0]]).astype(np.int32)


def column_names(
    var: pd.DataFrame, column: str | None = None, known: Set[str] = frozenset()
) -> tuple[list[str], list[str]]:
    """Ensembl ids and symbols of every column of a matrix; empty text where there is none.

    Parameters
    ----------
    var
        One row per column.
    column
        Look at this column of `var` alone.
    known
        Symbols of the vocabulary, to tell columns of symbols from others.
    """
    index = _texts(var.index)
    if column is not None:
        if column not in var.columns:
            raise InputError(f"no var column {column!r}; there are: {', '.join(map(str, var.columns)) or 'none'}")
        names = _texts(var[column])
        return [n if id_family(n) else "" for n in names], ["" if id_family(n) else n for n in names]
    ids = [name if id_family(name) else "" for name in index]
    # columns of text under any other name are looked through too, after those that the field uses
    others = [name for name in var.columns if name not in (*ID_COLUMNS, *SYMBOL_COLUMNS) and _is_text(var[name])]
    for name in (*ID_COLUMNS, *others):
        if name in var.columns and sum(map(bool, ids)) < len(ids):
            found = [text if id_family(text) else "" for text in _texts(var[name])]
            if name in ID_COLUMNS or sum(map(bool, found)) > len(found) / 2:
                ids = [a or b for a, b in zip(ids, found, strict=True)]
    candidates = [["" if id_family(name) else name for name in index]]
    candidates += [_texts(var[name]) for name in (*SYMBOL_COLUMNS, *others) if name in var.columns]
    symbols = max(candidates, key=lambda names: sum(name in known for name in names if name))
    return ids, symbols


def _is_text(values: pd.Series) -> bool:
    return not (pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values))


def _texts(values: pd.Series | pd.Index) -> list[str]:
    return ["" if value is None or value != value else str(value).strip() for value in values.tolist()]


def _check_ids(ids: list[str], table: GeneTable, species: str, mixed: bool) -> None:
    """Refuse ids of another species: human ids begin with ENSG, mouse ids with ENSMUSG, as the table's own tell."""
    families = pd.Series([family for family in map(id_family, ids) if family], dtype=object)
    if families.empty:
        return
    homes = table.index.species_of_ids
    if species not in homes.values():
        return
    wrong = families[families.map(homes) != species]
    if mixed and len(wrong) < len(families):
        return
    if len(wrong) > _LARGEST_WRONG_SHARE * len(families):
        family = wrong.mode().iloc[0]
        other = homes.get(family)
        whose = f"{other} genes" if other else "a species that this vocabulary does not know"
        raise InputError(
            f"{len(wrong)} of {len(families)} gene ids begin with {family}: {whose}, not {species}"
            + (
                f"; pass species={other!r}, or gene_species={other!r} if the counts were mapped to orthologs"
                if other
                else ""
            )
        )


def _drop_chance_hits(
    symbols: list[str], ids: list[str], tokens: npt.NDArray[np.int64], how: npt.NDArray[np.int8]
) -> None:
    """Short names such as ``A1`` are aliases of some gene by chance: not believed where hardly a name is known."""
    certain = int(((how == BY_ID) | (how == BY_SYMBOL)).sum())
    if certain > _CERTAIN_SHARE * max(1, len(how)):
        return
    for i in np.flatnonzero((how == BY_PREVIOUS) | (how == BY_ALIAS)).tolist():
        if _CHANCE_NAME.match(symbols[i] or ids[i]):
            tokens[i], how[i] = -1, 0


def _check_symbols(
    symbols: list[str], tokens: npt.NDArray[np.int64], how: npt.NDArray[np.int8], table: GeneTable, species: str
) -> None:
    """Refuse symbols of another species: exact capitals tell INS from Ins."""
    if (how == BY_ID).any():
        return
    named = [symbol for symbol in symbols if symbol]
    found = int((how == BY_SYMBOL).sum())
    for other in table.species:
        if other == species or not named:
            continue
        elsewhere = int((table.index.look_up(named, other)[1] == BY_SYMBOL).sum())
        if elsewhere > 2 * found:
            raise InputError(
                f"{elsewhere} of {len(named)} gene symbols are written as {other} symbols and {found} as {species} "
                f"ones; pass species={other!r}, or gene_species={other!r} if the counts were mapped to orthologs"
            )
    if not named or found >= 0.05 * len(named):
        return
    current = {
        name.casefold() for name, s in zip(table.index.symbols, table.index.gene_species, strict=True) if s == species
    }
    folded = sum(symbol.casefold() in current for symbol in named)
    if folded >= 10 and folded > 4 * found + len(named) // 4:
        raise InputError(
            f"{folded} of {len(named)} gene symbols match {species} genes only when capitals are ignored: they look "
            "like another species' symbols; check the species, or pass Ensembl ids"
        )
