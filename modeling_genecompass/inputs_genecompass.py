"""Inputs before they reach the network: checks that say what is wrong, and the layout of packed cells."""

from typing import cast

import torch

from .configuration_genecompass import GeneCompassConfig


def check_shapes(
    config: GeneCompassConfig,
    input_ids: torch.Tensor | None,
    values: torch.Tensor | None,
    inputs_embeds: torch.Tensor | None,
    cell_lengths: torch.Tensor | None,
) -> tuple[int, int]:
    """Check what shapes alone can tell, which costs a GPU nothing; give (batch, genes)."""
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("give exactly one of input_ids and inputs_embeds")
    if input_ids is not None:
        if values is None:
            raise ValueError("values are missing: GeneCompass needs each gene's value beside its token")
        if values.shape != input_ids.shape:
            raise ValueError(f"values have shape {tuple(values.shape)}, input_ids {tuple(input_ids.shape)}; must agree")
    batch, genes = cast(torch.Tensor, input_ids if input_ids is not None else inputs_embeds).shape[:2]
    if cell_lengths is not None and batch != 1:
        raise ValueError(f"packed cells come as one row; input_ids has {batch} rows with cell_lengths given")
    if cell_lengths is None and genes > config.max_position_embeddings:
        raise ValueError(
            f"a cell has {genes} gene slots, more than max_position_embeddings={config.max_position_embeddings}; "
            "truncate cells when tokenising (max_length)"
        )
    return batch, genes


def check_contents(
    config: GeneCompassConfig,
    input_ids: torch.Tensor | None,
    values: torch.Tensor | None,
    species: torch.Tensor,
    position_ids: torch.Tensor | None,
    cell_lengths: torch.Tensor | None,
) -> None:
    """Check what only the numbers can tell. Reads them, so a GPU would have to wait: called on CPU or on request."""
    if input_ids is not None and input_ids.numel():
        low, high = (int(x) for x in input_ids.aminmax())
        if low < 0 or high >= config.vocab_size:
            wrong = low if low < 0 else high
            where = _where(input_ids == wrong)
            raise ValueError(f"token {wrong} at {where} is outside the vocabulary of {config.vocab_size} tokens")
    if values is not None and not bool(torch.isfinite(values).all()):
        raise ValueError(f"value at {_where(~torch.isfinite(values))} is NaN or infinite; check the counts")
    if species.numel():
        low, high = (int(x) for x in species.aminmax())
        if low < 0 or high >= config.num_species:
            known = ", ".join(f"{i} {name}" for i, name in enumerate(config.species))
            raise ValueError(f"unknown species index {low if low < 0 else high}; this model knows {known}")
    if position_ids is not None and position_ids.numel():
        low, high = (int(x) for x in position_ids.aminmax())
        if low < 0 or high >= config.num_positions:
            hint = "" if config.unknown_rank else " (config.unknown_rank=True adds one for 'rank unknown')"
            raise ValueError(f"position {low if low < 0 else high}: this model has {config.num_positions}{hint}")
    if cell_lengths is not None and cell_lengths.numel():
        longest = int(cell_lengths.max())
        if longest > config.max_position_embeddings:
            raise ValueError(
                f"a cell has {longest} gene slots, more than max_position_embeddings={config.max_position_embeddings}; "
                "truncate cells when tokenising (max_length)"
            )
        if input_ids is not None and int(cell_lengths.sum()) != input_ids.shape[1]:
            raise ValueError(f"cell_lengths sum to {int(cell_lengths.sum())}, the row has {input_ids.shape[1]} slots")


def _where(wrong: torch.Tensor) -> str:
    cell, slot = wrong.nonzero()[0].tolist()
    return f"cell {cell}, slot {slot}"


class PackedCells:
    """Where packed cells lie: cell after cell in one row, each with its species slot before its genes.

    Parameters
    ----------
    cell_lengths
        Genes of each cell, (cells,).
    num_genes
        Their sum, which the caller knows from a shape; so no GPU has to be asked.
    longest
        Genes of the longest cell, if known; else it is read from `cell_lengths`.

    Attributes
    ----------
    cell_of_gene
        Cell of every gene slot, (genes,).
    gene_slots, species_slots
        Index of every gene and of every species slot in the row that holds both, (genes,) and (cells,).
    position_ids
        Rank of every gene, starting at 0 in each cell, (1, genes).

    Examples
    --------
    >>> packed = PackedCells(torch.tensor([2, 1]), num_genes=3)
    >>> packed.species_slots.tolist(), packed.gene_slots.tolist(), packed.position_ids.tolist()
    ([0, 3], [1, 2, 4], [[0, 1, 0]])
    """

    def __init__(self, cell_lengths: torch.Tensor, num_genes: int, longest: int | None = None) -> None:
        device = cell_lengths.device
        cells = len(cell_lengths)
        self.num_cells, self.num_slots = cells, num_genes + cells
        self.longest = 1 + (int(cell_lengths.max()) if longest is None and cells else longest or 0)
        self.with_species = cell_lengths.long() + 1
        ends = self.with_species.cumsum(0)
        self.species_slots = ends - self.with_species
        self.cell_of_gene = torch.arange(cells, device=device).repeat_interleave(cell_lengths, output_size=num_genes)
        genes = torch.arange(num_genes, device=device)
        self.gene_slots = genes + self.cell_of_gene + 1
        self.position_ids = (self.gene_slots - self.species_slots[self.cell_of_gene] - 1).unsqueeze(0)
        self.ends = ends

    def insert_species(self, genes: torch.Tensor, species: torch.Tensor) -> torch.Tensor:
        """Put each cell's species embedding before its genes: (1, genes, H) and (cells, H) to (1, slots, H)."""
        row = genes.new_empty(1, self.num_slots, genes.shape[-1])
        # index_copy is differentiable and leaves no slot unwritten
        row = row.index_copy(1, self.gene_slots, genes)
        return row.index_copy(1, self.species_slots, species.unsqueeze(0))

    def padded_mask(self) -> torch.Tensor:
        """Which slots of the (cells, longest) layout hold something."""
        return torch.arange(self.longest, device=self.ends.device) < self.with_species.unsqueeze(1)

    def slot_in_padded(self) -> torch.Tensor:
        """Index of every slot in the flattened (cells x longest) layout, (slots,)."""
        cells = torch.arange(self.num_cells, device=self.ends.device)
        cell_of_slot = cells.repeat_interleave(self.with_species, output_size=self.num_slots)
        slots = torch.arange(self.num_slots, device=self.ends.device)
        return slots - self.species_slots[cell_of_slot] + cell_of_slot * self.longest

    def cumulative(self) -> torch.Tensor:
        """Cumulative lengths, species slots included, as variable-length attention kernels want them: (cells + 1,)."""
        return torch.nn.functional.pad(self.ends, (1, 0)).to(torch.int32)
