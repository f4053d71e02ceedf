"""Do the files of a checkpoint belong together? Asked before anything is loaded, wherever the package loads one."""

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from .errors import InputError
from .files import sha256_of
from .gene_index import GeneIndex
from .manifest import MANIFEST, read_manifest

# what decides numbers; a card or a log may change after the manifest was written
_DECIDING = (".safetensors", ".json", ".tsv.gz", ".parquet")
_PICKLES = ("pytorch_model.bin", "adapter_model.bin", "pytorch_model.bin.index.json")


def check_checkpoint(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Refuse a checkpoint or adapter whose files are damaged, of different origin, or pickles; gives its config.

    The files are compared with the manifest where there is one (every folder that the package writes has one), and
    the gene table with the configuration: a checkpoint with another table would give numbers, all of them wrong.

    Parameters
    ----------
    folder
        A checkpoint (``config.json``) or adapter (``adapter_config.json``).

    Returns
    -------
    dict
        The content of ``config.json`` or ``adapter_config.json``.

    Raises
    ------
    InputError
        Naming the file at fault.

    Examples
    --------
    >>> from genecompass.tokenization.sources import resolve
    >>> check_checkpoint(resolve("genecompass-mini"))["model_type"]
    'genecompass'
    """
    folder = Path(folder)
    adapter = (folder / "adapter_config.json").exists()
    config = read_settings(folder / ("adapter_config.json" if adapter else "config.json"))
    weights = sorted(folder.glob("*.safetensors"))
    pickles = [name for name in _PICKLES if (folder / name).exists()]
    if pickles and not weights:
        raise InputError(
            f"{folder / pickles[0]}: pickled weights can run code and are not loaded; convert them to safetensors first"
        )
    if not weights:
        raise InputError(f"{folder}: no weights here (model.safetensors)")
    _check_against_manifest(folder)
    if not adapter and (folder / "genes.tsv.gz").exists():
        _check_vocabulary(folder / "genes.tsv.gz", config)
    return config


def read_settings(path: Path) -> dict[str, Any]:
    """Content of a JSON file that must hold a dictionary; `InputError` where it is absent or damaged.

    Examples
    --------
    >>> from genecompass.tokenization.sources import resolve
    >>> read_settings(Path(resolve("genecompass-mini")) / "config.json")["hidden_size"]
    64
    """
    if not path.is_file():
        raise InputError(f"{path.parent}: no checkpoint here ({path.name} is missing)")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not settings; fetch it again")
    return content


def _check_against_manifest(folder: Path) -> None:
    if not (folder / MANIFEST).is_file():
        return
    for name, entry in read_manifest(folder)["files"].items():
        path = folder / name
        if "/" in name or not name.endswith(_DECIDING) or not isinstance(entry, dict):
            continue
        if not path.is_file():
            raise InputError(f"{path}: missing, though {MANIFEST} names it; fetch the folder again")
        if path.stat().st_size != entry.get("bytes") or _digest(path) != entry.get("sha256"):
            raise InputError(
                f"{path}: not the file that {MANIFEST} describes: damaged, or of another checkpoint; fetch the folder "
                f"again, or, if you changed it on purpose, delete {MANIFEST}"
            )


def _check_vocabulary(path: Path, config: dict[str, Any]) -> None:
    index = _gene_index(path, *_stamp(path))
    size, species = config.get("vocab_size"), config.get("species")
    if size is not None and size != len(index):
        raise InputError(
            f"{path}: {len(index)} genes, but config.json says vocab_size {size}; they do not belong together"
        )
    if species is not None and list(species) != list(index.species):
        raise InputError(
            f"{path}: species {', '.join(index.species)}, but config.json says {', '.join(map(str, species))}; "
            "they do not belong together"
        )


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _digest(path: Path) -> str:
    return _cached_digest(path.resolve(), *_stamp(path))


@lru_cache(maxsize=64)  # a run loads the same checkpoint several times; weights take a second or two
def _cached_digest(path: Path, inode: int, size: int, modified: int) -> str:
    return sha256_of(path)


@lru_cache(maxsize=4)
def _gene_index(path: Path, inode: int, size: int, modified: int) -> GeneIndex:
    try:
        return GeneIndex.read(path)
    except (ValueError, OSError, EOFError, KeyError, StopIteration, IndexError) as error:
        raise InputError(f"{path}: not a readable gene table ({' '.join(str(error).split())[:160]})") from error
    except Exception as error:
        if type(error).__module__ not in ("zlib", "_csv", "csv"):
            raise
        raise InputError(f"{path}: not a readable gene table ({error})") from error
