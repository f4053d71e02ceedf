"""Atomic writes and checksums: a file is either whole under its name or not there at all."""

import codecs
import contextlib
import glob
import hashlib
import json
import os
import platform
import shutil
import uuid
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from .errors import InputError


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary sibling of `path` to write; move it into place only if the block succeeds.

    Works for files and for folders. On any error the temporary is removed and `path` is untouched; an old folder
    stays until the new one stands. What a killed process of this machine left beside `path` is swept away first.

    Parameters
    ----------
    path
        Where the finished file or folder belongs. Parent folders are made.

    Yields
    ------
    Path
        The temporary path to write to, on the same file system and with the same ending.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "table.tsv"
    >>> with atomic_path(target) as temporary:
    ...     _ = temporary.write_text("gene_id\\tmedian\\n")
    >>> target.exists()
    True
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target)
    temporary = target.with_name(f".{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}{_PARTIAL}{target.name}")
    try:
        yield temporary
        _share(temporary)
        if temporary.is_file():
            _flush_to_disk(temporary)
        else:
            for file in temporary.rglob("*"):
                if file.is_file():
                    _flush_to_disk(file)
        if target.is_dir() and temporary.is_dir():
            _exchange(temporary, target)
        else:
            os.replace(temporary, target)
    except BaseException:
        _remove(temporary)
        raise


def sweep(target: str | os.PathLike[str]) -> None:
    """Remove what killed processes of this machine left beside `target`, and put back a folder they had set aside.

    Examples
    --------
    >>> import tempfile
    >>> sweep(Path(tempfile.mkdtemp()) / "out.h5ad")
    """
    target = Path(target)
    if not target.parent.is_dir():
        return
    for path in target.parent.glob(f".{_host()}-*{_PARTIAL}{glob.escape(target.name)}*"):
        process = path.name.split("-")[1]
        rest = path.name.partition(_PARTIAL + target.name)[2]
        if rest not in ("", _OLD) or not process.isdigit() or _is_alive(int(process)):
            continue
        if rest == _OLD and not target.exists():
            os.replace(path, target)
        else:
            _remove(path)


_PARTIAL = ".partial."
_OLD = ".old"


def _exchange(new: Path, target: Path) -> None:
    """Put a new folder in the place of an old one, which is whole under one name or the other all the time."""
    aside = new.with_name(new.name + _OLD)
    os.replace(target, aside)
    try:
        os.replace(new, target)
    except BaseException:
        os.replace(aside, target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@lru_cache(maxsize=1)
def _host() -> str:
    """Some letters that tell this machine from others that share its disk, without its name."""
    return hashlib.sha256(f"{platform.node()}{uuid.getnode()}".encode()).hexdigest()[:6]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _share(path: Path) -> None:
    """Give safetensors files, which are written for their owner alone, the permissions of any other new file."""
    files = list(path.rglob("*.safetensors")) if path.is_dir() else [path] if path.suffix == ".safetensors" else []
    if files:
        mask = os.umask(0)
        os.umask(mask)
        for file in files:
            file.chmod(0o666 & ~mask)


def _flush_to_disk(path: Path) -> None:
    with open(path, "rb+") as handle:
        os.fsync(handle.fileno())


@contextlib.contextmanager
def sole_writer(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a folder for this process alone; it is let go when the block or the process ends, however it ends.

    Parameters
    ----------
    folder
        Made where it is not there.

    Raises
    ------
    InputError
        Another process holds it.

    Examples
    --------
    >>> import tempfile
    >>> with sole_writer(tempfile.mkdtemp()):
    ...     pass
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{folder}: another process is writing here; wait for it to end, or choose another output"
            ) from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write `content` as indented JSON, atomically.

    Examples
    --------
    >>> import tempfile
    >>> write_json(Path(tempfile.mkdtemp()) / "report.json", {"cells": 3})
    """
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file as hexadecimal digits.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "empty"
    >>> _ = file.write_bytes(b"")
    >>> sha256_of(file)[:8]
    'e3b0c442'
    """
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def read_text(path: str | os.PathLike[str]) -> str:
    """A user's text file: UTF-8, with or without a byte-order mark, or UTF-16 with one.

    Raises
    ------
    InputError
        No such file, or text in another encoding; the file is named.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "genes.txt")
    >>> _ = file.write_bytes("\ufeffFOS".encode("utf-8"))
    >>> read_text(file)
    'FOS'
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    encoding = "utf-16" if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
