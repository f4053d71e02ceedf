"""Fine-tuning between reading and saving: split, fit the head, train, calibrate, count the cost."""

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from ...eval.metrics import accuracy, auroc, expected_calibration_error, fit_temperature, macro_f1
from ...tokenization.errors import InputError
from .data import CellRows, GeneRows, Labels, balanced_weights, collate, split_validation
from .head import train_head
from .methods import (
    FRESH,
    HEAD_ONLY,
    count_parameters,
    default_learning_rate,
    pooler_of,
    prepare,
    quiet_transformers,
    seed_everything,
    without_dropout,
)
from .norm import normalised_pooler, pooler_outputs
from .trainer import Score, train_with_trainer

# A gene stands in many cells: how many independent items that makes, validation has to say.
_GENE_STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class FinetuneOptions:
    """How to fine-tune.

    Parameters
    ----------
    method
        ``"lora"``, ``"dora"``, ``"ia3"``, ``"bitfit"``, ``"frozen"`` (the head alone), ``"full"``; for
        comparison ``"scratch"`` and ``"untrained"``: full and frozen from random weights.
    r
        Rank of LoRA and DoRA.
    targets
        Layers that they adapt: ``"all-linear"``, or ``"query-value"``, which takes less memory and time and learns
        slower.
    learning_rate
        Peak rate; None for one that suits the method and the width. ``"frozen"`` and ``"untrained"`` fit the head at
        once, without steps: it means nothing for them.
    epochs, max_steps, batch_size
        Length of training; whichever of epochs and steps ends first.
    patience
        Evaluations on validation without improvement, after warm-up, before training stops; there are ten a run. None
        trains to the end, and keeps the latest weights that validation cannot tell from the best.
    validation_fraction
        Share of the training cells (or genes) held out to stop early and to calibrate scores.
    group
        ``obs`` column of donors or samples, which validation takes whole; ``"auto"`` looks for one; None splits cells.
    class_weights
        Weigh classes so that all count the same.
    thin
        Training cells (not validation) also come as copies with these shares of their counts, as if sequenced less
        deeply: embeddings depend on depth, and labels do not. For cells; an empty tuple for none.
    head_first
        Fit the head on frozen states before anything else moves: a better start, for few labelled cells above all.
        Not for ``"scratch"``, which learns worse from there than from a random head.
    weight_decay
        Of AdamW.
    seed
        Of weights, dropout, order of cells and split.
    bf16, device, progress
        Mixed precision; ``"cpu"`` or a GPU where there is one; a progress bar.

    Examples
    --------
    >>> FinetuneOptions(method="full", seed=1).batch_size
    16
    """

    method: str = "lora"
    r: int = 4
    targets: str = "all-linear"
    learning_rate: float | None = None
    epochs: float = 10
    max_steps: int | None = None
    batch_size: int = 16
    patience: int | None = None
    validation_fraction: float = 0.15
    group: str | None = "auto"
    class_weights: bool = True
    thin: tuple[float, ...] = (0.7, 0.2)
    head_first: bool = True
    weight_decay: float = 0.01
    seed: int = 0
    bf16: bool = False
    device: str | None = None
    progress: bool = False


@dataclass
class FinetuneResult:
    """A fine-tuned model and how it came about.

    Parameters
    ----------
    model
        `PeftModel` for adapters, else a classifier; in evaluation mode, with the weights that did best on validation.
    labels
        Label names in the order of the outputs.
    temperature
        By which logits are divided for calibrated scores.
    validation
        Scores on the held-out part of the training data, and how it was split off.
    cost
        Seconds, steps, trainable and total parameters, gradient and optimiser bytes.
    record
        All of it, as ``finetuning.json`` holds it.
    output
        Where it was saved; None if it was not.
    """

    model: Any
    labels: list[str]
    temperature: float
    validation: dict[str, Any]
    cost: dict[str, Any]
    record: dict[str, Any]
    output: Path | None = None
    history: list[dict[str, float]] = field(default_factory=list)


def fit_cells(
    base: str | os.PathLike[str],
    tokenized: Any,
    labels: Labels,
    *,
    groups: npt.NDArray[Any] | None = None,
    thinned: Sequence[Any] = (),
    options: FinetuneOptions | None = None,
) -> FinetuneResult:
    """Fine-tune on cells that are tokenised already; what `finetune_cells` does between reading and saving.

    Parameters
    ----------
    base
        Checkpoint folder.
    tokenized, labels
        Cells and one label each, in the same order.
    groups
        Donor or sample by cell.
    thinned
        The same cells, tokenised with thinned counts, once for each share of `options.thin`; without them none of
        its copies is trained on, whatever it says.
    options
        How to train.
    """
    settings = options or FinetuneOptions()
    if not thinned:
        settings = replace(settings, thin=())  # what was done is recorded, not what was asked for
    train, validation, how = split_validation(
        labels.codes, groups=groups, fraction=settings.validation_fraction, seed=settings.seed
    )
    classes = len(labels.names)
    seed_everything(settings.seed)
    model = _load(base, "AutoModelForSequenceClassification", labels.names)
    result = _fit(
        model,
        ConcatDataset([CellRows(depth, train, labels.codes[train]) for depth in (tokenized, *thinned)]),
        CellRows(tokenized, validation, labels.codes[validation]),
        settings,
        score=lambda logits, codes: macro_f1(codes, logits.argmax(axis=-1)),
        weights=balanced_weights(labels.codes[train], classes) if settings.class_weights else None,
        names=labels.names,
    )
    result.validation |= {"split": how, "cells": len(validation), "training_cells": len(train)}
    result.record |= {"task": "cells", "ontology_ids": labels.ontology_ids}
    # by which cells of another species are aligned with these
    pooled = pooler_outputs(result.model, CellRows(tokenized, train, labels.codes[train]))
    result.record["pooled"] = {
        "mean": _short(pooled.mean(dim=0)),
        "spread": _short(pooled.std(dim=0, unbiased=False)),
    }
    return result


def _short(numbers: torch.Tensor) -> list[float]:
    """Six digits of each: enough to align by."""
    return [float(f"{number:.6g}") for number in numbers.tolist()]


def fit_genes(
    base: str | os.PathLike[str],
    tokenized: Any,
    tokens: npt.NDArray[np.int64],
    labels: Labels,
    *,
    vocab_size: int,
    cells: npt.NDArray[np.int64] | None = None,
    options: FinetuneOptions | None = None,
) -> FinetuneResult:
    """Fine-tune on labelled tokens in tokenised cells; validation holds out whole genes.

    Parameters
    ----------
    base
        Checkpoint folder.
    tokenized
        Cells that serve as context.
    tokens, labels
        Labelled tokens and their labels, in the same order.
    vocab_size
        Tokens of the vocabulary.
    cells
        Positions of cells to use; all where None.
    options
        How to train.
    """
    settings = replace(options or FinetuneOptions(), thin=())  # cells are context here: none is thinned
    train, validation, how = split_validation(labels.codes, fraction=settings.validation_fraction, seed=settings.seed)
    chosen = np.arange(len(tokenized)) if cells is None else cells
    rows = []
    for part in (train, validation):
        label_of_token = np.full(vocab_size, -100, dtype=np.int64)
        label_of_token[tokens[part]] = labels.codes[part]
        rows.append(GeneRows(tokenized, chosen, label_of_token))
    if not len(rows[0]) or not len(rows[1]):
        raise InputError("no cell expresses a labelled gene; use cells in which these genes are active")
    seed_everything(settings.seed)
    model = _load(base, "AutoModelForTokenClassification", labels.names)
    weights = balanced_weights(labels.codes[train], len(labels.names)) if settings.class_weights else None
    result = _fit(
        model,
        rows[0],
        rows[1],
        settings,
        score=_gene_score,
        weights=weights,
        names=labels.names,
        strengths=_GENE_STRENGTHS,
    )
    result.validation |= {"split": how.replace("cell", "gene"), "genes": len(validation), "training_genes": len(train)}
    result.record |= {"task": "genes"}
    return result


def _gene_score(logits: npt.NDArray[Any], codes: npt.NDArray[Any]) -> float:
    """AUROC for two classes, macro-F1 for more; two classes of which one is absent score 0.5."""
    if logits.shape[-1] > 2:
        return macro_f1(codes, logits.argmax(axis=-1))
    if len(np.unique(codes)) < 2:
        return 0.5
    return auroc(codes, logits[:, 1] - logits[:, 0])


def _fit(
    model: Any,
    train: Dataset,
    validation: Dataset,
    settings: FinetuneOptions,
    *,
    score: Score,
    weights: npt.NDArray[np.float32] | None,
    names: list[str],
    strengths: Sequence[float] = (0.1,),
) -> FinetuneResult:
    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    begin = time.perf_counter()
    model = model.to(device)
    head_only = settings.method in HEAD_ONLY
    rate = None
    if not head_only:
        task = "genes" if pooler_of(model) is None else "cells"
        width = model.config.hidden_size
        rate = settings.learning_rate or default_learning_rate(settings.method, width, task=task)
    fitted_head = head_only or (settings.head_first and settings.method != "scratch")
    history: list[dict[str, float]] = []
    trained: dict[str, Any] = {}
    if settings.method in FRESH:
        model = prepare(model, settings.method)
    if fitted_head:
        trained = train_head(model, train, validation, score=score, class_weights=weights, strengths=strengths)
    trainable = (
        model if settings.method in FRESH else prepare(model, settings.method, r=settings.r, targets=settings.targets)
    )
    if rate is not None:
        with (
            without_dropout(trainable) if fitted_head else contextlib.nullcontext(),
            normalised_pooler(trainable, train, fitted=fitted_head) as moments,
        ):
            trained |= train_with_trainer(
                trainable,
                train,
                validation,
                score=score,
                learning_rate=rate,
                epochs=settings.epochs,
                max_steps=settings.max_steps,
                batch_size=settings.batch_size,
                patience=settings.patience,
                weight_decay=settings.weight_decay,
                class_weights=weights,
                seed=settings.seed,
                bf16=settings.bf16,
                device=settings.device,
                progress=settings.progress,
                start_is_candidate=fitted_head,
                moments=moments,
            )
        history = trained.pop("history")
    trainable.eval()
    logits, codes = predict_rows(trainable, validation)
    temperature = fit_temperature(logits, codes)
    cost: dict[str, Any] = {
        "seconds": round(time.perf_counter() - begin, 3),
        "parameters": count_parameters(trainable),
        **{name: trained[name] for name in ("steps", "gradient_bytes", "optimizer_bytes") if name in trained},
    }
    scores = _validation_scores(logits, codes, temperature)
    record = {
        "labels": names,
        "method": settings.method,
        "temperature": temperature,
        "learning_rate": rate,
        "options": asdict(replace(settings, learning_rate=rate)),
        "validation": scores,
        "cost": cost,
        "history": history,
    }
    return FinetuneResult(trainable, names, temperature, scores, cost, record, history=history)


@torch.no_grad()
def predict_rows(model: Any, rows: Dataset, *, batch_size: int = 32) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Logits and labels of every labelled item of `rows`. Shapes (items, labels) and (items,)."""
    device = next(model.parameters()).device
    logits, labels = [], []
    for batch in DataLoader(rows, batch_size=batch_size, collate_fn=collate):
        answer = batch.pop("labels")
        found = model(**{name: tensor.to(device) for name, tensor in batch.items()}).logits.float().cpu()
        logits.append(found[answer >= 0])
        labels.append(answer[answer >= 0])
    return torch.cat(logits).numpy(), torch.cat(labels).numpy()


def _validation_scores(logits: npt.NDArray[Any], codes: npt.NDArray[Any], temperature: float) -> dict[str, Any]:
    scaled = torch.softmax(torch.from_numpy(logits) / temperature, dim=-1).numpy()
    predicted = logits.argmax(axis=-1)
    return {
        "macro_f1": macro_f1(codes, predicted),
        "accuracy": accuracy(codes, predicted),
        "calibration_error": expected_calibration_error(codes, predicted, scaled.max(axis=-1).clip(0, 1)),
    }


def _load(base: str | os.PathLike[str], auto: str, names: list[str]) -> Any:
    from ... import modeling_genecompass as modeling

    heads = {
        "AutoModelForSequenceClassification": modeling.GeneCompassForSequenceClassification,
        "AutoModelForTokenClassification": modeling.GeneCompassForTokenClassification,
    }
    # a pre-trained checkpoint has no classification head: that it is new is the point, not a warning
    with quiet_transformers():
        return heads[auto].from_pretrained(
            base,
            num_labels=len(names),
            id2label=dict(enumerate(names)),
            label2id={name: index for index, name in enumerate(names)},
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
        )
