"""How cells are read: the one set of options that every function and command takes."""

from typing import TypedDict

# below this share of counts in known genes, a file is refused
LEAST_COVERAGE = 0.05


class CellOptions(TypedDict, total=False):
    """Options of `open_cells`, which every function that reads cells takes by name.

    Parameters
    ----------
    counts
        ``"auto"`` finds the raw counts; or ``"X"``, ``"raw"``, the name of a layer.
    gene_column
        Column of ``var`` that holds Ensembl ids or symbols; default: found by itself.
    rescue_ids
        Look genes whose id the vocabulary does not know up by their symbol; see `match_genes`.
    allow_fractional
        Take counts that are not whole numbers, as some quantifiers estimate them.
    min_coverage
        Share of the first cells' counts that known genes must hold; 0 takes whatever is known.

    Examples
    --------
    >>> options: CellOptions = {"counts": "spliced", "rescue_ids": True}
    """

    counts: str
    gene_column: str | None
    rescue_ids: bool
    allow_fractional: bool
    min_coverage: float
