"""Sums of the two losses over the asked slots of a batch, and how many slots were asked."""

from typing import Any

import torch

from ...tokenization.gene_table import SPECIAL_TOKENS
from .count_split import COUNT_TARGETS
from .masking import HIDDEN_GENES, NO_TARGET


def count_targets(batch: dict[str, Any]) -> tuple[int, int]:
    """How many ids and how many values a batch asks for; under count splitting how many cells, and 0.

    Examples
    --------
    >>> count_targets({"labels": torch.tensor([[-100, 4]]), "value_targets": torch.tensor([[True, True]])})
    (1, 2)
    """
    if COUNT_TARGETS in batch:
        return len(batch[COUNT_TARGETS]), 0
    ids = batch[HIDDEN_GENES] != 0 if HIDDEN_GENES in batch else batch["labels"] != NO_TARGET
    return int(ids.sum()), int(batch["value_targets"].sum())


def loss_sums(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """Cross-entropy and squared errors summed over the asked slots.

    Parameters
    ----------
    model
        The masked-gene model, wrapped or not.
    batch
        From `MaskedGeneCollator`, or from `CountSplitCollator`: then the first sum is the cross-entropy of held-back
        counts over cells, the second 0. With ``hidden_genes``, each cell is answered once, over the genes that are not
        visible in it, and scored against all of its hidden genes, which is what one answer per like slot would give.

    Returns
    -------
    tuple
        Sum over ids (nats), sum over values, and the model's output.
    """
    if COUNT_TARGETS in batch:
        outputs = model(**batch)
        return outputs.count_loss, torch.zeros_like(outputs.count_loss), outputs
    hidden = batch.get(HIDDEN_GENES)
    outputs = model(**{name: tensor for name, tensor in batch.items() if name != HIDDEN_GENES})
    answered = (batch["labels"] != NO_TARGET).sum()
    values = outputs.value_loss * batch["value_targets"].sum()
    if hidden is None:
        return outputs.id_loss * answered, values, outputs
    cell = _cell_of_slot(batch)
    slot = hidden.nonzero(as_tuple=True)
    genes = hidden[slot]
    asked = torch.zeros(len(batch["species"]), dtype=torch.bool, device=cell.device)
    asked[cell[slot]] = True
    answer = answer_of_cell(asked)[cell]
    logits = without_visible(outputs.logits.float(), batch["input_ids"], answer)
    log_sum = logits.logsumexp(dim=-1)
    answer = answer[slot]
    # + 0 * id_loss: every output of the model takes part, as gradient synchronisation over processes wants
    return (log_sum[answer] - logits[answer, genes]).sum() + 0.0 * outputs.id_loss, values, outputs


def without_visible(logits: torch.Tensor, input_ids: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
    """Logits in which a gene that is visible in the cell cannot be the answer: a cell holds a gene once.

    Parameters
    ----------
    logits
        One answer per cell, shape (answers, vocabulary).
    input_ids
        Tokens as the model sees them, any shape.
    answer
        Row of `logits` that each slot's cell is answered by, shape of `input_ids`; -1: none.

    Examples
    --------
    >>> without_visible(torch.zeros(1, 4), torch.tensor([3, 1]), torch.tensor([0, 0])).softmax(-1)
    tensor([[0.3333, 0.3333, 0.3333, 0.0000]])
    """
    visible = (input_ids >= len(SPECIAL_TOKENS)) & (answer >= 0)
    impossible = torch.zeros_like(logits, dtype=torch.bool)
    impossible[answer[visible], input_ids[visible]] = True
    return logits.masked_fill(impossible, torch.finfo(logits.dtype).min)


def _cell_of_slot(batch: dict[str, Any]) -> torch.Tensor:
    """Which cell of the batch each slot belongs to, shape of ``input_ids``."""
    shape, device = batch["input_ids"].shape, batch["input_ids"].device
    if "cell_lengths" in batch:
        lengths = batch["cell_lengths"]
        return torch.arange(len(lengths), device=device).repeat_interleave(lengths, output_size=shape[1])[None]
    return torch.arange(shape[0], device=device)[:, None].expand(shape)


def answer_of_cell(asked: torch.Tensor) -> torch.Tensor:
    """Row of the logits that answers each cell, -1 for cells that are asked nothing; `asked` has shape (cells,).

    Examples
    --------
    >>> answer_of_cell(torch.tensor([True, False, True]))
    tensor([ 0, -1,  1])
    """
    return torch.where(asked, asked.cumsum(0) - 1, -1)
