"""Label the cells of a file, into a copy that keeps every other entry."""

import os
from pathlib import Path
from typing import Any

from ...tokenization.cell_options import take_reading
from ...tokenization.errors import InputError
from ...tokenization.readers import open_cells
from ..cells import require_species
from ..h5ad import add_to_h5ad, check_key
from .in_memory import LABEL_KEY, Reference, annotation_table


def annotate_file(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    species: str | None = None,
    *,
    reference: Reference | None = None,
    **options: Any,
) -> Path:
    """Label the cells of an ``.h5ad`` file; counts are streamed, only labels and scores are held.

    Parameters
    ----------
    source, output
        ``.h5ad`` files; may not be the same.
    model, species, reference
        As for `annotate`.
    **options
        As for `annotate`, with those that say how a file is read (`CellOptions`).

    Returns
    -------
    Path
        `output`.

    Raises
    ------
    InputError
        As `annotate`.

    Examples
    --------
    >>> annotate_file("query.h5ad", "labelled.h5ad", "runs/pbmc", "human", threshold=0.8)  # doctest: +SKIP
    PosixPath('labelled.h5ad')
    """
    source, output = Path(source), Path(output)
    check_key(options.get("key", LABEL_KEY), "obs")
    if source.suffix != ".h5ad" or output.suffix != ".h5ad":
        raise InputError(f"{source} -> {output}: reads and writes .h5ad; for other files read them and call annotate")
    reading = take_reading(options)
    cells = open_cells(source, **reading)
    if output.exists() and source.samefile(output):
        raise InputError(f"{output}: would overwrite its own input; choose another output")
    table, uns = annotation_table(cells, model, require_species(species), reference=reference, **options)
    add_to_h5ad(source, output, obs=table, uns={"genecompass": uns})
    return output
