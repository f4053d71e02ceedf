"""Write what fine-tuning made: an adapter of a few megabytes or a whole checkpoint, labels and record beside it."""

import os
from pathlib import Path
from typing import Any

from ...tokenization import GeneCompassProcessor
from ...tokenization.errors import InputError
from ...tokenization.files import atomic_path, sha256_of, write_json
from ...tokenization.manifest import write_manifest
from ..record import command_line
from .methods import ADAPTERS, quiet_transformers

FINETUNING_FILE = "finetuning.json"


def check_output(output: str | os.PathLike[str] | None, *, overwrite: bool = False) -> None:
    """Refuse, before hours of training, a place that is taken; with `overwrite`, one that holds something else."""
    if output is None:
        return
    path = Path(output)
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / FINETUNING_FILE).exists()):
        raise InputError(f"{path}: exists and is no fine-tuned model; choose another output")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise InputError(f"{path}: holds a fine-tuned model already; choose another output, or pass overwrite=True")


def save_finetuned(
    model: Any,
    output: str | os.PathLike[str],
    *,
    method: str,
    base: Path,
    base_name: str,
    record: dict[str, Any],
    merge: bool = False,
) -> Path:
    """Save a fine-tuned model; nothing is left under `output` unless all of it could be written.

    Parameters
    ----------
    model
        `PeftModel` for adapters, else a classifier.
    output
        Folder to write.
    method
        How it was trained.
    base, base_name
        Folder of the base checkpoint, and the name by which others find it (folder or ``owner/name[@revision]``).
    record
        Labels, temperature, split, scores, cost: goes into ``finetuning.json``.
    merge
        Add the adapter to the base weights and save a whole checkpoint.

    Returns
    -------
    Path
        `output`.
    """
    whole = merge or method not in ADAPTERS
    weights = base / "model.safetensors"
    content = {
        "command": command_line(),
        **record,
        "base_model": base.name if base_name == str(base) else base_name,
        "base_sha256": sha256_of(weights) if weights.exists() else None,
        "merged": merge and method in ADAPTERS,
    }
    with quiet_transformers(), atomic_path(output) as folder:
        folder.mkdir()
        if whole:
            plain = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
            plain.save_pretrained(folder)
            GeneCompassProcessor.from_pretrained(base).save_pretrained(folder)
        else:
            _save_adapter(model, folder, base, base_name)
        write_json(folder / FINETUNING_FILE, content)
        write_manifest(folder, "checkpoint" if whole else "adapter", derived_from=base_name)
    return Path(output)


def _save_adapter(model: Any, folder: Path, base: Path, base_name: str) -> None:
    settings = model.peft_config["default"]
    name, _, revision = base_name.partition("@")
    # a folder is named in full, so that the adapter finds its base from wherever it is loaded
    settings.base_model_name_or_path = str(base.resolve()) if Path(base_name).exists() else name
    settings.revision = revision or None
    model.save_pretrained(folder, save_embedding_layers=False)
    # PEFT leaves a card that only says "fill me in"; ours is written from finetuning.json
    (folder / "README.md").unlink(missing_ok=True)
