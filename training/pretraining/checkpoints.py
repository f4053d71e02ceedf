"""Checkpoints to resume from: whole or not there, the last few kept, and a full disk leaves the old ones alone."""

import json
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any

from ...tokenization.errors import InputError
from ...tokenization.files import sha256_of, write_json

_NAME = re.compile(r"checkpoint-(\d+)")
PARTIAL = ".partial-checkpoint"
FILES = "files.json"

logger = logging.getLogger(__name__)


class CheckpointError(OSError):
    """A checkpoint could not be written; the message names the last good one."""


def checkpoints_in(folder: str | os.PathLike[str]) -> list[Path]:
    """Finished checkpoints of a run, oldest first.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for step in (10, 9):
    ...     (folder / f"checkpoint-{step}").mkdir()
    >>> [path.name for path in checkpoints_in(folder)]
    ['checkpoint-9', 'checkpoint-10']
    """
    folder = Path(folder)
    found = [path for path in folder.glob("checkpoint-*") if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """Step number in a checkpoint's name."""
    match = _NAME.fullmatch(checkpoint.name)
    if match is None:
        raise InputError(f"{checkpoint}: not a checkpoint folder (checkpoint-<step>)")
    return int(match.group(1))


def clear_partial(folder: Path) -> None:
    """Remove what a killed run left half-written."""
    for path in folder.glob(f"{PARTIAL}*"):
        shutil.rmtree(path, ignore_errors=True)


def publish(folder: Path, partial: Path, step: int, keep_last: int) -> Path:
    """Move a finished checkpoint from its partial folder into place, then drop all but the last few."""
    target = folder / f"checkpoint-{step}"
    if target.exists():
        shutil.rmtree(target)
    _flush(partial / target.name)
    write_json(partial / target.name / FILES, _files_of(partial / target.name))
    os.replace(partial / target.name, target)
    shutil.rmtree(partial, ignore_errors=True)
    for old in checkpoints_in(folder)[:-keep_last]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def last_whole(folder: Path) -> Path | None:
    """The newest checkpoint whose files are as they were written; a damaged one is told and stepped over.

    Raises
    ------
    InputError
        There are checkpoints, and all of them are damaged.
    """
    damaged: list[str] = []
    for checkpoint in reversed(checkpoints_in(folder)):
        problem = damage_of(checkpoint)
        if problem is None:
            if damaged:
                logger.warning("%s; going back to %s", "; ".join(damaged), checkpoint.name)
            return checkpoint
        damaged.append(f"{checkpoint}: {problem}")
    if damaged:
        raise InputError(f"{damaged[0]}; no checkpoint of this run is whole: start a new run in another folder")
    return None


def damage_of(checkpoint: Path) -> str | None:
    """What is wrong with the files of a checkpoint; None where they are as they were written."""
    try:
        recorded = json.loads((checkpoint / FILES).read_text(encoding="utf-8"))
    except FileNotFoundError:
        # written before checkpoints kept their checksums
        return None if (checkpoint / "trainer_state.json").is_file() else "trainer_state.json is missing"
    except ValueError:
        return f"{FILES} is damaged"
    for name, entry in recorded.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != entry["bytes"] or sha256_of(path) != entry["sha256"]:
            return f"{name} is damaged"
    return None


def _files_of(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": sha256_of(p)} for p in files}


def _flush(folder: Path) -> None:
    """Force the files to disk before the rename makes them count."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as handle:
                os.fsync(handle.fileno())


def failure(folder: Path, step: int, error: BaseException) -> CheckpointError:
    """The error to raise when a checkpoint could not be written."""
    good = checkpoints_in(folder)
    last = f"the last good checkpoint is {good[-1]}" if good else "no earlier checkpoint exists"
    reason = " ".join(str(error).split()) or type(error).__name__
    return CheckpointError(
        f"checkpoint at step {step} could not be written to {folder} ({reason}); {last}. Free some space or fix the "
        "folder's permissions, then continue with --resume"
    )


def write_positions(
    folder: Path, rank: int, world_size: int, workers: int, positions: dict[str, Any], next_worker: int
) -> None:
    """Save where this process stands in the stream, beside the weights."""
    content = {"world_size": world_size, "workers": workers, "positions": positions, "next_worker": next_worker}
    write_json(folder / f"stream_{rank}.json", content)


def read_positions(checkpoint: Path, rank: int, world_size: int, workers: int) -> tuple[dict[str, Any], int]:
    """Where this process stood in the stream: a position per worker, and whose turn came next.

    Raises
    ------
    InputError
        The checkpoint was written by another number of processes or workers, whose streams were split differently.
    """
    path = checkpoint / f"stream_{rank}.json"
    if not path.is_file():
        raise InputError(
            f"{checkpoint}: no stream position for process {rank}; resume with as many processes as the run had"
        )
    content = json.loads(path.read_text(encoding="utf-8"))
    for name, now in (("world_size", world_size), ("workers", workers)):
        if content[name] != now:
            raise InputError(
                f"{checkpoint}: was written with {name} {content[name]}, now it is {now}; exact resume needs the same"
            )
    return dict(content["positions"]), int(content["next_worker"])
