"""One line that moves: step, losses, speed, and a time left that counts evaluations and checkpoints too."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..tokenization.progress import Progress


class StepBar(TrainerCallback):
    """Progress of this run; after a resume, the time left rests on the steps done since, not on those before.

    Parameters
    ----------
    what
        Is going on, in a word.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.bar: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar at the step reached."""
        if state.is_world_process_zero:
            # smoothing 0: the mean over the whole run, pauses for evaluation included
            self.bar = Progress(
                total=state.max_steps, initial=state.global_step, desc=self.what, unit="step", smoothing=0
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move to the step reached."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Show the latest losses and the speed."""
        losses = {name: logs[f"{name}_loss"] for name in ("id", "value", "count") if logs and f"{name}_loss" in logs}
        if self.bar is not None and losses:
            shown = ", ".join(f"{name} {loss:.4g}" for name, loss in losses.items())
            self.bar.set_postfix_str(f"{shown}, {logs['cells_per_second']:,.0f} cells/s")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
