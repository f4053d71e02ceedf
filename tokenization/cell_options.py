"""How cells are read: the one set of options that every function and command takes."""

from typing import Any, TypedDict, cast

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
    shared_genes
        Other cells (path or AnnData): genes that they do not measure are left out. Cells that are compared are then
        read over the same genes.

    Examples
    --------
    >>> options: CellOptions = {"counts": "spliced", "rescue_ids": True}
    """

    counts: str
    gene_column: str | None
    rescue_ids: bool
    allow_fractional: bool
    min_coverage: float
    shared_genes: Any


def take_reading(options: dict[str, Any]) -> CellOptions:
    """Take those that say how cells are read out of other options.

    Examples
    --------
    >>> options = {"counts": "X", "epochs": 3}
    >>> take_reading(options), options
    ({'counts': 'X'}, {'epochs': 3})
    """
    return cast(CellOptions, {name: options.pop(name) for name in CellOptions.__annotations__ if name in options})
