"""Sums of the two losses over the asked slots of a batch, and how many slots were asked."""

from typing import Any

import torch

from .masking import HIDDEN_GENES, NO_TARGET


def count_targets(batch: dict[str, Any]) -> tuple[int, int]:
    """How many ids and how many values a batch asks for.

    Examples
    --------
    >>> count_targets({"labels": torch.tensor([[-100, 4]]), "value_targets": torch.tensor([[True, True]])})
    (1, 2)
    """
    ids = batch[HIDDEN_GENES] != 0 if HIDDEN_GENES in batch else batch["labels"] != NO_TARGET
    return int(ids.sum()), int(batch["value_targets"].sum())


def loss_sums(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """Cross-entropy and squared errors summed over the asked slots.

    Parameters
    ----------
    model
        The masked-gene model, wrapped or not.
    batch
        From `MaskedGeneCollator`. With ``hidden_genes``, each cell is answered once and scored against all of its
        hidden genes, which is what one answer per like slot would give.

    Returns
    -------
    tuple
        Sum over ids (nats), sum over values, and the model's output.
    """
    hidden = batch.get(HIDDEN_GENES)
    outputs = model(**{name: tensor for name, tensor in batch.items() if name != HIDDEN_GENES})
    answered = (batch["labels"] != NO_TARGET).sum()
    values = outputs.value_loss * batch["value_targets"].sum()
    if hidden is None:
        return outputs.id_loss * answered, values, outputs
    logits = outputs.logits.float()
    answer, genes = _answer_of_gene(batch)
    log_sum = logits.logsumexp(dim=-1)
    # + 0 * id_loss: every output of the model takes part, as gradient synchronisation over processes wants
    return (log_sum[answer] - logits[answer, genes]).sum() + 0.0 * outputs.id_loss, values, outputs


def _answer_of_gene(batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """For every hidden gene, which row of the logits answers it, and its token."""
    hidden = batch[HIDDEN_GENES]
    place = hidden.nonzero()
    if "cell_lengths" in batch:
        lengths = batch["cell_lengths"]
        cells = torch.arange(len(lengths), device=hidden.device)
        cell = cells.repeat_interleave(lengths, output_size=hidden.shape[1])[place[:, 1]]
        has_answer = torch.zeros(len(lengths), dtype=torch.bool, device=hidden.device)
        has_answer[cell] = True
    else:
        cell = place[:, 0]
        has_answer = (hidden != 0).any(1)
    return (has_answer.cumsum(0) - 1)[cell], hidden[place[:, 0], place[:, 1]]
