"""Load a checkpoint, a fine-tuned checkpoint or an adapter, ready to use."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from ..tokenization.checkpoint_files import check_checkpoint, read_settings
from ..tokenization.devices import check_device
from ..tokenization.errors import InputError
from ..tokenization.files import sha256_of
from ..tokenization.gene_table import GeneTable
from ..tokenization.sources import model_or_default, resolve

# head -> (name in error messages, what config.json lists under "architectures")
HEADS = {
    "cells": ("cell classification", "GeneCompassForSequenceClassification"),
    "genes": ("gene classification", "GeneCompassForTokenClassification"),
    "masked": ("masked gene modelling", "GeneCompassForMaskedGeneModeling"),
}
FINETUNING_FILE = "finetuning.json"

Model = str | os.PathLike[str] | PreTrainedModel | None


@dataclass(frozen=True)
class Finetuning:
    """What fine-tuning recorded beside the weights (``finetuning.json``); defaults where nothing was recorded.

    Parameters
    ----------
    labels
        Label names in the order of the model's outputs.
    ontology_ids
        Label name to Cell Ontology id, where the training cells had them.
    temperature
        By which logits are divided, fitted on validation cells.
    max_length
        Longest cell, in genes, that the model was trained on; None where unknown.
    species
        Of the training cells (or an ``obs`` column that said it); None where unknown.
    record
        Everything else: method, base model, split, seeds, validation scores.

    Examples
    --------
    >>> Finetuning(labels=["B", "T"]).temperature
    1.0
    """

    labels: list[str]
    ontology_ids: dict[str, str] = field(default_factory=dict)
    temperature: float = 1.0
    max_length: int | None = None
    species: str | None = None
    record: dict[str, Any] = field(default_factory=dict)


def load_checkpoint(
    path: Model,
    head: str | None = None,
    *,
    processor: Any = None,
    base: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    fold: bool = False,
    attn_implementation: str | None = None,
) -> tuple[PreTrainedModel, Any]:
    """Load a model in evaluation mode, and the processor that belongs to it.

    Parameters
    ----------
    path
        A checkpoint or adapter: local folder or ``owner/name[@revision]``; None for ``genecompass-mini``, which
        travels with the package. Or a model already in memory, for example one that was loaded with
        ``trust_remote_code=True``; its `processor` must then be given.
    head
        None for the encoder (`GeneCompassModel`), ``"cells"``, ``"genes"`` or ``"masked"``.
    processor
        Used instead of the checkpoint's own.
    base
        For an adapter: the base checkpoint, where it is not where it was in training.
    device
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...; None takes a GPU if there is one.
    dtype
        Of the weights; None keeps the checkpoint's.
    fold
        Fold the prior-knowledge tables into one table per species: the same numbers to rounding, faster. A folded
        model cannot be trained.
    attn_implementation
        ``"sdpa"`` by default; ``"eager"`` where attention weights are wanted.

    Returns
    -------
    model, processor
        The model (adapters are merged into it) and a `GeneCompassProcessor`.

    Raises
    ------
    InputError
        No such checkpoint, no gene table, not fine-tuned for `head`, an adapter for another base model, files that
        are damaged or do not belong together.

    Examples
    --------
    >>> model, processor = load_checkpoint("genecompass-mini", device="cpu")
    >>> model.config.species
    ['human', 'mouse']
    """
    check_device(device)
    path = model_or_default(path)
    if head is not None and head not in HEADS:
        raise InputError(f"unknown head {head!r}; choose {', '.join(HEADS)} or None for the encoder")
    if isinstance(path, PreTrainedModel):
        if processor is None:
            raise InputError("a model in memory needs its processor: pass processor=AutoProcessor.from_pretrained(...)")
        model = _take_head(path, head)
    else:
        folder = resolve(path)
        if (folder / "adapter_config.json").exists():
            model = _take_head(
                load_adapter(folder, base=base, dtype=dtype, attn_implementation=attn_implementation), head
            )
        else:
            model = _load_model(folder, head, dtype=dtype, attn_implementation=attn_implementation)
        processor = _load_processor(folder, base) if processor is None else processor
    network: Any = model
    model = network.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
    if fold:
        encoder = encoder_of(model)
        if encoder.config.priors and encoder.config.folded_rows is None:
            encoder.fold_prior_knowledge()
    return model, processor


def encoder_of(model: PreTrainedModel) -> Any:
    """The encoder inside a model with a head; the model itself where it is the encoder."""
    return getattr(model, model.base_model_prefix, model)


def gene_table_of(processor: Any) -> GeneTable:
    """The processor's gene table, as every reader of cells takes it."""
    import pandas as pd

    frame = pd.DataFrame(processor.gene_table)
    frame["median"] = pd.to_numeric(frame["median"], errors="coerce")
    return GeneTable(frame)


def load_adapter(
    folder: Path,
    *,
    base: str | os.PathLike[str] | None = None,
    dtype: str | torch.dtype | None = None,
    attn_implementation: str | None = None,
) -> PreTrainedModel:
    """Load an adapter's base model with the adapter's labels, and merge the adapter into it.

    Raises
    ------
    InputError
        The base model is missing, or is not the one that the adapter was trained on.
    """
    from peft import PeftModel

    settings = check_checkpoint(folder)
    base_folder = resolve(base or settings.get("base_model_name_or_path") or _no_base(folder))
    check_checkpoint(base_folder)
    recorded = read_finetuning(folder)
    _check_base(folder, base_folder, recorded)
    head = "genes" if settings.get("task_type") == "TOKEN_CLS" else "cells"
    labels = (
        {"num_labels": len(recorded.labels), "id2label": dict(enumerate(recorded.labels))} if recorded.labels else {}
    )
    with _quiet(), loading(base_folder):
        model = _auto_class(head).from_pretrained(
            base_folder, dtype=dtype or "auto", attn_implementation=attn_implementation, **labels
        )
    try:
        adapted = PeftModel.from_pretrained(model, str(folder))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{folder}: this adapter does not fit the base model {base_folder}: {reason}") from error
    _check_adapter_weights(folder, adapted)
    merged = adapted.merge_and_unload()
    merged.config.label2id = {name: index for index, name in enumerate(recorded.labels)}
    return merged


def read_finetuning(path: Model) -> Finetuning:
    """What fine-tuning left beside the weights; label names from the config where no record is there.

    Examples
    --------
    >>> read_finetuning("runs/pbmc").labels  # doctest: +SKIP
    ['B cell', 'NK cell', 'monocyte']
    """
    if isinstance(path, PreTrainedModel):
        return Finetuning(labels=_labels_of_config(path.config.id2label or {}))
    folder = resolve(model_or_default(path))
    file = folder / FINETUNING_FILE
    if not file.exists():
        config = folder / "config.json"
        names = read_settings(config).get("id2label") or {} if config.exists() else {}
        return Finetuning(labels=_labels_of_config(names))
    record = read_settings(file)
    if not isinstance(record.get("labels"), list):
        raise InputError(f"{file}: names no labels; fetch it again")
    return Finetuning(
        labels=list(record["labels"]),
        ontology_ids=dict(record.get("ontology_ids") or {}),
        temperature=float(record.get("temperature", 1.0)),
        max_length=record.get("max_length"),
        species=record.get("species"),
        record=record,
    )


def _labels_of_config(names: Mapping[Any, str]) -> list[str]:
    return [names[key] for key in sorted(names, key=int)]


def _no_base(folder: Path) -> str:
    raise InputError(f"{folder}: adapter_config.json names no base model; pass it: base=...")


def _check_adapter_weights(folder: Path, adapted: Any) -> None:
    """PEFT leaves what an adapter file lacks at random, without a word."""
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    expected = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as tensors:
        found = set(tensors.keys())
        for name in sorted(found):
            if not bool(torch.isfinite(tensors.get_tensor(name)).all()):
                raise InputError(f"{folder}: {name!r} holds NaN or infinite numbers; the adapter is damaged")
    if expected != found:
        name = min(expected ^ found)
        raise InputError(
            f"{folder}: {name!r} is {'missing from' if name in expected else 'not expected in'} "
            "adapter_model.safetensors; the adapter is damaged, or adapter_config.json is another's"
        )


def _check_base(adapter: Path, base: Path, recorded: Finetuning) -> None:
    expected = recorded.record.get("base_sha256")
    weights = base / "model.safetensors"
    if expected and weights.exists() and sha256_of(weights) != expected:
        raise InputError(
            f"{adapter}: trained on another base model than {base} (weights differ); "
            f"pass the base it was trained on: {recorded.record.get('base_model', 'see its card')}"
        )


def _load_model(folder: Path, head: str | None, **options: Any) -> PreTrainedModel:
    config = read_settings(folder / "config.json")
    if config.get("model_type") != "genecompass":
        raise InputError(
            f"{folder}: model_type is {config.get('model_type')!r}, not 'genecompass'; "
            "a published checkpoint is converted first: genecompass convert"
        )
    if head is not None and HEADS[head][1] not in (config.get("architectures") or []):
        raise InputError(
            f"{folder}: has no head for {HEADS[head][0]} (it is a {', '.join(config.get('architectures') or ['?'])}); "
            + (
                "fine-tune it first: genecompass finetune " + head
                if head != "masked"
                else "pass a pre-trained checkpoint"
            )
        )
    check_checkpoint(folder)
    dtype = options.pop("dtype") or "auto"
    with _quiet(), loading(folder):
        return _auto_class(head).from_pretrained(folder, dtype=dtype, **options)


@contextlib.contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Turn whatever a loading library says of damaged files into one line that names the folder."""
    try:
        yield
    except (InputError, ImportError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        known = str(folder) in reason
        raise InputError(reason if known else f"{folder}: cannot be loaded ({reason})") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from reporting heads that are left out, or put on later, as if that were a fault."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _auto_class(head: str | None) -> Any:
    from .. import modeling_genecompass as modeling

    name = "GeneCompassModel" if head is None else HEADS[head][1]
    return getattr(modeling, name)


def _take_head(model: PreTrainedModel, head: str | None) -> PreTrainedModel:
    """The model itself if it has the head asked for; its encoder where none is."""
    if head is None:
        return encoder_of(model)
    if type(model).__name__ != HEADS[head][1]:
        raise InputError(f"{type(model).__name__} has no head for {HEADS[head][0]}; pass a {HEADS[head][1]}")
    return model


def _load_processor(folder: Path, base: str | os.PathLike[str] | None) -> Any:
    from ..tokenization import GeneCompassProcessor

    if not (folder / "genes.tsv.gz").exists() and (folder / "adapter_config.json").exists():
        settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        folder = resolve(base or settings["base_model_name_or_path"])
    if not (folder / "genes.tsv.gz").exists():
        raise InputError(f"{folder}: no gene table (genes.tsv.gz), so counts cannot be turned into tokens")
    with loading(folder):
        return GeneCompassProcessor.from_pretrained(folder)


def digest_of(model: torch.nn.Module) -> str:
    """A fingerprint of everything that a model computes with, to tell models of one name apart.

    Examples
    --------
    >>> digest_of(torch.nn.Linear(2, 2).requires_grad_(False)) == digest_of(torch.nn.Linear(2, 2))
    False
    """
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
