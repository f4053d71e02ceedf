"""Batch normalisation inside the head while it trains, folded into the pooler afterwards."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from .data import collate
from .methods import pooler_of

# training cells from which the running moments start
_CELLS = 2048
# share of a batch's moments in the running ones, and what keeps a constant feature from dividing by zero
_MOMENTUM, _EPSILON = 0.1, 1e-6


class PoolerNorm(nn.Module):
    """Give what a pooler puts out the same mean and spread in every batch (Ioffe and Szegedy 2015).

    States of cells differ little from each other next to what all of them share, and that changes with every step of
    the encoder. Taken out batch by batch, it neither drowns the differences nor carries a fitted head away.

    Parameters
    ----------
    outputs
        The pooler's outputs over training cells, from which the running moments start. Shape (cells, H).
    fitted
        Whether the head was fitted: then its outputs keep the moments that they have, else they get 0 and 1.

    Examples
    --------
    >>> norm = PoolerNorm(torch.tensor([[1.0], [3.0]]), fitted=False).train()
    >>> norm(torch.tensor([[10.0], [30.0]])).tolist()
    [[-1.0], [1.0]]
    """

    def __init__(self, outputs: torch.Tensor, *, fitted: bool) -> None:
        super().__init__()
        mean, variance = outputs.mean(dim=0), outputs.var(dim=0, unbiased=False)
        self.mean: torch.Tensor
        self.variance: torch.Tensor
        self.register_buffer("mean", mean.clone())
        self.register_buffer("variance", variance.clone())
        self.target_mean = mean if fitted else torch.zeros_like(mean)
        self.target_spread = (variance + _EPSILON).sqrt() if fitted else torch.ones_like(mean)

    def forward(self, outputs: torch.Tensor) -> torch.Tensor:
        """Shape (cells, H) to the same; a batch of one cell is scaled by the running moments."""
        here = outputs.device  # of a replica, where several GPUs share a batch
        mean, variance = self.mean.to(here), self.variance.to(here)
        if self.training and len(outputs) > 1:
            mean, variance = outputs.float().mean(dim=0), outputs.float().var(dim=0, unbiased=False)
            self.mean.lerp_(mean.detach().to(self.mean.device), _MOMENTUM)
            self.variance.lerp_(variance.detach().to(self.mean.device), _MOMENTUM)
        scaled = (outputs - mean) / (variance + _EPSILON).sqrt()
        return scaled * self.target_spread.to(here) + self.target_mean.to(here)

    @torch.no_grad()
    def fold_into(self, pooler: Any) -> None:
        """Change a linear layer so that it does alone what it did with the running moments behind it."""
        gain = self.target_spread / (self.variance + _EPSILON).sqrt()
        pooler.weight.mul_(gain.unsqueeze(1))
        pooler.bias.copy_((pooler.bias - self.mean) * gain + self.target_mean)


@contextlib.contextmanager
def normalised_pooler(model: nn.Module, rows: Dataset, *, fitted: bool) -> Iterator[list[torch.Tensor]]:
    """Put a `PoolerNorm` behind the pooler for as long as the context lasts, then fold it in.

    A classifier without a pooler (of genes) trains as it is.

    Parameters
    ----------
    model
        Classifier, or `PeftModel` around one.
    rows
        Training cells.
    fitted
        As for `PoolerNorm`.

    Yields
    ------
    list of Tensor
        The running moments, for who keeps the best weights to keep along with them.
    """
    pooler: Any = pooler_of(model)
    if pooler is None:
        yield []
        return
    norm = PoolerNorm(pooler_outputs(model, rows), fitted=fitted)
    handle = pooler.register_forward_hook(lambda layer, _, outputs: norm.train(layer.training)(outputs))
    try:
        yield [norm.mean, norm.variance]
    finally:
        handle.remove()
    norm.fold_into(pooler)


@torch.no_grad()
def pooler_outputs(model: nn.Module, rows: Any) -> torch.Tensor:
    """What the pooler gives over `rows`, or some thousand of them. Shape (cells, H).

    Parameters
    ----------
    model
        Classifier of cells, or `PeftModel` around one; switched to evaluation mode.
    rows
        `CellRows` with labels.
    """
    network: Any = model.eval()
    pooler: Any = pooler_of(model)
    some = Subset(rows, range(0, len(rows), -(-len(rows) // _CELLS)))
    found: list[torch.Tensor] = []
    handle = pooler.register_forward_hook(lambda layer, _, outputs: found.append(outputs.float()))
    device = next(model.parameters()).device
    try:
        for batch in DataLoader(some, batch_size=32, collate_fn=collate):
            batch.pop("labels")
            network(**{name: tensor.to(device) for name, tensor in batch.items()})
    finally:
        handle.remove()
    return torch.cat(found)
