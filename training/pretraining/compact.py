"""A trained checkpoint made small enough to travel: the encoder alone, genes that cells show, rows in eight bits."""

import os
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file

from ...modeling_genecompass import GeneCompassModel
from ...modeling_genecompass.cell_genecompass import GeneCompassCellHead
from ...tokenization.checkpoint_files import check_checkpoint
from ...tokenization.errors import InputError
from ...tokenization.files import atomic_path
from ...tokenization.gene_table import GeneTable
from ...tokenization.processing_genecompass import GeneCompassProcessor
from .model_setup import limit_table

# tensors with a row a gene, which are nearly all of a small checkpoint
_ROWS = ("embeddings.word_embeddings.weight", "cell_head.axes")
# by which axes are multiplied, so that their small numbers are no subnormal ones in eight bits
_AXES_UP = 64.0
_EIGHT_BITS = torch.float8_e4m3fn


def compact(
    checkpoint: str | os.PathLike[str],
    output: str | os.PathLike[str],
    cells_of_gene: dict[str, int],
    *,
    min_cells: int = 10,
    max_length: int | None = None,
) -> Path:
    """Write a small copy of a checkpoint's encoder.

    Numbers of gene embeddings and axes are rounded to eight bits (three of them behind the point); everything else,
    and what the network computes in, stays float32.

    Parameters
    ----------
    checkpoint
        Folder with a cell vector and without prior tables.
    output
        New folder.
    cells_of_gene
        Gene id to the cells of the corpus that express it: see `count_cells_of_genes`.
    min_cells
        Genes of fewer cells are left out, unless the token of another gene is theirs.
    max_length
        Genes that the processor keeps; as the checkpoint's where None.

    Returns
    -------
    pathlib.Path
        `output`.

    Raises
    ------
    InputError
        A checkpoint with priors, without a cell vector, or a folder that is there already.
    """
    folder, output = Path(checkpoint), Path(output)
    check_checkpoint(folder)
    if output.exists():
        raise InputError(f"{output}: is there already; choose another name")
    table = GeneTable.read(folder)
    model = GeneCompassModel.from_pretrained(folder)
    if model.config.priors or not model.config.cell_size:
        raise InputError(f"{folder}: compact takes checkpoints with a cell vector and without prior tables")
    kept = limit_table(table, {gene for gene, cells in cells_of_gene.items() if cells >= min_cells})
    small = _with_rows(model, _old_rows(table, kept), kept)
    with atomic_path(output) as temporary:
        small.save_pretrained(temporary)
        length = max_length or model.config.max_position_embeddings
        GeneCompassProcessor.from_gene_table(kept, max_length=length).save_pretrained(temporary)
        weights = load_file(temporary / "model.safetensors")
        rounded = {name: tensor.to(_EIGHT_BITS) if name in _ROWS else tensor for name, tensor in weights.items()}
        save_file(rounded, temporary / "model.safetensors", metadata={"format": "pt"})
    return output


def count_cells_of_genes(corpus: str | os.PathLike[str]) -> dict[str, int]:
    """Gene id to the number of a corpus' cells that express it."""
    import pyarrow.parquet as pq

    found: dict[str, int] = {}
    for axis in sorted((Path(corpus) / "genes").glob("*.parquet")):
        ids = pq.read_table(axis, columns=["gene_id"])["gene_id"].to_pylist()
        cells = np.zeros(len(ids), dtype=np.int64)
        for shard in sorted((Path(corpus) / "data" / axis.stem).glob("*.parquet")):
            for batch in pq.ParquetFile(shard).iter_batches(columns=["genes"]):
                cells += np.bincount(batch["genes"].flatten().to_numpy(), minlength=len(ids))
        for gene, number in zip(ids, cells.tolist(), strict=True):
            if gene:
                found[gene] = found.get(gene, 0) + number
    return found


def _old_rows(table: GeneTable, kept: GeneTable) -> npt.NDArray[np.int64]:
    """Row in `table` of every row of `kept`."""
    place = {gene: row for row, gene in enumerate(table.frame["gene_id"].tolist())}
    return np.array([place[gene] for gene in kept.frame["gene_id"].tolist()], dtype=np.int64)


@torch.no_grad()
def _with_rows(model: GeneCompassModel, rows: npt.NDArray[np.int64], table: GeneTable) -> GeneCompassModel:
    """The model with these rows of its vocabulary alone."""
    chosen = torch.from_numpy(rows)
    config: Any = type(model.config)(**{**model.config.to_dict(), "vocab_size": len(rows)})
    small = GeneCompassModel(config).eval()
    state = model.state_dict()
    for name, tensor in small.state_dict().items():
        if name.endswith("prior_rows"):
            tensor.copy_(torch.arange(len(rows)).expand_as(tensor))
        elif tensor.shape == state[name].shape:
            tensor.copy_(state[name])
        else:
            axis = list(state[name].shape).index(model.config.vocab_size)
            tensor.copy_(state[name].index_select(axis, chosen))
    head = cast(GeneCompassCellHead, small.cell_head)
    for buffer in (head.axes, head.axes_mean, head.axes_scale):
        buffer *= _AXES_UP  # a common factor of all three changes nothing of what the head reads
    return small
