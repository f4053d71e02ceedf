"""The folder of a run: unused, or of the very run that is to be continued."""

import json
from pathlib import Path

from ...tokenization.errors import InputError
from ...tokenization.files import write_json
from . import checkpoints
from .config import PretrainConfig
from .export import describe, differences

RUN_FILE = "run.json"


def claim_folder(folder: Path, config: PretrainConfig, identity: str, resume: bool) -> Path | None:
    """The checkpoint to resume from, or None for a new run in an unused folder.

    Parameters
    ----------
    folder
        The run's folder.
    config
        Resolved configuration.
    identity
        Fingerprint of the corpus.
    resume
        Whether to continue the run in `folder`.

    Raises
    ------
    InputError
        The folder is in use, cannot be written, holds no run, or the run had other settings or another corpus.
    """
    found = checkpoints.checkpoints_in(folder) if folder.is_dir() else []
    run_file = folder / RUN_FILE
    if not resume:
        used = folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir())
        if used:
            raise InputError(f"{folder}: output folder in use; choose another one, or --resume to continue its run")
        _make_folder(folder)
        return None
    if not run_file.is_file():
        raise InputError(f"{folder}: no run to resume here ({RUN_FILE} is missing)")
    saved = json.loads(run_file.read_text(encoding="utf-8"))
    changed = differences(saved["config"], config)
    if changed:
        raise InputError(
            f"{folder}: cannot resume with other settings; {changed[0]} differs from the run's. Start a new run in "
            "another folder, or put the setting back"
        )
    if saved["corpus_fingerprint"] != identity:
        raise InputError(f"{folder}: cannot resume, the corpus has changed since the run began")
    checkpoints.clear_partial(folder)
    return found[-1] if found else None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".write-test"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{folder}: cannot write here ({error.strerror}); choose another output folder") from error


def mark_begun(folder: Path, config: PretrainConfig, identity: str) -> None:
    """Record what a resumed run must agree with."""
    write_json(folder / RUN_FILE, {"config": describe(config), "corpus_fingerprint": identity})
