"""The training loop: transformers' Trainer with an endless stream, losses over global counts, exact resume."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ...modeling_genecompass import GeneCompassForMaskedGeneModeling
from ...tokenization.errors import InputError
from . import checkpoints
from .count_split import COUNT_TARGETS, CountSplitCollator
from .losses import count_targets, loss_sums
from .masking import NO_TARGET
from .metering import FlopCount, Meter, peak_flops
from .stream import CELL_IDS, POSITION, TokenBudgetStream


class DivergedError(InputError):
    """The loss is no longer a number."""


class PretrainingTrainer(Trainer):
    """Trainer for masked genes.

    What differs from its base class: batches come from a `TokenBudgetStream` and carry their position, which the
    checkpoint saves, so that resuming reads no batch twice; both losses are means over the asked slots of *all*
    processes and micro-batches, however many cells each has; checkpoints appear whole or not at all; a loss that is
    not a number stops training before it reaches a checkpoint.

    Parameters
    ----------
    model, args
        As `transformers.Trainer`.
    stream
        Training batches of this process.
    workers
        DataLoader processes.
    keep_last
        Checkpoints to keep.
    max_minutes
        Stop all processes together after so many minutes.
    peak_tflops
        Peak of one device; None: found out.
    evaluate_with
        Called with the bare model at every evaluation; returns figures for the log.
    **kwargs
        More of `transformers.Trainer`'s.
    """

    def __init__(
        self,
        model: GeneCompassForMaskedGeneModeling,
        args: TrainingArguments,
        *,
        stream: TokenBudgetStream,
        workers: int = 0,
        keep_last: int = 3,
        max_minutes: float | None = None,
        peak_tflops: float | None = None,
        evaluate_with: Any = None,
        **kwargs: Any,
    ) -> None:
        self._partial: Path | None = None
        super().__init__(model, args, **kwargs)
        self.stream = stream
        self.workers = workers
        self.keep_last = keep_last
        self.evaluate_with = evaluate_with
        self.positions: dict[str, Any] = {}
        self.next_worker = 0
        self.cells_of_step: list[str] = []
        self.time_is_up = False
        # name of the signal that asked for an end; every process ends together, after a checkpoint
        self.stopped_by: str | None = None
        # the loss is normalised here, by global counts; the Trainer must not divide it again
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        self.counts = isinstance(stream.collator, CountSplitCollator)
        self.meter = Meter(self.args.device)
        self._flop_count = FlopCount(model.config)
        self._peak = peak_tflops * 1e12 if peak_tflops else None
        self._deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
        self.add_callback(_StopTogether(self))

    # ---- data ----

    def get_train_dataloader(self) -> DataLoader:
        """The stream's batches; not sharded by accelerate, because the corpus splits itself over processes."""
        # a generator of its own: the loader draws a seed when it starts, which must not move the model's dropout
        generator = torch.Generator().manual_seed(self.args.seed)
        return DataLoader(
            self.stream,
            batch_size=None,
            num_workers=self.workers,
            generator=generator,
            pin_memory=self.args.device.type == "cuda",
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor]:
        """Micro-batches of one step, and the number of asked ids and values over all processes, shape (2,)."""
        started = time.perf_counter()
        batches = [next(epoch_iterator) for _ in range(num_batches)]
        self.meter.data_seconds += time.perf_counter() - started
        counts = torch.zeros(3, dtype=torch.float64)
        self.cells_of_step = []
        for batch in batches:
            position = batch.pop(POSITION)
            # kept at once: a checkpoint can only be written after this step is done
            self.positions[str(position["worker"])] = position
            self.next_worker = (position["worker"] + 1) % max(1, self.workers)
            self.cells_of_step += batch.pop(CELL_IDS)
            counts += torch.tensor([*count_targets(batch), 0])
            self._count(batch)
        if self.stopped_by is not None or (self._deadline is not None and time.monotonic() > self._deadline):
            counts[2] = 1
        totals = self.accelerator.reduce(counts.to(device), reduction="sum") if self.args.world_size > 1 else counts
        # any process whose time is up stops all of them after this step
        self.time_is_up = bool(totals[2])
        self.meter.steps += 1
        return batches, totals[:2].to(device)

    def _count(self, batch: dict[str, torch.Tensor]) -> None:
        lengths = batch["cell_lengths"] if "cell_lengths" in batch else batch["attention_mask"].sum(1)
        self.meter.tokens += int(lengths.sum())
        self.meter.slots += batch["input_ids"].numel()
        self.meter.cells += len(lengths)
        asked = int((batch["labels"] != NO_TARGET).sum()) if "labels" in batch else 0
        self.meter.flops += self._flop_count.of_batch(lengths, asked)

    # ---- loss ----

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """A micro-batch's part of the step's loss.

        Each of the two losses is a mean over the asked slots of all processes and micro-batches. Gradients are
        averaged over processes, so the part is multiplied by their number.
        """
        if not isinstance(num_items_in_batch, torch.Tensor):
            raise TypeError("counts of asked ids and values are missing")
        id_sum, value_sum, outputs = loss_sums(model, inputs)
        totals = num_items_in_batch.clamp(min=1).float()
        id_part, value_part = id_sum / totals[0], value_sum / totals[1]
        self.meter.add_losses(id_part, value_part)
        weights = self.accelerator.unwrap_model(model).config
        if COUNT_TARGETS in inputs:
            loss = id_part
        else:
            loss = weights.id_loss_weight * id_part + weights.value_loss_weight * value_part
        loss = loss * self.args.world_size
        return (loss, outputs) if return_outputs else loss

    # ---- logs ----

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add losses apart, speed and utilisation to the training figures; stop if the loss is not a number."""
        if "loss" in logs and "grad_norm" in logs:
            sums = self.meter.sums()
            totals = self.accelerator.reduce(sums, reduction="sum") if self.args.world_size > 1 else sums
            if self._peak is None:
                self._peak = peak_flops(self.args.device, torch.bfloat16 if self._half() else torch.float32)
            logs = {**logs, **self.meter.report(totals, self.args.world_size, self._peak)}
            if self.counts:
                logs["count_loss"] = logs.pop("id_loss")
                logs.pop("value_loss")
            self._refuse_nan(logs["loss"], logs)
        super().log(logs, start_time)

    def _half(self) -> bool:
        return bool(self.args.bf16 or self.args.fp16)

    def _refuse_nan(self, loss: float, logs: dict[str, float]) -> None:
        if loss == loss and abs(loss) != float("inf"):
            return
        losses = ", ".join(
            f"{name.removesuffix('_loss')} {logs[name]:.4g}"
            for name in ("id_loss", "value_loss", "count_loss")
            if name in logs
        )
        good = checkpoints.checkpoints_in(str(self.args.output_dir))
        raise DivergedError(
            f"the loss is {loss} at step {self.state.global_step} ({losses}, gradient norm {logs['grad_norm']:.4g}); "
            "training stops. Lower "
            "optimisation.learning_rate or lengthen optimisation.warmup_steps, or use precision bf16 or "
            f"fp32 instead of fp16. Last good checkpoint: {good[-1] if good else 'none'}"
        )

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Held-out figures from `evaluate_with`, logged with the prefix ``eval_``."""
        if self.evaluate_with is None:
            return {}
        started = time.perf_counter()
        model = self.accelerator.unwrap_model(self.model) if not self.is_fsdp_enabled else self.model
        figures = {f"eval_{name}": value for name, value in self.evaluate_with(model).items()}
        self.meter.paused_seconds += time.perf_counter() - started
        self.log(figures)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
        return figures

    # ---- checkpoints ----

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._partial) if self._partial is not None else super()._get_output_dir(trial)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write beside, then rename; whatever fails leaves the earlier checkpoints as they are."""
        self._refuse_nan_weights()
        folder, step = Path(str(self.args.output_dir)), self.state.global_step
        started = time.perf_counter()
        self._partial = folder / f"{checkpoints.PARTIAL}-{step}"
        try:
            super()._save_checkpoint(model, trial)
            target = self._partial / f"checkpoint-{step}"
            target.mkdir(parents=True, exist_ok=True)
            checkpoints.write_positions(
                target,
                self.args.process_index,
                self.args.world_size,
                self.workers,
                self.positions,
                self.next_worker,
            )
            self.accelerator.wait_for_everyone()
            if self.is_world_process_zero():
                checkpoints.publish(folder, self._partial, step, self.keep_last)
            self.accelerator.wait_for_everyone()
        except Exception as error:  # torch, safetensors and the file system each have an error of their own
            checkpoints.clear_partial(folder)
            raise checkpoints.failure(folder, step, error) from error
        finally:
            self._partial = None
            self.meter.paused_seconds += time.perf_counter() - started

    def _refuse_nan_weights(self) -> None:
        """A loss may turn into NaN between two logs: look at the losses since the last one before saving."""
        if not torch.isfinite(self.meter.losses).all():
            id_loss, value_loss = self.meter.losses.tolist()
            figures = {"id_loss": id_loss, "value_loss": value_loss, "grad_norm": float("nan")}
            self._refuse_nan(float("nan"), figures)

    def take_up(self, checkpoint: Path) -> None:
        """Weights, step and history of a checkpoint, without training on."""
        self._load_from_checkpoint(str(checkpoint))
        self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))

    def restore_stream(self, checkpoint: Path) -> None:
        """Continue the stream after the last batch that the checkpoint's weights have seen."""
        self.positions, self.next_worker = checkpoints.read_positions(
            checkpoint, self.args.process_index, self.args.world_size, self.workers
        )
        self.stream.restore(dict(self.positions), self.next_worker)


@contextlib.contextmanager
def stopping_on_signals(trainer: PretrainingTrainer) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end training after the next step, with a checkpoint; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: Any) -> None:
        trainer.stopped_by = signal.Signals(number).name
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, ask)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _StopTogether(TrainerCallback):
    """Ends training, with a checkpoint, when the time of any process is up."""

    def __init__(self, trainer: PretrainingTrainer) -> None:
        self.trainer = trainer

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ask for a checkpoint and the end."""
        if self.trainer.time_is_up and state.global_step < state.max_steps:
            control.should_save = control.should_training_stop = control.should_log = True
        return control


class PriorWarmup(TrainerCallback):
    """Raises the prior knowledge's strength from 0 to 1; a resumed run goes on where it was.

    Parameters
    ----------
    model
        The masked-gene model.
    steps
        Length of the rise.
    """

    def __init__(self, model: Any, steps: int) -> None:
        self.embeddings = model.genecompass.embeddings
        self.steps = steps

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the strength of the step that begins."""
        self.embeddings.prior_scale = min(1.0, state.global_step / self.steps)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A finished model knows its priors at full strength."""
        self.embeddings.prior_scale = 1.0
