"""Adapt a checkpoint to cells without labels: more count splitting, on these cells alone."""

import os
from typing import Any, Unpack

import numpy as np

from ...tokenization.checkpoint_files import check_checkpoint, read_settings
from ...tokenization.errors import InputError
from ...tokenization.gene_table import GeneTable
from ...tokenization.readers import CellOptions, open_cells
from ...tokenization.sources import model_or_default, resolve
from ...tokenization.tokenize import TokenizedCells, tokenize_cells
from .config import load_config
from .pretrain import PretrainResult, pretrain
from .stream import Row

METHODS = ("lora", "full")
# half of what pre-training of the same size takes, and a sixth of it where every weight moves
_RATES = {"lora": 1e-3, "full": 3e-4}


def adapt(
    cells: Any,
    model: str | os.PathLike[str] | None,
    species: str,
    output: str | os.PathLike[str],
    *,
    method: str = "lora",
    rank: int = 8,
    refit_axes: bool = True,
    steps: int = 150,
    learning_rate: float | None = None,
    max_cells: int = 20_000,
    gene_species: str | None = None,
    seed: int = 0,
    device: str | None = None,
    resume: bool = False,
    progress: bool = False,
    **reading: Unpack[CellOptions],
) -> PretrainResult:
    """Go on training a checkpoint's cell vector on some cells, of which no label is looked at.

    Principal components are fitted on the cells that they are asked about; a frozen model has never seen them. This
    lets it see them too, by the task that it was trained on: one part of a cell's counts predicts the other.

    Parameters
    ----------
    cells
        AnnData or path, with raw counts.
    model
        Checkpoint with a cell vector: folder or ``owner/name[@revision]``.
    species, gene_species
        Of the cells (or the ``obs`` column that says it), and of the gene names where it is another.
    output
        Folder of the new checkpoint.
    method
        ``"lora"``: low-rank updates of the encoder, merged at the end, and the cell head. ``"full"``: all weights.
    rank
        Of the updates.
    refit_axes
        Lay the fixed part of the vector along the leading axes of these cells: what principal components would see.
    steps
        Batches of 64 cells.
    learning_rate
        Peak rate; one that suits the method by default.
    max_cells
        Draw so many cells, where there are more.
    seed
        Of the draw, the splits and the order.
    device
        ``"cpu"`` keeps off a GPU that is there.
    resume
        Go on with a run that was cut off.
    progress
        Show a bar.
    **reading
        How the file is read: `CellOptions`.

    Returns
    -------
    PretrainResult

    Raises
    ------
    InputError
        A checkpoint without a cell vector, too few cells, or what `pretrain` refuses.

    Examples
    --------
    >>> import tempfile
    >>> from genecompass.eval.demo.cells import blood_cells
    >>> adapted = adapt(blood_cells(), None, "human", tempfile.mkdtemp() + "/adapted", steps=2, device="cpu")
    >>> adapted.steps
    2
    """
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}; choose {', '.join(METHODS)}")
    unknown = set(reading) - set(CellOptions.__annotations__)
    if unknown:
        raise InputError(f"adapt takes no {min(unknown)!r}")
    model = model_or_default(model)
    base = resolve(model)
    check_checkpoint(base)
    settings = read_settings(base / "config.json")
    if not settings.get("cell_size"):
        raise InputError(f"{model}: has no cell vector to adapt; use a checkpoint pre-trained by count_split")
    table = GeneTable.read(base)
    opened = open_cells(cells, **reading)
    tokenized = tokenize_cells(
        opened, table, species=species, gene_species=gene_species, whole_cells=True, empty_cells="drop"
    )
    rows = _rows(tokenized, [str(name) for name in opened.obs.index], opened.name, max_cells, seed)
    least = int(settings["cell_axes"]) * 5 // 4
    if len(rows) < least:
        raise InputError(f"{opened.name}: {len(rows)} cells are too few to adapt to; {least} or more are needed")
    config = load_config(
        "tiny",
        [
            f"output={output}",
            f"seed={seed}",
            f"model.from_checkpoint={base}",
            f"model.low_rank={rank if method == 'lora' else 0}",
            f"data.max_length={min(512, int(settings['max_position_embeddings']))}",
            f"model.refit_axes={str(refit_axes).lower()}",
            "data.limit_to_corpus_genes=false",
            "masking.task=count_split",
            f"optimisation.max_steps={steps}",
            f"optimisation.learning_rate={learning_rate or _RATES[method]}",
            f"optimisation.device={'cpu' if device == 'cpu' else 'auto'}",
            "evaluation.every_steps=null",
            f"checkpoints.every_steps={max(1, min(500, steps))}",
            "logging.to=[]",
            f"logging.progress_bar={str(progress).lower()}",
        ],
    )
    return pretrain(config, corpus=rows, table=table, resume=resume)


def _rows(tokenized: TokenizedCells, names: list[str], data_set: str, most: int, seed: int) -> list[Row]:
    """Cells as pre-training reads them from memory, all genes of each."""
    chosen = np.arange(len(tokenized))
    if len(chosen) > most:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, most, replace=False))
    return [
        {
            "input_ids": tokenized[cell]["profile_ids"],
            "values": tokenized[cell]["profile_values"],
            "species": tokenized[cell]["species"],
            "cell_id": names[tokenized.rows[cell]],
            "dataset": data_set,
        }
        for cell in chosen.tolist()
    ]
