"""A Trainer callback that leaves a card and a manifest at every save, so that no run ends undocumented."""

import logging
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..tokenization.manifest import MANIFEST, write_manifest
from .card import write_card

logger = logging.getLogger(__name__)


class CardCallback(TrainerCallback):
    """Write manifest and card into every checkpoint of a run.

    A card that cannot be written is a warning, never the end of a run.

    Parameters
    ----------
    derived_from
        What the model is trained from, for the manifest: corpus, base checkpoint.

    Examples
    --------
    >>> from transformers import Trainer
    >>> Trainer(model, arguments, callbacks=[CardCallback()])  # doctest: +SKIP
    """

    def __init__(self, *, derived_from: Any = None) -> None:
        self.derived_from = derived_from

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Document the checkpoint that was just written."""
        folder = Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            self._document(folder)

    def _document(self, folder: Path) -> None:
        is_adapter = (folder / "adapter_config.json").is_file()
        # Running the model here would take its memory twice; the finished checkpoint gets its known answer.
        try:
            (folder / MANIFEST).unlink(missing_ok=True)
            write_manifest(
                folder,
                "adapter" if is_adapter else "checkpoint",
                derived_from=self.derived_from,
                known_answer=False,
            )
            write_card(folder)
        except (ValueError, OSError) as error:
            logger.warning("%s: no card written (%s)", folder, error)
