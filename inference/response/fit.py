"""One loop for all networks: Adam, validation, early stopping, a record; seeded without touching the global seed."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ...tokenization.errors import InputError

Loss = Callable[[npt.NDArray[np.int64]], Tensor]


@dataclass(frozen=True)
class FitSettings:
    """How a network is fitted.

    Parameters
    ----------
    epochs
        At most.
    patience
        Epochs without a better validation loss after which it stops.
    batch_size
        Conditions (or cells) a step.
    learning_rate, weight_decay
        Of Adam.
    clip
        Largest absolute value of a gradient.
    """

    epochs: int = 30
    patience: int = 6
    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 5e-4
    clip: float = 1.0

    def __post_init__(self) -> None:
        if min(self.epochs, self.patience, self.batch_size) < 1:
            raise InputError("epochs, patience and batch_size must be 1 or more")
        if self.learning_rate <= 0 or self.weight_decay < 0:
            raise InputError("learning_rate must be above 0 and weight_decay not below")


@dataclass
class FitRecord:
    """How fitting went.

    Parameters
    ----------
    best_epoch
        Whose weights are kept; 0 is the start, before any step.
    train, validation
        Mean loss by epoch; `validation` starts with the one before any step.
    """

    best_epoch: int = 0
    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"best_epoch": self.best_epoch, "train": self.train, "validation": self.validation}


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch draws from `seed` inside; outside nothing changes.

    Examples
    --------
    >>> with seeded(0):
    ...     one = torch.rand(1)
    >>> with seeded(0):
    ...     bool(torch.rand(1) == one)
    True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def fit_network(
    network: nn.Module,
    n: int,
    loss: Loss,
    settings: FitSettings,
    *,
    validation: Callable[[], float] | None = None,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> FitRecord:
    """Fit in place; the weights of the best epoch by validation stay, of the last where there is none.

    Parameters
    ----------
    network
        What is fitted.
    n
        Training rows.
    loss
        Of some training rows.
    settings
        See `FitSettings`.
    validation
        Loss on what is held out, called with the network in evaluation mode and without gradients.
    seed
        Of the order of rows.
    progress
        Called with 1 after every epoch.

    Examples
    --------
    >>> line = nn.Linear(1, 1, bias=False)
    >>> def loss(rows):
    ...     return ((line(torch.ones(len(rows), 1)) - 2.0) ** 2).mean()
    >>> record = fit_network(line, 4, loss, FitSettings(epochs=3, batch_size=2))
    >>> len(record.train)
    3
    """
    optimizer = torch.optim.Adam(
        [p for p in network.parameters() if p.requires_grad],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    generator = np.random.default_rng(seed)
    record = FitRecord()
    best, kept = np.inf, None

    def held_out() -> float:
        network.eval()
        with torch.no_grad():
            return float(validation()) if validation is not None else float("nan")

    if validation is not None:
        best = held_out()
        record.validation.append(best)
        kept = _copy(network)
    for epoch in range(1, settings.epochs + 1):
        network.train()
        total = 0.0
        order = generator.permutation(n)
        for start in range(0, n, settings.batch_size):
            rows = order[start : start + settings.batch_size]
            optimizer.zero_grad()
            value = loss(rows)
            value.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_value_(network.parameters(), settings.clip)
            optimizer.step()
            total += float(value.detach()) * len(rows)
        record.train.append(total / max(n, 1))
        if progress is not None:
            progress(1)
        if validation is None:
            record.best_epoch = epoch
            continue
        now = held_out()
        record.validation.append(now)
        if now < best:
            best, kept, record.best_epoch = now, _copy(network), epoch
        elif epoch - record.best_epoch >= settings.patience:
            break
    if kept is not None:
        network.load_state_dict(kept)
    network.eval()
    return record


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
