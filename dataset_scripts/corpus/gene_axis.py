"""The corpus's own gene axis, one per species: append-only, and it loses no column of any source."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from genecompass.tokenization.gene_index import bare_gene_id

AXIS_COLUMNS = ("gene_id", "symbol", "gene_species")
_ID_COLUMNS = ("ensembl_id", "gene_id", "gene_ids", "feature_id", "ensembl", "ensembl_gene_id")
_SYMBOL_COLUMNS = ("gene_symbol", "gene_symbols", "symbol", "gene_name", "feature_name")


def source_genes(
    var: pd.DataFrame, *, gene_species: str, matched_ids: npt.NDArray[np.str_] | None = None
) -> pd.DataFrame:
    """What a source's columns are called on the corpus's axis.

    A column is known by its Ensembl id where it has one (its own, else the one that a vocabulary matched), else by
    its symbol. Where two columns of a source would be the same gene, the later one goes by its symbol alone, so that
    no two columns are ever added up.

    Parameters
    ----------
    var
        The source's gene annotation, indexed by variable name. Shape (n_genes, any).
    gene_species
        Species of these genes.
    matched_ids
        Gene ids that a vocabulary gives the columns, empty where it knows none. Shape (n_genes,).

    Returns
    -------
    pandas.DataFrame
        ``gene_id`` (may be empty), ``symbol``, ``gene_species``; rows are unique. Shape (n_genes, 3).

    Examples
    --------
    >>> var = pd.DataFrame({"ensembl_id": ["ENSG00000254647.7", ""]}, index=["INS", "novel"])
    >>> source_genes(var, gene_species="human")["gene_id"].tolist()
    ['ENSG00000254647', '']
    """
    names = pd.Series(var.index.astype(str).to_numpy(), dtype=object)
    gene_id = _ensembl_ids(var, names)
    if matched_ids is not None:
        gene_id = gene_id.where(gene_id != "", pd.Series(matched_ids, index=gene_id.index, dtype=object))
    gene_id = gene_id.mask(gene_id.duplicated() & (gene_id != ""), "")
    column = next((name for name in _SYMBOL_COLUMNS if name in var.columns), None)
    symbol = names if column is None else var[column].astype(str).reset_index(drop=True)
    symbol = symbol.where(~symbol.isin(["", "nan", "None"]), names)
    # Without an id the symbol is all there is: make it unique among its like, as AnnData does with repeated names.
    bare = gene_id == ""
    repeat = symbol[bare].groupby(symbol[bare]).cumcount()
    symbol.loc[bare] = symbol[bare] + repeat.map(lambda n: f"-{n}" if n else "")
    again = bare & symbol.where(bare, "").duplicated() & bare
    symbol.loc[again] = symbol[again] + "-column" + symbol.index[again].astype(str)
    return pd.DataFrame({"gene_id": gene_id, "symbol": symbol, "gene_species": gene_species}).astype(str)


def _ensembl_ids(var: pd.DataFrame, names: pd.Series) -> pd.Series:
    """Ids without version from the column that has most of them, or from the names; empty where there is none."""
    best, most = [""] * len(names), 0
    for values in [*(var[column].astype(str) for column in _ID_COLUMNS if column in var.columns), names]:
        ids = [bare_gene_id(value) or "" for value in values.tolist()]
        found = len(ids) - ids.count("")
        if found > most:
            best, most = ids, found
        if most > len(names) / 2:
            break
    return pd.Series(best, dtype=object)


def axis_keys(genes: pd.DataFrame) -> pd.Index:
    """One text per gene that says which gene it is: its species and its id, or its symbol where it has no id.

    Examples
    --------
    >>> axis_keys(pd.DataFrame({"gene_id": [""], "symbol": ["Ins1"], "gene_species": ["mouse"]}))[0]
    'mouse symbol Ins1'
    """
    label = np.where(genes["gene_id"] != "", "id " + genes["gene_id"], "symbol " + genes["symbol"])
    return pd.Index(genes["gene_species"] + " " + label)


def extend_axis(
    axis: pd.DataFrame | None, genes: list[pd.DataFrame], detected: list[npt.NDArray[np.int64]]
) -> pd.DataFrame:
    """Append the genes that an axis lacks, the most often expressed first.

    Frequent genes get small, dense indices, which delta encoding turns into about 0.6 bytes a gene, against 1.0 in
    the order of the sources. What is on the axis already never moves.

    Parameters
    ----------
    axis
        The axis so far; None for a new corpus.
    genes
        The genes of each source, from `source_genes`.
    detected
        Per source, in how many cells each of its columns is expressed. Shapes (n_genes of that source,).

    Returns
    -------
    pandas.DataFrame
        ``gene_id``, ``symbol``, ``gene_species``; the position is the index that cells refer to.

    Examples
    --------
    >>> genes = pd.DataFrame({"gene_id": ["", ""], "symbol": ["rare", "common"], "gene_species": "human"})
    >>> extend_axis(None, [genes], [np.array([1, 50])])["symbol"].tolist()
    ['common', 'rare']
    """
    if axis is None:
        axis = pd.DataFrame({name: pd.Series(dtype=str) for name in AXIS_COLUMNS})
    if not genes:
        return axis
    pooled = pd.concat(genes, ignore_index=True)
    pooled["key"] = axis_keys(pooled)
    pooled["detected"] = np.concatenate(detected)
    totals = pooled.groupby("key", sort=True)["detected"].sum()
    first = pooled.drop_duplicates("key").set_index("key").loc[totals.index, list(AXIS_COLUMNS)]
    new = first.assign(detected=totals)[~totals.index.isin(axis_keys(axis))]
    new = new.sort_values("detected", ascending=False, kind="stable")
    return pd.concat([axis, new[list(AXIS_COLUMNS)]], ignore_index=True)


def axis_positions(axis: pd.Index, genes: pd.DataFrame) -> npt.NDArray[np.int32]:
    """Index on an axis, given by its `axis_keys`, of each of a source's genes. Shape (n_genes,).

    Raises
    ------
    KeyError
        When a gene is missing.

    Examples
    --------
    >>> genes = pd.DataFrame({"gene_id": ["", ""], "symbol": ["a", "b"], "gene_species": "human"})
    >>> axis_positions(axis_keys(genes[::-1]), genes).tolist()
    [1, 0]
    """
    keys = axis_keys(genes)
    positions = axis.get_indexer(keys)
    if (positions < 0).any():
        raise KeyError(f"gene {keys[positions < 0][0]!r} is not on the axis")
    return positions.astype(np.int32)
