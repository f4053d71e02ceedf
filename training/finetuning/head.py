"""Train the head alone on states computed once: seconds where fine-tuning takes minutes, and a good start for it."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel

from .data import collate
from .methods import head_of

# Whitened states enter the pooler at this scale, where tanh is about linear.
_SCALE = 0.3


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
    class_weights: npt.NDArray[np.float32] | None = None,
    strengths: Sequence[float] = (0.1,),
) -> dict[str, Any]:
    """Fit the head on frozen states: logistic regression on whitened states, folded into the head's own layers.

    States of cells differ little from each other, and along few directions. So they are whitened first, by the
    covariance that Ledoit and Wolf (2004) shrink the more the fewer items there are.

    Parameters
    ----------
    model
        Classifier; only its head changes, in place.
    train, validation
        `CellRows` or `GeneRows`.
    score
        Called with logits and labels (arrays) of validation; higher is better. Ties go to the lower loss.
    class_weights
        Weight of each class in the loss.
    strengths
        Inverse strength of the penalty on weights (scikit-learn's ``C``); of several, validation chooses.

    Returns
    -------
    dict
        ``score`` on validation and the ``strength`` taken.
    """
    states, labels = (tensor.cpu().numpy() for tensor in head_inputs(model, train))
    held_states, held_labels = (tensor.cpu().numpy() for tensor in head_inputs(model, validation))
    mean, whiten = _whitening(states)
    states, held_states = (states - mean) @ whiten, (held_states - mean) @ whiten
    weights = None if class_weights is None else class_weights[labels]
    classes = cast(int, model.config.num_labels)

    def fit(strength: float) -> tuple[tuple[float, float], float, npt.NDArray[Any], npt.NDArray[Any]]:
        fitted = LogisticRegression(C=strength, max_iter=1000).fit(states, labels, sample_weight=weights)
        weight, bias = _by_class(fitted, classes)
        logits = held_states @ weight.T + bias
        return (score(logits, held_labels), -_loss(logits, held_labels, class_weights)), strength, weight, bias

    (found, _), strength, weight, bias = max(map(fit, strengths), key=lambda fitted: fitted[0])
    _fold(head_of(model), mean, whiten, weight, bias)
    return {"score": found, "strength": strength}


def _whitening(states: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean (H,) and symmetric matrix (H, H) that bring states to about unit variance in all directions."""
    mean = states.mean(axis=0, dtype=np.float64)
    covariance, _ = ledoit_wolf(states - mean, assume_centered=True)
    variances, axes = np.linalg.eigh(covariance)
    # no variance at all (one item, or identical ones): leave states as they are
    gain = 1 / np.sqrt(variances) if variances[0] > 1e-12 else np.ones_like(variances)
    return mean, (axes * gain) @ axes.T


def _by_class(fitted: LogisticRegression, classes: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Weights (classes, H) and biases (classes,); classes that no item has are never answered."""
    weight, bias = fitted.coef_, fitted.intercept_
    if len(weight) == 1:  # two classes: scikit-learn gives the second's side alone
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    all_weights, all_biases = np.zeros((classes, weight.shape[1])), np.full(classes, bias.min() - 10.0)
    all_weights[fitted.classes_], all_biases[fitted.classes_] = weight, bias
    return all_weights, all_biases


def _loss(logits: npt.NDArray[Any], labels: npt.NDArray[Any], weights: npt.NDArray[Any] | None) -> float:
    return float(
        nn.functional.cross_entropy(
            torch.from_numpy(logits),
            torch.from_numpy(labels),
            weight=None if weights is None else torch.from_numpy(weights).to(torch.float64),
        )
    )


@torch.no_grad()
def _fold(
    layers: dict[str, nn.Module],
    mean: npt.NDArray[Any],
    whiten: npt.NDArray[Any],
    weight: npt.NDArray[Any],
    bias: npt.NDArray[Any],
) -> None:
    """Put whitening and regression into the head: the pooler whitens where there is one."""
    if "pooler" in layers:
        _set(layers["pooler"], _SCALE * whiten, -_SCALE * mean @ whiten)
        _set(layers["classifier"], weight / _SCALE, bias)
    else:
        _set(layers["classifier"], weight @ whiten, bias - weight @ (mean @ whiten))


def _set(layer: nn.Module, weight: npt.NDArray[Any], bias: npt.NDArray[Any]) -> None:
    linear: Any = layer
    linear.weight.copy_(torch.from_numpy(weight))
    linear.bias.copy_(torch.from_numpy(bias))
