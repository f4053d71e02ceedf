"""The one door through which HDF5 files are opened: whole files of their own, that point nowhere else.

HDF5 can keep a data set's bytes in any other file of the machine, or link to one. A file that somebody sends would so
be able to show what it has no business to see.
"""

import mmap
import os
from pathlib import Path
from typing import Any

from ..errors import InputError

# deflate cannot do better than 1,032 : 1; a small file that claims more is damaged, or wants to fill the memory
_LARGEST_RATIO = 2_000
_NOT_WORTH_A_LOOK = 1 << 28
_HEAPS_LOOKED_FOR = 1 << 30


def open_hdf5(path: str | os.PathLike[str]) -> Any:
    """Open an HDF5 file for reading, after a look at everything in it.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    h5py.File

    Raises
    ------
    InputError
        Not HDF5, damaged, or with links to or storage in other files.

    Examples
    --------
    >>> open_hdf5("pbmc.h5ad")["X"].shape  # doctest: +SKIP
    (2700, 32738)
    """
    import h5py

    _check_heaps(path)
    try:
        file = h5py.File(path, "r")
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: not a readable HDF5 file, it may be truncated or of another format ({reason})"
        ) from error
    try:
        refuse_other_files(file, path)
    except BaseException:
        file.close()
        raise
    return file


def refuse_other_files(file: Any, path: str | os.PathLike[str]) -> None:
    """Refuse a file with external links, external storage or virtual data sets, before anything of it is read.

    Parameters
    ----------
    file
        An open `h5py.File`.
    path
        Its name, for the message.
    """
    import h5py

    seen: set[int] = set()
    waiting = [("", file)]
    try:
        while waiting:
            name, group = waiting.pop()
            for key in group:
                inner = f"{name}/{key}"
                if isinstance(group.get(key, getlink=True), h5py.ExternalLink):
                    raise InputError(f"{path}: {inner} is a link to another file; copy what it means into this file")
                if isinstance(group.get(key, getlink=True), h5py.SoftLink):
                    continue  # what it means is elsewhere in this file, and is looked at there
                element = group[key]
                address = h5py.h5o.get_info(element.id).addr
                if address in seen:
                    continue
                seen.add(address)
                if isinstance(element, h5py.Dataset):
                    _check_storage(element, inner, path)
                elif isinstance(element, h5py.Group):
                    waiting.append((inner, element))
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: damaged HDF5 file ({reason})") from error


def _check_heaps(path: str | os.PathLike[str]) -> None:
    """Refuse a damaged heap of texts: the HDF5 library would walk through one that leads nowhere for ever."""
    if not 0 < os.path.getsize(path) <= _HEAPS_LOOKED_FOR:
        return
    with open(path, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(b"GCOL\x01\0\0\0")
        while start >= 0:
            end = start + int.from_bytes(content[start + 8 : start + 16], "little")
            place = start + 16
            while place + 16 <= min(end, len(content)):
                index = int.from_bytes(content[place : place + 2], "little")
                size = int.from_bytes(content[place + 8 : place + 16], "little")
                step = 16 + -(-size // 8) * 8 if index else size
                if step < 16 or place + step > end:
                    raise InputError(f"{path}: damaged HDF5 file (its heap of texts leads nowhere)")
                place += step
            start = content.find(b"GCOL\x01\0\0\0", start + 8)


def _check_storage(dataset: Any, name: str, path: str | os.PathLike[str]) -> None:
    if dataset.external is not None or dataset.is_virtual:
        raise InputError(f"{path}: {name} keeps its numbers in another file; copy them into this file")
    claimed = dataset.nbytes
    if claimed > _NOT_WORTH_A_LOOK and claimed > _LARGEST_RATIO * max(1, dataset.id.get_storage_size()):
        raise InputError(
            f"{path}: {name} claims {claimed / 1e9:.3g} GB, but {Path(path).name} stores "
            f"{dataset.id.get_storage_size():,} bytes of it: damaged, or made to fill the memory"
        )
