"""Which slot belongs to which cell, in padded and in packed batches."""

import torch

from .inputs_genecompass import PackedCells


def species_of(species: torch.Tensor | None, cells: int, device: torch.device) -> torch.Tensor:
    """Species index per cell, (cells,); 0 where none is given."""
    if species is None:
        return torch.zeros(cells, dtype=torch.long, device=device)
    if species.numel() != cells:
        raise ValueError(f"species has shape {tuple(species.shape)}; expected one index for each of {cells} cells")
    return species.reshape(cells).to(device=device, dtype=torch.long)


def gene_slots(hidden_states: torch.Tensor, cell_lengths: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Split into gene slots (batch, genes, H), aligned with `input_ids`, and species slots (cells, H)."""
    if cell_lengths is None:
        return hidden_states[:, 1:], hidden_states[:, 0]
    num_genes = hidden_states.shape[1] - len(cell_lengths)
    packed = PackedCells(cell_lengths.to(hidden_states.device), num_genes, longest=0)
    return hidden_states[:, packed.gene_slots], hidden_states[0, packed.species_slots]


def mean_over_genes(
    genes: torch.Tensor, attention_mask: torch.Tensor | None, cell_lengths: torch.Tensor | None
) -> torch.Tensor:
    """Mean state of each cell's genes, (cells, H); 0 for a cell without genes."""
    if cell_lengths is not None:
        cell_lengths = cell_lengths.to(genes.device)
        cell_of_gene = PackedCells(cell_lengths, genes.shape[1], longest=0).cell_of_gene
        sums = genes.new_zeros(len(cell_lengths), genes.shape[2]).index_add(0, cell_of_gene, genes[0])
        return sums / cell_lengths.clamp(min=1).unsqueeze(1)
    if attention_mask is None:
        return genes.mean(1)
    mask = attention_mask.unsqueeze(-1).to(genes.dtype)
    return (genes * mask).sum(1) / mask.sum(1).clamp(min=1)


def profile_slots(
    tokens: torch.Tensor, values: torch.Tensor, attention_mask: torch.Tensor | None, cell_lengths: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, values and cell of all slots that hold a gene, end to end, from a padded or a packed batch.

    Examples
    --------
    >>> ids, mask = torch.tensor([[5, 7], [9, 0]]), torch.tensor([[1, 1], [1, 0]])
    >>> [part.tolist() for part in profile_slots(ids, ids.float(), mask, None)]
    [[5, 7, 9], [5.0, 7.0, 9.0], [0, 0, 1]]
    """
    if cell_lengths is not None:
        cells = torch.arange(len(cell_lengths), device=tokens.device)
        cell_of_gene = cells.repeat_interleave(cell_lengths.to(tokens.device), output_size=tokens.shape[1])
        return tokens[0], values[0], cell_of_gene
    cell_of_gene = torch.arange(len(tokens), device=tokens.device).unsqueeze(1).expand_as(tokens)
    if attention_mask is None:
        return tokens.flatten(), values.flatten(), cell_of_gene.flatten()
    real = attention_mask.bool()
    return tokens[real], values[real], cell_of_gene[real]


def flat_slots(
    tokens: torch.Tensor | None, values: torch.Tensor | None, species: torch.Tensor
) -> tuple[torch.Tensor, ...] | None:
    """Slots of (cells, genes) end to end with the cell of each, as `read_profile` takes them; padding has value 0."""
    if tokens is None or values is None:
        return None
    cell_of_gene = torch.arange(len(tokens), device=tokens.device).repeat_interleave(tokens.shape[1])
    return tokens.flatten(), values.flatten(), species, cell_of_gene
