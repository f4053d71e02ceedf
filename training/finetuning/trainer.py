"""The loop of fine-tuning: transformers' Trainer with class weights, and the best weights kept in memory."""

import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import (
    EvalPrediction,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from ..progress import StepBar
from .data import collate

Score = Callable[[npt.NDArray[Any], npt.NDArray[Any]], float]


# a run of any length: an epoch of a few cells lasts two steps, one of many cells longer than the whole run may
EVALUATIONS = 10


class WeightedTrainer(Trainer):
    """Trainer whose cross-entropy weighs classes and counts items over the whole accumulated batch.

    Parameters
    ----------
    class_weights
        Weight of each class; None for equal weights.
    """

    def __init__(self, *args: Any, class_weights: torch.Tensor | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.class_weights = class_weights

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Weighted cross-entropy over cells, or over the labelled genes of cells."""
        labels = inputs["labels"]
        outputs = model(**{name: tensor for name, tensor in inputs.items() if name != "labels"})
        logits = outputs.logits.flatten(0, -2).float()
        weights = None if self.class_weights is None else self.class_weights.to(logits.device)
        flat = labels.flatten()
        total = nn.functional.cross_entropy(logits, flat, weight=weights, ignore_index=-100, reduction="sum")
        items = num_items_in_batch if num_items_in_batch is not None else (flat != -100).sum()
        loss = total / max(int(items), 1)
        return (loss, outputs) if return_outputs else loss


class KeepBest(TrainerCallback):
    """Remember the latest weights that validation cannot tell from the best; stop when nothing improves, if asked to.

    Weights go on getting better while the learning rate falls, and few validation cells see little of that: among
    weights within one standard error of the best score the latest are kept (Breiman et al. 1984 choose the simplest).

    Parameters
    ----------
    model
        Whose trainable weights to keep.
    items
        Validation items behind a score.
    patience
        Evaluations without improvement before training stops; None trains to the end.
    warmup_steps
        Steps in which a model may get worse, as a fitted head does while the layers below it begin to move: they do
        not count.
    moments
        Tensors that belong to the weights although they are none, and are kept along with them.
    """

    def __init__(
        self,
        model: nn.Module,
        items: int,
        *,
        patience: int | None = None,
        warmup_steps: int = 0,
        moments: Sequence[torch.Tensor] = (),
    ) -> None:
        self.tensors = [*(parameter for parameter in model.parameters() if parameter.requires_grad), *moments]
        self.items, self.patience, self.warmup_steps, self.since = items, patience, warmup_steps, 0
        self.best = -float("inf")
        self.kept_epoch: float | None = None
        self.kept_score = self.best
        self.kept: list[torch.Tensor] = []
        self.history: list[dict[str, float]] = []

    def consider(self, score: float, loss: float, epoch: float | None) -> None:
        """Compare with the best so far, and keep the weights unless they are worse beyond chance."""
        self.history.append({"epoch": round(epoch or 0.0, 2), "score": score, "loss": loss})
        self.since = 0 if score > self.best else self.since + 1
        self.best = max(self.best, score)
        share = min(max(self.best, 0.0), 1.0)
        if score >= self.best - (share * (1 - share) / self.items) ** 0.5:
            self.kept_epoch, self.kept_score = epoch, score
            self.kept = [tensor.detach().to("cpu", copy=True) for tensor in self.tensors]

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **_: Any
    ) -> None:
        """After each evaluation on validation."""
        metrics = metrics or {}
        self.consider(metrics["eval_score"], metrics["eval_loss"], state.epoch)
        if state.global_step <= self.warmup_steps:
            self.since = 0
        if self.patience is not None and self.since >= self.patience:
            control.should_training_stop = True

    @torch.no_grad()
    def restore(self) -> None:
        """Put the kept weights back."""
        for tensor, kept in zip(self.tensors, self.kept, strict=bool(self.kept)):
            tensor.copy_(kept)


def train_with_trainer(
    model: nn.Module,
    train: Dataset,
    validation: Dataset,
    *,
    score: Score,
    learning_rate: float,
    epochs: float,
    max_steps: int | None = None,
    batch_size: int = 16,
    patience: int | None = None,
    weight_decay: float = 0.01,
    class_weights: npt.NDArray[np.float32] | None = None,
    seed: int = 0,
    bf16: bool = False,
    device: str | None = None,
    progress: bool = False,
    start_is_candidate: bool = False,
    moments: Sequence[torch.Tensor] = (),
) -> dict[str, Any]:
    """Train; the model ends with the latest weights that did best on validation (see `KeepBest`).

    Parameters
    ----------
    model
        Model whose trainable parameters are set.
    train, validation
        `CellRows` or `GeneRows`.
    score
        Of validation logits and labels; higher is better.
    learning_rate, epochs, max_steps, batch_size, weight_decay, seed, bf16
        As `transformers.TrainingArguments`; linear warm-up over the first tenth, then linear decay.
    patience
        Evaluations (ten a run) without improvement after warm-up before training stops; None trains to the end.
    class_weights
        Weight of each class.
    device
        ``"cpu"`` keeps training off a GPU that is there.
    start_is_candidate
        Also consider the weights before the first step: right where the head was fitted beforehand.
    moments
        Tensors to keep along with the best weights.

    Returns
    -------
    dict
        ``history`` (score and loss by epoch), ``kept_epoch`` and ``kept_score`` of the weights kept, ``steps``,
        ``seconds``, ``optimizer_bytes``, ``gradient_bytes``.
    """
    steps_an_epoch = max(1, -(-len(train) // batch_size))  # type: ignore[arg-type]
    total_steps = min(max_steps or 10**9, int(np.ceil(epochs * steps_an_epoch)))
    warmup_steps = max(1, total_steps // 10)
    rows: Any = validation
    keep = KeepBest(model, max(len(rows), 1), patience=patience, warmup_steps=warmup_steps, moments=moments)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            per_device_train_batch_size=batch_size,
            per_device_eval_batch_size=2 * batch_size,
            learning_rate=learning_rate,
            max_steps=total_steps,
            warmup_steps=warmup_steps,
            weight_decay=weight_decay,
            max_grad_norm=1.0,
            eval_strategy="steps",
            eval_steps=-(-total_steps // EVALUATIONS),
            save_strategy="no",
            logging_strategy="no",
            remove_unused_columns=False,
            label_names=["labels"],
            seed=seed,
            bf16=bf16,
            use_cpu=device == "cpu",
            disable_tqdm=True,
            report_to="none",
            dataloader_pin_memory=False,
        )
        trainer = WeightedTrainer(
            model=model,
            args=arguments,
            data_collator=collate,
            train_dataset=train,
            eval_dataset=validation,
            compute_metrics=lambda found: {"score": _score(found, score)},
            callbacks=[keep],
            class_weights=None if class_weights is None else torch.tensor(class_weights),
        )
        trainer.remove_callback(PrinterCallback)
        if progress:
            trainer.add_callback(StepBar("fine-tuning"))
        if start_is_candidate:
            trainer.evaluate()
        result = trainer.train()
    keep.restore()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return {
        "history": keep.history,
        "kept_epoch": keep.kept_epoch,
        "kept_score": keep.kept_score,
        "steps": result.global_step,
        "seconds": float(result.metrics["train_runtime"]),
        "gradient_bytes": sum(parameter.numel() * parameter.element_size() for parameter in trainable),
        "optimizer_bytes": _state_bytes(trainer.optimizer),
    }


def _score(found: EvalPrediction, score: Score) -> float:
    logits = found.predictions[0] if isinstance(found.predictions, tuple) else found.predictions
    labels = np.asarray(found.label_ids)
    counted = labels != -100
    return score(np.asarray(logits)[counted], labels[counted])


def _state_bytes(optimizer: Any) -> int:
    state = getattr(optimizer, "state", None) or {}
    return sum(
        entry.numel() * entry.element_size()
        for moments in state.values()
        for entry in moments.values()
        if isinstance(entry, torch.Tensor)
    )
