"""Train the head alone on states computed once: seconds where fine-tuning takes minutes, and a good start for it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel

from .finetune_data import collate
from .finetune_methods import head_of

_STEPS = 400
_CHECK_EVERY = 10
_PATIENCE = 10
_SHRINK = 0.03  # of the strongest direction's spread, added to all before whitening


@torch.no_grad()
def head_inputs(model: PreTrainedModel, rows: Dataset, *, batch_size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """What reaches the head, with its labels: computed once, since nothing before the head will change.

    Parameters
    ----------
    model
        A classifier of cells or genes.
    rows
        `CellRows` or `GeneRows` with labels.

    Returns
    -------
    states, labels
        Shapes (items, hidden) and (items,); an item is a cell, or a labelled gene in a cell.
    """
    first = next(iter(head_of(model).values()))
    caught: list[torch.Tensor] = []
    hook = first.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
    states, labels = [], []
    model.eval()
    try:
        for batch in DataLoader(rows, batch_size=batch_size, collate_fn=collate):
            caught.clear()
            answer = batch.pop("labels")
            model(**{name: tensor.to(model.device) for name, tensor in batch.items()})
            counted = answer >= 0
            states.append(caught[0][counted.to(caught[0].device)].float())
            labels.append(answer[counted])
    finally:
        hook.remove()
    return torch.cat(states), torch.cat(labels).to(model.device)


def train_head(
    model: PreTrainedModel,
    train: Dataset,
    validation: Dataset,
    *,
    score: Callable[[Any, Any], float],
    learning_rate: float = 1e-2,
    class_weights: torch.Tensor | None = None,
    weight_decay: float = 1e-2,
) -> dict[str, Any]:
    """Fit the head on frozen states by full-batch AdamW; keep the weights that did best on validation.

    States of cells differ little from each other, and along few directions. So the head learns on whitened states,
    and the whitening is folded into its first layer afterwards: nothing is added to the model.

    Parameters
    ----------
    model
        Classifier; only its head changes, in place.
    train, validation
        `CellRows` or `GeneRows`.
    score
        Called with logits and labels (arrays) of validation; higher is better. Ties go to the lower loss.
    learning_rate, weight_decay
        Of AdamW.
    class_weights
        Weight of each class in the loss.

    Returns
    -------
    dict
        ``steps`` taken until the best weights and ``score`` on validation.
    """
    states, labels = head_inputs(model, train)
    held_states, held_labels = head_inputs(model, validation)
    mean, whiten = _whitening(states)
    states, held_states = (states - mean) @ whiten, (held_states - mean) @ whiten
    layers: dict[str, Any] = head_of(model)
    head = nn.ModuleDict(layers)
    if "pooler" in layers:
        _start_as_identity(layers["pooler"])
    parameters = list(head.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
    weights = None if class_weights is None else class_weights.to(states.device)
    best, best_weights, since, best_step = (-float("inf"), -float("inf")), _copy(parameters), 0, 0
    for step in range(1, _STEPS + 1):
        loss = nn.functional.cross_entropy(_through(head, states), labels, weight=weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % _CHECK_EVERY:
            continue
        with torch.no_grad():
            logits = _through(head, held_states)
            held_loss = float(nn.functional.cross_entropy(logits, held_labels, weight=weights))
        found = (score(logits.cpu().numpy(), held_labels.cpu().numpy()), -held_loss)
        if found > best:
            best, best_weights, since, best_step = found, _copy(parameters), 0, step
        else:
            since += 1
            if since >= _PATIENCE:
                break
    with torch.no_grad():
        for parameter, kept in zip(parameters, best_weights, strict=True):
            parameter.copy_(kept)
        first = next(iter(layers.values()))
        first.weight.copy_(first.weight @ whiten.T)
        first.bias.sub_(first.weight @ mean)
    return {"steps": best_step, "score": best[0]}


def _whitening(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (H,) and symmetric matrix (H, H) that bring states to about unit variance in all directions they take.

    Weak directions are raised less than fully, and directions that no state takes not at all: of few items they
    would be noise.
    """
    mean = states.mean(0)
    variances, axes = torch.linalg.eigh(torch.cov((states - mean).T, correction=0).reshape(states.shape[1], -1))
    spread = variances.clamp(min=0).sqrt()
    gain = torch.where(spread > 1e-5 * spread.max(), 1 / (spread + _SHRINK * spread.max()), 0.0)
    return mean, (axes * gain) @ axes.T


@torch.no_grad()
def _start_as_identity(pooler: nn.Linear) -> None:
    """Start where the pooler passes whitened states on, in the range where tanh is about linear."""
    pooler.weight.copy_(0.5 * torch.eye(len(pooler.weight)))
    pooler.bias.zero_()


def _through(head: nn.ModuleDict, states: torch.Tensor) -> torch.Tensor:
    if "pooler" in head:
        states = torch.tanh(head["pooler"](states))
    return head["classifier"](states)


def _copy(parameters: list[nn.Parameter]) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in parameters]
