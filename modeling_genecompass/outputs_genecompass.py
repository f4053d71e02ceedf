"""What the heads give back."""

from dataclasses import dataclass

import torch
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput


@dataclass
class GeneCompassModelOutput(BaseModelOutput):
    """What the encoder gives.

    Parameters
    ----------
    last_hidden_state
        (batch, 1 + genes, hidden), the species slot first; packed: (1, slots, hidden).
    hidden_states, attentions
        As `GeneCompassMaskedGeneOutput`.
    cell_embedding
        One vector a cell, (cells, cell_width): the trained part, then the fixed profile; None without a cell head.
    """

    cell_embedding: torch.Tensor | None = None


@dataclass
class GeneCompassMaskedGeneOutput(ModelOutput):
    """What the masked-gene model gives.

    With labels, `logits` and `value_predictions` are for the target slots alone, in the order of
    ``targets.nonzero()`` (T slots); else for all gene slots, without the species slot.

    Parameters
    ----------
    loss
        ``id_loss_weight * id_loss + value_loss_weight * value_loss``, scalar; only with labels.
    id_loss, value_loss
        Cross-entropy of gene ids and mean squared error of values over target slots, scalars.
    count_loss
        Cross-entropy of held-back counts, summed over cells, scalar; only with `count_targets`.
    logits
        Gene scores, (T, vocab) or (batch, genes, vocab).
    value_predictions
        Predicted values, (T,) or (batch, genes), float32.
    hidden_states
        One per layer and the embeddings, each (batch, 1 + genes, hidden); on request.
    attentions
        One per layer, (batch, heads, 1 + genes, 1 + genes); on request, with eager attention.
    cell_embedding
        One vector a cell, (cells, cell_width): the trained part, then the fixed profile; None without a cell head.
    """

    loss: torch.Tensor | None = None
    id_loss: torch.Tensor | None = None
    value_loss: torch.Tensor | None = None
    count_loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    value_predictions: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    cell_embedding: torch.Tensor | None = None


@dataclass
class GeneCompassTokenClassifierOutput(ModelOutput):
    """What the gene classifier gives.

    Parameters
    ----------
    loss
        Scalar; only with labels.
    logits
        One row per gene slot, aligned with `input_ids`, (batch, genes, labels).
    species_logits
        The same layer on each cell's species slot, (cells, labels); the published model returns it in front.
    hidden_states, attentions
        As `GeneCompassMaskedGeneOutput`.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    species_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
