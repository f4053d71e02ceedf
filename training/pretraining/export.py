"""The finished checkpoint: model, processor, gene table, resolved configuration, history; whole or not there."""

import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from ...tokenization.errors import InputError
from ...tokenization.files import write_json
from ...tokenization.manifest import versions, write_manifest
from ..record import command_line
from .config import PretrainConfig
from .trainer import PretrainingTrainer

CONFIG_FILE = "pretraining.yaml"
RECORD_FILE = "pretraining.json"
PARTIAL = ".partial-model"
# keys that may differ between a run and its resumption without changing the weights
_FREE_KEYS = ("output", "logging", "checkpoints", "evaluation", "optimisation.max_minutes", "optimisation.device")


def describe(config: PretrainConfig) -> dict[str, Any]:
    """The resolved configuration without local folders: a path becomes its last part."""
    content = config.to_dict()
    content["output"] = None
    for section, key in ((content, "corpus"), (content, "gene_table"), (content["model"], "priors")):
        section[key] = _last_part(section[key])
    content["model"]["from_checkpoint"] = _last_part(content["model"]["from_checkpoint"])
    return content


def _last_part(path: str | None) -> str | None:
    return Path(path).resolve().name if path and (Path(path).exists() or Path(path).is_absolute()) else path


def differences(saved: dict[str, Any], config: PretrainConfig) -> list[str]:
    """Keys in which a run to resume differs from the present configuration, those that do not matter left out."""
    return _differing(saved, describe(config), "")


def _differing(saved: Any, now: Any, key: str) -> list[str]:
    if key in _FREE_KEYS:
        return []
    if isinstance(saved, dict) and isinstance(now, dict) and not key.endswith(("overrides", "select", "probabilities")):
        prefix = f"{key}." if key else ""
        return [d for name in {**saved, **now} for d in _differing(saved.get(name), now.get(name), prefix + name)]
    return [] if saved == now else [key]


def export(
    trainer: PretrainingTrainer, folder: Path, config: PretrainConfig, record: dict[str, Any], corpus_name: str | None
) -> None:
    """Write the finished checkpoint into the run's folder; every process calls it, the first one writes.

    Parameters
    ----------
    trainer
        After training.
    folder
        The run's folder; checkpoints to resume from stay in it.
    config
        Resolved configuration.
    record
        History, evaluation, fingerprint and so on.
    corpus_name
        What the checkpoint is derived from.
    """
    partial = folder / PARTIAL
    if trainer.is_world_process_zero():
        shutil.rmtree(partial, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    try:
        trainer.save_model(str(partial), _internal_call=True)
        trainer.accelerator.wait_for_everyone()
        if not trainer.is_world_process_zero():
            return
        (partial / "training_args.bin").unlink(missing_ok=True)  # a pickle; the YAML says the same
        (partial / CONFIG_FILE).write_text(yaml.safe_dump(describe(config), sort_keys=False), encoding="utf-8")
        write_json(partial / RECORD_FILE, record)
        for path in sorted(partial.iterdir()):
            os.replace(path, folder / path.name)
    except OSError as error:
        raise InputError(
            f"the finished model could not be written to {folder} ({error}); resume to try again"
        ) from error
    finally:
        if trainer.is_world_process_zero():
            shutil.rmtree(partial, ignore_errors=True)
    write_manifest(folder, "checkpoint", derived_from=corpus_name)


def base_record(config: PretrainConfig, fingerprint: str, table_size: int) -> dict[str, Any]:
    """What is known before training: configuration, corpus, versions, command."""
    return {
        "config": describe(config),
        "corpus_fingerprint": fingerprint,
        "vocab_size": table_size,
        "versions": versions(),
        "command": command_line(),
    }
