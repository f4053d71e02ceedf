"""The builder's memory: what is planned, what is finished. Every mark is a file that appears whole or not at all."""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genecompass.tokenization.errors import InputError
from genecompass.tokenization.files import write_json

from .layout import WORK_FOLDER

logger = logging.getLogger(__name__)


def digest(content: Any) -> str:
    """SHA-256 of a value's canonical JSON.

    Examples
    --------
    >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    True
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Ledger:
    """Finished work of one build, in a folder beside the corpus that is deleted at the end.

    A finished task is a small JSON file, written after the task's output is in place under its final name. A killed
    build leaves whole outputs with their marks, and perhaps a file under a temporary name, which is swept away.

    Parameters
    ----------
    folder
        The corpus.
    """

    folder: Path

    @property
    def work(self) -> Path:
        """The folder of unfinished work."""
        return self.folder / WORK_FOLDER

    def plan(self, content: dict[str, Any]) -> dict[str, Any]:
        """Record the plan of a build, or return the recorded one when it is the same build.

        Raises
        ------
        InputError
            When the unfinished build in this folder had other inputs or options.
        """
        path = self.work / "plan.json"
        asked = digest(content["asked"])
        if path.exists():
            recorded = self._read(path)
            if digest(recorded["asked"]) != asked:
                raise InputError(
                    f"{self.folder}: an unfinished build with other inputs or options lies in {WORK_FOLDER}/; "
                    f"run it to its end with those, or delete that folder"
                )
            return recorded
        write_json(path, content)
        return content

    def recorded_plan(self) -> dict[str, Any] | None:
        """The plan of an unfinished build; None where there is none."""
        path = self.work / "plan.json"
        return self._read(path) if path.exists() else None

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            digest(content["asked"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: damaged ({error}); delete {self.work} to begin this build anew") from error
        return content

    def finished(self, task: str) -> dict[str, Any] | None:
        """What a finished task recorded; None when it still has to be done, or its output is not what it was."""
        path = self.work / "done" / f"{task}.json"
        if not path.exists():
            return None
        try:
            mark = json.loads(path.read_text(encoding="utf-8"))
            record, sizes = mark["record"], mark["sizes"]
        except (ValueError, KeyError, TypeError):
            logger.warning("%s: damaged; this part of the build is done again", path)
            return None
        for name, size in sizes.items():
            output = self.work / name
            # a shard leaves this folder when it is published
            if (output.exists() and output.stat().st_size != size) or not (
                output.exists() or task.startswith("gather")
            ):
                logger.warning("%s: damaged; this part of the build is done again", output)
                return None
        return record

    def finish(self, task: str, record: dict[str, Any]) -> dict[str, Any]:
        """Mark a task as finished. Its output must already be in place."""
        sizes = {path.name: path.stat().st_size for path in sorted(self.work.glob(f"{task}.*")) if path.is_file()}
        write_json(self.work / "done" / f"{task}.json", {"record": record, "sizes": sizes})
        return record

    def sweep(self) -> None:
        """Remove the temporaries that a killed build left behind."""
        for leftover in self.folder.rglob(".*.partial.*"):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete the folder of unfinished work: at one stroke out of the way, then bit by bit."""
        if self.work.exists():
            done = self.folder / f".{uuid.uuid4().hex[:8]}.partial.{WORK_FOLDER.strip('.')}"
            os.replace(self.work, done)
            shutil.rmtree(done)


@contextlib.contextmanager
def sole_builder(folder: Path) -> Iterator[None]:
    """Keep a second builder out of `folder`; a killed builder's lock vanishes with its process.

    Raises
    ------
    InputError
        When another process is building there.

    Examples
    --------
    >>> import tempfile
    >>> with sole_builder(Path(tempfile.mkdtemp())):
    ...     pass
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{folder}: another process is building this corpus; wait for it to end") from error
        yield
    finally:
        os.close(handle)
