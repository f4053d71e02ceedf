"""What is counted of training cells before count splitting: gene weights, leading axes, gene shares by species."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, svds

from ...modeling_genecompass import GeneCompassForMaskedGeneModeling
from ...modeling_genecompass.cell_genecompass import GeneCompassCellHead
from ...tokenization.errors import InputError
from ...tokenization.gene_table import WEIGHT_COLUMN, GeneTable
from ...tokenization.profile import counts_of_values, gene_weights, profiles
from .stream import Row

# gene embeddings start from the leading axes, each of this spread, on random numbers of half their usual size
START_SPREAD = 0.3
START_RANDOM = 0.5
# share of a cell's counts below which a gene never falls: what a species was never seen to express stays possible
_LEAST_SHARE = 1e-8


@dataclass(frozen=True)
class CellStatistics:
    """Statistics of some training cells; data sets count by the square root of their cells.

    Parameters
    ----------
    weights
        Weight of every token. float32 (vocab,).
    axes, mean, scale
        Leading axes of the weighted profiles, where the mean profile lies along them, and the standard deviation of
        cells. float32 (vocab, axes), (axes,), (axes,).
    log_share
        Logarithm of each token's mean share of a cell's counts. float32 (species, vocab).
    measured
        Data set to the tokens that at least one of its cells expresses; others count as not measured there.
        bool (vocab,).
    data_set_weight
        Data set to what one of its cells weighs, mean 1 over cells.
    """

    weights: npt.NDArray[np.float32]
    axes: npt.NDArray[np.float32]
    mean: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]
    log_share: npt.NDArray[np.float32]
    measured: dict[str, npt.NDArray[np.bool_]]
    data_set_weight: dict[str, float]

    @classmethod
    def count(cls, cells: Sequence[Row], table: GeneTable, *, axes: int = 128) -> "CellStatistics":
        """Count them on some cells.

        Parameters
        ----------
        cells
            Rows with ``input_ids``, ``values`` of *all* expressed genes, ``species`` (index) and ``dataset``.
        table
            The vocabulary. Its gene weights are used where it has them; else they are counted here.
        axes
            How many axes.

        Raises
        ------
        InputError
            Fewer cells than axes.

        Examples
        --------
        >>> import pandas as pd
        >>> genes = pd.DataFrame({"gene_id": [f"ENSG{i}" for i in range(6)], "species": "human"})
        >>> draw = np.random.default_rng(0)
        >>> cells = [{"input_ids": np.arange(2, 8), "values": draw.random(6) + 0.1, "species": 0} for _ in range(9)]
        >>> CellStatistics.count(cells, GeneTable.from_genes(genes), axes=2).axes.shape
        (8, 2)
        """
        if min(len(cells), table.vocab_size) <= axes + 1:
            raise InputError(
                f"{len(cells)} training cells of {table.vocab_size} genes are too few for {axes} axes of the cell "
                "vector; give more, or set model.overrides cell_axes and cell_size to less"
            )
        lengths = np.array([len(cell["input_ids"]) for cell in cells])
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        tokens = np.concatenate([np.asarray(cell["input_ids"], dtype=np.int64) for cell in cells])
        species = np.array([int(cell["species"]) for cell in cells])
        counts = _counts(cells, lengths, tokens, species, table)
        names, data_set = np.unique([data_set_of(cell) for cell in cells], return_inverse=True)
        size = np.bincount(data_set)
        by_cell = np.sqrt(size)[data_set] / size[data_set]
        by_cell /= by_cell.mean()

        expressed = sparse.csr_matrix((np.ones(len(tokens)), (np.repeat(data_set, lengths), tokens)))
        expressed.resize((len(names), table.vocab_size))
        share_of_cells = expressed.toarray() / size[:, None]
        measured = share_of_cells > 0
        weights = table.weights if table.has_weights else _weights(share_of_cells, measured)
        profile = profiles(indptr, tokens, counts, weights)
        directions, mean, scale = _leading_axes(profile, by_cell / by_cell.sum(), axes)
        return cls(
            weights=weights,
            axes=directions,
            mean=mean,
            scale=scale,
            log_share=_log_shares(indptr, tokens, counts, species, by_cell, table),
            measured={str(name): measured[number] for number, name in enumerate(names)},
            data_set_weight={str(name): float(by_cell[data_set == number][0]) for number, name in enumerate(names)},
        )

    def put_into(self, table: GeneTable) -> GeneTable:
        """The gene table with these weights."""
        return GeneTable(table.frame.assign(**{WEIGHT_COLUMN: self.weights.astype(np.float64)}))

    @torch.no_grad()
    def start(self, model: GeneCompassForMaskedGeneModeling) -> None:
        """Start a model's gene embeddings and count decoder from the axes and the shares."""
        width = min(self.axes.shape[1], model.config.cell_size)
        decoder = model.count_decoder
        decoder.genes.weight.zero_()
        decoder.genes.weight[:, :width] = torch.from_numpy(self.axes * self.scale)[:, :width]
        decoder.bias.weight.copy_(torch.from_numpy(self.log_share))
        embeddings = model.genecompass.embeddings.word_embeddings.weight
        leading = self.axes[:, : embeddings.shape[1]]
        spread = leading.std(axis=0)
        embeddings *= START_RANDOM
        embeddings[:, : leading.shape[1]] += torch.from_numpy(leading * (START_SPREAD / np.maximum(spread, 1e-12)))

    @torch.no_grad()
    def refit(self, model: GeneCompassForMaskedGeneModeling, table: GeneTable) -> None:
        """Let a trained model's fixed part lie along the axes of these cells, and its decoder start from them."""
        self.fill_buffers(model, table)
        head = cast(GeneCompassCellHead, model.genecompass.cell_head)
        head.skip.weight.copy_(torch.eye(*head.skip.weight.shape))
        width = min(self.axes.shape[1], model.config.cell_size)
        model.count_decoder.genes.weight[:, :width] = torch.from_numpy(self.axes * self.scale)[:, :width]

    @torch.no_grad()
    def fill_buffers(self, model: GeneCompassForMaskedGeneModeling, table: GeneTable) -> None:
        """Medians, weights and axes of a model's cell head."""
        head = cast(GeneCompassCellHead, model.genecompass.cell_head)
        head.medians.copy_(torch.from_numpy(np.stack([table.cell_medians(name) for name in table.species])))
        head.weights.copy_(torch.from_numpy(self.weights))
        head.axes.copy_(torch.from_numpy(self.axes))
        head.axes_mean.copy_(torch.from_numpy(self.mean))
        head.axes_scale.copy_(torch.from_numpy(self.scale))


def data_set_of(row: Row) -> str:
    """Name of a row's data set; empty where rows do not say."""
    return str(row.get("dataset", ""))


def _counts(
    cells: Sequence[Row],
    lengths: npt.NDArray[np.int64],
    tokens: npt.NDArray[np.int64],
    species: npt.NDArray[np.int64],
    table: GeneTable,
) -> npt.NDArray[np.float64]:
    medians = np.stack([table.cell_medians(name) for name in table.species])
    values = np.concatenate([np.asarray(cell["values"], dtype=np.float64) for cell in cells])
    return counts_of_values(values, np.repeat(species, lengths) * table.vocab_size + tokens, medians.ravel())


def _weights(share: npt.NDArray[np.float64], measured: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    with np.errstate(invalid="ignore"):
        mean = share.sum(axis=0) / np.where(measured.any(axis=0), measured.sum(axis=0), np.nan)
    return np.nan_to_num(gene_weights(mean), nan=1.0).astype(np.float32)


def _leading_axes(
    profile: sparse.csr_matrix, weight: npt.NDArray[np.float64], axes: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Singular vectors of weighted, centred profiles that are never made dense."""
    root = np.sqrt(weight)
    rows = sparse.diags(root) @ profile.astype(np.float64)
    mean = np.asarray(profile.T @ weight).ravel()
    flat = rows.tocsr()
    across = flat.T.tocsr()

    def along(vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        vector = vector.ravel()
        return flat @ vector - root * float(mean @ vector)

    def back(vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        vector = vector.ravel()
        return across @ vector - mean * float(root @ vector)

    centred = LinearOperator(profile.shape, matvec=along, rmatvec=back, dtype=np.float64)
    start = np.random.RandomState(0).standard_normal(min(profile.shape))
    _, strength, directions = svds(centred, k=axes, v0=start)
    order = np.argsort(-strength)
    strength, directions = strength[order], directions[order]
    # an axis has no sign of its own: its largest entry is positive, whatever the order of the cells
    largest = directions[np.arange(axes), np.abs(directions).argmax(axis=1)]
    directions = (directions * np.sign(largest)[:, None]).T
    scale = np.maximum(strength, 1e-6)
    return directions.astype(np.float32), (mean @ directions).astype(np.float32), scale.astype(np.float32)


def _log_shares(
    indptr: npt.NDArray[np.int64],
    tokens: npt.NDArray[np.int64],
    counts: npt.NDArray[np.float64],
    species: npt.NDArray[np.int64],
    by_cell: npt.NDArray[np.float64],
    table: GeneTable,
) -> npt.NDArray[np.float32]:
    lengths = np.diff(indptr)
    row = np.repeat(np.arange(len(lengths)), lengths)
    total = np.bincount(row, weights=counts, minlength=len(lengths))
    share = counts / np.maximum(total, 1e-6)[row] * by_cell[row]
    found = np.full((len(table.species), table.vocab_size), _LEAST_SHARE)
    for code in range(len(table.species)):
        mine = species[row] == code
        sums = np.bincount(tokens[mine], weights=share[mine], minlength=table.vocab_size)
        found[code] = np.maximum(sums / max(by_cell[species == code].sum(), 1e-6), _LEAST_SHARE)
    return np.log(found).astype(np.float32)
