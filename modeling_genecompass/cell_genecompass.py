"""One vector for a whole cell: what the network makes of it beside a fixed linear reading of its counts."""

import numpy as np
import torch
from torch import nn
from transformers import initialization as init

from .configuration_genecompass import GeneCompassConfig

PER_CELL = 10_000.0


class GeneCompassCellHead(nn.Module):
    """Cell vector of `config.cell_size` numbers, made only where that is above 0.

    The network's part is a linear map of the mean gene state, the species slot and the mean weighted by values. The
    fixed part, the *skip*, is linear in the cell's profile: log(1 + counts per 10,000) times a weight per gene, to
    unit length, along the leading axes of the pre-training corpus, each scaled to variance 1. Their sum is
    normalised. What no training cell looked like is lost in the network's part and kept by the other.

    Counts are read back from values, count = median * (2 ** value - 1), so that tokens are all it needs. Medians,
    weights and axes are buffers: they travel with the checkpoint and never train.
    """

    medians: torch.Tensor
    weights: torch.Tensor
    axes: torch.Tensor
    axes_mean: torch.Tensor
    axes_scale: torch.Tensor

    def __init__(self, config: GeneCompassConfig) -> None:
        super().__init__()
        self.register_buffer("medians", torch.ones(config.num_species, config.vocab_size))
        self.register_buffer("weights", torch.ones(config.vocab_size))
        self.register_buffer("axes", torch.zeros(config.vocab_size, config.cell_axes))
        self.register_buffer("axes_mean", torch.zeros(config.cell_axes))
        self.register_buffer("axes_scale", torch.ones(config.cell_axes))
        self.norm_input = nn.LayerNorm(3 * config.hidden_size, eps=config.layer_norm_eps)
        self.dense = nn.Linear(3 * config.hidden_size, config.cell_size)
        self.skip = nn.Linear(config.cell_axes, config.cell_size, bias=False)
        self.gate_start = config.cell_gate
        self.gate = nn.Parameter(torch.full((1,), config.cell_gate))
        self.norm = nn.LayerNorm(config.cell_size, eps=config.layer_norm_eps, elementwise_affine=False)
        self.profile_columns = config.cell_profile
        self._signs: torch.Tensor | None = None

    def forward(
        self,
        genes: torch.Tensor,
        species_slots: torch.Tensor,
        values: torch.Tensor,
        cell_of_gene: torch.Tensor,
        profile: torch.Tensor,
    ) -> torch.Tensor:
        """Cell vectors.

        Parameters
        ----------
        genes
            States of all gene slots without padding, end to end, (slots, hidden).
        species_slots
            State of each cell's species slot, (cells, hidden).
        values
            Value of each slot, (slots,); below 0 where hidden.
        cell_of_gene
            Cell of each slot, (slots,).
        profile
            From `read_profile`: the part along the axes, (cells, axes).

        Returns
        -------
        torch.Tensor
            (cells, cell_size).
        """
        cells = len(species_slots)
        plain = _sum_by_cell(torch.ones_like(values), genes, cell_of_gene, cells)
        weighted = _sum_by_cell(values.clamp(min=0), genes, cell_of_gene, cells)
        states = torch.cat([plain, species_slots, weighted], dim=1)
        read = self.dense(self.norm_input(states))
        return self.norm(self.gate * read + self.skip(profile.to(read.dtype)))

    def read_profile(
        self, tokens: torch.Tensor, values: torch.Tensor, species: torch.Tensor, cell_of_gene: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Where cells lie along the corpus' axes, and their profile through a fixed random matrix.

        Parameters
        ----------
        tokens, values, cell_of_gene
            Of all slots without padding, end to end, (slots,).
        species
            Of each cell, (cells,).

        Returns
        -------
        along, bag
            (cells, axes) and (cells, cell_profile), float32; a cell without counts lies at the middle of both.
        """
        cells = len(species)
        # float32 whatever the network computes in: a count of thousands has no bfloat16
        with torch.autocast(values.device.type, enabled=False):
            unit, total = self.unit_profile(tokens, values, species, cell_of_gene)
            along = _sum_of(unit, self.axes, tokens, cell_of_gene, cells)
            centred = (along - self.axes_mean.float()) / self.axes_scale.float()
            along = torch.where((total > 0).unsqueeze(1), centred, torch.zeros_like(centred))
            if not self.profile_columns:
                return along, along.new_empty(cells, 0)
            bag = _sum_of(unit, self.signs(), tokens, cell_of_gene, cells)
            length = bag.norm(dim=1, keepdim=True).clamp(min=1e-6)
            return along, bag * self.profile_columns**0.5 / length

    def unit_profile(
        self, tokens: torch.Tensor, values: torch.Tensor, species: torch.Tensor, cell_of_gene: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Weighted log counts of each slot, of length 1 in each cell, (slots,), and counts of each cell, (cells,)."""
        cells = len(species)
        counts = (torch.exp2(values.float().clamp(min=0)) - 1) * self.medians[species[cell_of_gene], tokens].float()
        total = torch.zeros(cells, device=counts.device).index_add(0, cell_of_gene, counts)
        share = counts / total.clamp(min=1e-6)[cell_of_gene]
        weighted = torch.log1p(PER_CELL * share) * self.weights[tokens].float()
        square = torch.zeros(cells, device=counts.device).index_add(0, cell_of_gene, weighted.square())
        return weighted / square.clamp(min=1e-12).sqrt()[cell_of_gene], total

    def signs(self) -> torch.Tensor:
        """The fixed random matrix, (vocab, cell_profile); made anew from its seed instead of being saved.

        The same as ``genecompass.tokenization.profile.bag_matrix``: NumPy promised never to change this generator.
        """
        if self._signs is None or self._signs.device != self.weights.device:
            vocab, columns = len(self.weights), self.profile_columns
            bits = np.frombuffer(np.random.RandomState(0).bytes(vocab * -(-columns // 8)), dtype=np.uint8)
            signs = np.unpackbits(bits.reshape(vocab, -1), axis=1)[:, :columns].astype(np.float32) * 2 - 1
            self._signs = torch.from_numpy(signs).to(self.weights.device)
        return self._signs

    @torch.no_grad()
    def init_own(self) -> None:
        """The start of what no checkpoint filled: no knowledge of the corpus, the skip as it is."""
        init.ones_(self.medians)
        init.ones_(self.weights)
        init.zeros_(self.axes)
        init.zeros_(self.axes_mean)
        init.ones_(self.axes_scale)
        init.copy_(self.skip.weight, torch.eye(*self.skip.weight.shape))
        init.constant_(self.gate, self.gate_start)


class GeneCompassCountDecoder(nn.Module):
    """A cell's counts from its vector: unnormalised log shares of genes.

    The bias is the species' and not the data set's: one for each data set would explain away what sets tissues apart,
    which is what the vector is there to say.
    """

    def __init__(self, config: GeneCompassConfig) -> None:
        super().__init__()
        self.genes = nn.Embedding(config.vocab_size, config.cell_size)
        self.bias = nn.Embedding(config.num_species, config.vocab_size)

    def forward(
        self, cell_embedding: torch.Tensor, species: torch.Tensor, tokens: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Log shares (cells, genes) up to a constant of each cell.

        Parameters
        ----------
        cell_embedding
            (cells, cell_size).
        species
            (cells,).
        tokens
            Genes that are asked for, (genes,); the whole vocabulary where None.
        """
        genes, bias = self.genes.weight, self.bias.weight
        if tokens is not None:
            genes, bias = genes[tokens], bias[:, tokens]
        return cell_embedding @ genes.T.to(cell_embedding.dtype) + bias[species].to(cell_embedding.dtype)


def _sum_by_cell(weights: torch.Tensor, genes: torch.Tensor, cell_of_gene: torch.Tensor, cells: int) -> torch.Tensor:
    """Weighted mean of each cell's genes, (cells, hidden); 0 for a cell without weight."""
    weights = weights.to(genes.dtype).unsqueeze(1)
    sums = genes.new_zeros(cells, genes.shape[1]).index_add(0, cell_of_gene, genes * weights)
    total = genes.new_zeros(cells, 1).index_add(0, cell_of_gene, weights)
    return sums / total.clamp(min=1e-6)


def _sum_of(
    unit: torch.Tensor, axes: torch.Tensor, tokens: torch.Tensor, cell_of_gene: torch.Tensor, cells: int
) -> torch.Tensor:
    """Sum over each cell's genes of their number times their row of `axes`, (cells, axes)."""
    starts = torch.searchsorted(cell_of_gene.contiguous(), torch.arange(cells, device=cell_of_gene.device))
    return nn.functional.embedding_bag(tokens, axes.float(), starts, mode="sum", per_sample_weights=unit)
