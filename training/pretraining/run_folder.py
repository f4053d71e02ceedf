"""The folder of a run: unused, or of the very run that is to be continued."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from ...tokenization.errors import InputError
from ...tokenization.files import sole_writer, write_json
from . import checkpoints
from .config import PretrainConfig
from .export import describe, differences

RUN_FILE = "run.json"


@contextlib.contextmanager
def claimed(folder: Path, config: PretrainConfig, identity: str, resume: bool) -> Iterator[Path | None]:
    """As `claim_folder`; while the block lasts, no other run may write into the folder."""
    with contextlib.ExitStack() as held:
        # of several processes of one run, the first holds the folder for all
        first, existed = os.environ.get("RANK", "0") == "0", folder.is_dir()
        if first and existed:
            held.enter_context(sole_writer(folder))
        checkpoint = claim_folder(folder, config, identity, resume)
        if first and not existed:
            held.enter_context(sole_writer(folder))
        yield checkpoint


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
    run_file = folder / RUN_FILE
    if not resume:
        used = folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir())
        if used:
            raise InputError(f"{folder}: output folder in use; choose another one, or --resume to continue its run")
        _make_folder(folder)
        return None
    if not run_file.is_file():
        raise InputError(f"{folder}: no run to resume here ({RUN_FILE} is missing)")
    try:
        saved = json.loads(run_file.read_text(encoding="utf-8"))
        saved["config"], saved["corpus_fingerprint"]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{run_file}: damaged ({error}); start a new run in another folder") from error
    changed = differences(saved["config"], config)
    if changed:
        raise InputError(
            f"{folder}: cannot resume with other settings; {changed[0]} differs from the run's. Start a new run in "
            "another folder, or put the setting back"
        )
    if saved["corpus_fingerprint"] != identity:
        raise InputError(f"{folder}: cannot resume, the corpus has changed since the run began")
    checkpoints.clear_partial(folder)
    return checkpoints.last_whole(folder)


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
