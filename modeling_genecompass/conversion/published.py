"""Read a published checkpoint folder, without running anything that is in it."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

# published name of a prior -> (name in this format, flag in the published config)
PRIORS = {
    "promoter": ("promoter", "use_promoter"),
    "co_exp": ("co_expression", "use_co_exp"),
    "gene_family": ("gene_family", "use_gene_family"),
    "peca_grn": ("grn", "use_peca_grn"),
}


@dataclass(frozen=True)
class PublishedCheckpoint:
    """A published folder in memory.

    Parameters
    ----------
    path
        Where it was read from.
    config
        Its ``config.json``.
    tensors
        Its state dict, without wrappers' prefixes.
    """

    path: Path
    config: dict[str, Any]
    tensors: dict[str, torch.Tensor]

    @property
    def head(self) -> str:
        """Which head it carries: ``masked``, ``cells``, ``genes`` or ``none``."""
        if "cls.predictions.decoder.weight" in self.tensors or "cls.predictions.bias" in self.tensors:
            return "masked"
        if "classifier.weight" in self.tensors:
            return "cells" if "bert.pooler.dense.weight" in self.tensors else "genes"
        return "none"

    @property
    def priors(self) -> list[str]:
        """Published names of the priors it uses, in the order in which it concatenates them."""
        return [name for name, (_, flag) in PRIORS.items() if self.config.get(flag, self._has_projection(name))]

    def _has_projection(self, prior: str) -> bool:
        return f"bert.embeddings.{prior}_embeddings.linear1.weight" in self.tensors

    def need(self, name: str) -> torch.Tensor:
        """A tensor by its published name; raises `ValueError` naming it where it is missing."""
        if name not in self.tensors:
            raise ValueError(f"{self.path}: tensor {name!r} is missing from the checkpoint")
        return self.tensors[name]


def read_published(path: str | os.PathLike[str]) -> PublishedCheckpoint:
    """Read ``config.json`` and ``pytorch_model.bin`` (or ``model.safetensors``) of a published folder.

    Raises
    ------
    ValueError
        A file is missing, damaged, or holds more than tensors.

    Examples
    --------
    >>> read_published("published/GeneCompass_Small").head  # doctest: +SKIP
    'masked'
    """
    folder = Path(path)
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise ValueError(f"{folder}: no config.json here; expected a published checkpoint folder")
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{config_file}: not valid JSON ({error})") from error
    if config.get("model_type") == "genecompass":
        raise ValueError(f"{folder}: already in this package's format, nothing to convert")
    tensors = _read_tensors(folder)
    return PublishedCheckpoint(folder, config, {_plain_name(name): tensor for name, tensor in tensors.items()})


def _read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    weights, safe = folder / "pytorch_model.bin", folder / "model.safetensors"
    if safe.is_file() and not weights.is_file():
        try:
            return load_file(safe)
        except Exception as error:  # safetensors raises its own type for a damaged file
            raise ValueError(f"{safe}: damaged or cut short ({error})") from error
    if not weights.is_file():
        raise ValueError(f"{folder}: no pytorch_model.bin here; expected a published checkpoint folder")
    try:
        tensors = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises various types for damaged and for unsafe files
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{weights}: cannot be read as plain tensors ({first_line})") from error
    wrong = [key for key, value in tensors.items() if not isinstance(value, torch.Tensor)]
    if wrong:
        raise ValueError(f"{weights}: entry {wrong[0]!r} is no tensor; expected a state dict")
    return tensors


def _plain_name(name: str) -> str:
    return name.removeprefix("module.")
