"""What is trained and what stays: full, frozen, LoRA, DoRA, IA3, biases only, or the same network from scratch."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from ..tokenization.errors import InputError
from .adapters import add_adapter

ADAPTERS = ("lora", "dora", "ia3")
METHODS = (*ADAPTERS, "bitfit", "frozen", "full", "scratch", "untrained")
HEAD_ONLY = ("frozen", "untrained")
FRESH = ("scratch", "untrained")
HEAD_MODULES = ("pooler", "classifier")

# Peak rates for a model 768 wide, and the power of 768 / width by which narrower models take larger steps.
# Tuned at width 64 on validation cells of training sets. The best rate of hidden weights under Adam falls with the
# width (Yang et al. 2022, "Tensor Programs V"), but a fitted head reads small differences between cells and bears only
# small moves of its input: LoRA at 3.6e-3 and full training at 4e-4 lost it within an epoch, with few cells for good.
_RATES = {
    "lora": (3e-4, 1 / 2),
    "dora": (3e-4, 1 / 2),
    "ia3": (2e-3, 1.0),
    "bitfit": (3e-4, 1.0),
    "full": (5e-5, 1 / 3),
    "scratch": (4e-4, 1.0),
}
_REFERENCE_WIDTH = 768
_MAX_RATE = 1e-2


def default_learning_rate(method: str, hidden_size: int) -> float:
    """Peak learning rate for a method that takes steps, and a width: never above 0.01.

    Raises
    ------
    InputError
        Unknown method, or one that trains the head alone, which takes no steps.

    Examples
    --------
    >>> default_learning_rate("lora", 768), default_learning_rate("lora", 64)
    (0.0003, 0.00103923)
    """
    _check_method(method)
    if method in HEAD_ONLY:
        raise InputError(f"method {method!r} fits the head at once, without steps: it has no learning rate")
    rate, power = _RATES[method]
    return round(min(rate * (_REFERENCE_WIDTH / hidden_size) ** power, _MAX_RATE), 8)


def prepare(model: PreTrainedModel, method: str, *, r: int = 8) -> Any:
    """Make the right parameters trainable.

    Parameters
    ----------
    model
        A classifier of cells or genes.
    method
        ``"lora"``, ``"dora"``, ``"ia3"`` (adapters; the head is trained whole), ``"bitfit"`` (biases and the head),
        ``"frozen"`` (the head alone), ``"full"``; for comparison ``"scratch"`` and ``"untrained"``, full and frozen
        after fresh random weights (the prior-knowledge tables stay, because they are not learned).
    r
        Rank of LoRA and DoRA.

    Returns
    -------
    PeftModel or PreTrainedModel
        The model to train.

    Raises
    ------
    InputError
        Unknown method.

    Examples
    --------
    >>> trainable = prepare(model, "lora", r=8)  # doctest: +SKIP
    """
    _check_method(method)
    if method in (*ADAPTERS, "bitfit"):
        return add_adapter(model, method, r)
    if method in FRESH:
        model = _fresh(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(method not in HEAD_ONLY or name.split(".", 1)[0] in HEAD_MODULES)
    return model


def _check_method(method: str) -> None:
    if method not in METHODS:
        raise InputError(f"unknown fine-tuning method {method!r}; choose {', '.join(METHODS)}")


def _fresh(model: Any) -> Any:
    """The same network with new random weights and the same prior-knowledge tables."""
    fresh = type(model)(model.config)
    buffers = dict(model.named_buffers())
    for name, buffer in fresh.named_buffers():
        buffer.copy_(buffers[name])
    return fresh.to(model.device)


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Trainable parameters, all parameters, and how many of the trainable ones are the task's head.

    Examples
    --------
    >>> count_parameters(nn.Linear(3, 2))
    {'trainable': 8, 'total': 8, 'head': 0}
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    head = [p for name, p in trainable.items() if any(part in HEAD_MODULES for part in name.split("."))]
    # a head that an adapter trains is a copy: the frozen original is not counted twice
    total = {name: p for name, p in model.named_parameters() if ".original_module." not in name}
    return {
        "trainable": sum(p.numel() for p in trainable.values()),
        "total": sum(p.numel() for p in total.values()),
        "head": sum(p.numel() for p in head),
    }


def head_of(model: nn.Module) -> dict[str, nn.Module]:
    """The trainable modules of a classifier's head by name (``pooler`` and ``classifier``, or ``classifier``)."""
    found: dict[str, nn.Module] = {}
    for name in HEAD_MODULES:
        module = getattr(model, name, None)
        if isinstance(module, nn.Module):
            found[name] = module
    return found


def seed_everything(seed: int) -> None:
    """Seed PyTorch, NumPy and `random`, for new weights, dropout and order of cells."""
    from transformers import set_seed

    set_seed(seed)
    torch.manual_seed(seed)


@contextlib.contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Dropout off while a fitted head goes on training: it was fitted without, and noise in its input is magnified.

    On validation cells of training sets this was never worse with adapters, and up to 0.03 macro-F1 better.
    """
    layers = [(module, module.p) for module in model.modules() if isinstance(module, nn.Dropout)]
    try:
        for module, _ in layers:
            module.p = 0.0
        yield
    finally:
        for module, probability in layers:
            module.p = probability


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from reporting a new head, and from drawing bars over files of a few megabytes."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
