"""``manifest.json``: what a published folder holds, byte for byte, what made it and what it came from."""

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from .errors import InputError
from .files import sha256_of, write_json

MANIFEST = "manifest.json"
FORMAT = 1
KINDS = ("checkpoint", "adapter", "priors", "corpus")

# Made by the Hub, by git or by an interrupted write: never part of what is published.
_NOT_OURS = (".git", ".gitattributes", ".cache", ".huggingface", "__pycache__")
# What the Trainer needs to resume. Half of it is pickled, none of it is needed to use a checkpoint.
_TRAINING_STATE = ("optimizer", "scheduler", "scaler", "rng_state", "trainer_state", "training_args", "stream_")
# TensorBoard puts the name of the machine into the names of its files.
_LOGS = "events.out.tfevents"

_PACKAGES = (
    *("genecompass", "torch", "transformers", "tokenizers", "datasets", "huggingface-hub", "safetensors", "peft"),
    *("accelerate", "numpy", "scipy", "pandas", "pyarrow", "anndata"),
)


def write_manifest(
    folder: str | os.PathLike[str],
    kind: str,
    *,
    derived_from: str | os.PathLike[str] | dict[str, Any] | list[Any] | None = None,
    extra: dict[str, Any] | None = None,
    known_answer: bool = True,
) -> dict[str, Any]:
    """Record every file of `folder` with its size and sha256; call it last, when nothing will change any more.

    Checkpoints and adapters also get a known answer: the outputs for one fixed tiny input, computed from the files
    as they lie there, so that whoever downloads them can check that they still compute the same
    (`genecompass verify`).

    Parameters
    ----------
    folder
        A finished checkpoint, adapter, prior table or corpus.
    kind
        ``checkpoint``, ``adapter``, ``priors`` or ``corpus``.
    derived_from
        What it was made from: a local folder, ``repo[@revision]``, a dictionary, or a list of these. Of a local
        folder only its name and the checksum of its manifest are kept, never its path.
    extra
        More keys for the top level, such as ``shards`` or ``training``.
    known_answer
        Whether to run the model once and record its outputs (checkpoints and adapters only).

    Returns
    -------
    dict
        What was written: ``format``, ``kind``, ``derived_from``, ``versions``, ``hardware``, ``files``,
        ``known_answer`` and `extra`.

    Raises
    ------
    InputError
        If `kind` is unknown, `folder` is no folder or empty, or `extra` would overwrite a key of the manifest.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "genes.tsv").write_text("gene_id")
    >>> sorted(write_manifest(folder, "priors")["files"])
    ['genes.tsv']
    >>> check_manifest(folder)
    []
    """
    folder = Path(folder)
    if kind not in KINDS:
        raise InputError(f"manifest of {folder}: unknown kind {kind!r}; one of {', '.join(KINDS)}")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder to write a manifest for")
    files = {name: file_entry(folder / name) for name in published_files(folder)}
    if not files:
        raise InputError(f"{folder}: empty folder, nothing to write a manifest for")
    content: dict[str, Any] = {
        "format": FORMAT,
        "kind": kind,
        "derived_from": describe_origin(derived_from),
        "versions": versions(),
        "hardware": hardware(),
        "files": files,
    }
    if clashing := sorted((extra or {}).keys() & {*content, "known_answer"}):
        raise InputError(f"manifest of {folder}: extra key {clashing[0]!r} belongs to the manifest itself")
    if known_answer and kind in ("checkpoint", "adapter"):
        from .known_answer import compute_known_answer

        content["known_answer"] = compute_known_answer(folder, kind)
    content |= extra or {}
    write_json(folder / MANIFEST, content)
    return content


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a folder's manifest; raises `InputError` where there is none or it is damaged.

    Examples
    --------
    >>> import tempfile
    >>> read_manifest(tempfile.mkdtemp())
    Traceback (most recent call last):
    ...
    genecompass.tokenization.errors.InputError: ...
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder}: no {MANIFEST} here; folders written by genecompass carry one")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); fetch the folder again") from error
    if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
        raise InputError(f"{path}: lacks the list of files; fetch the folder again")
    return content


def check_manifest(folder: str | os.PathLike[str]) -> list[str]:
    """Compare a folder with its manifest.

    Returns
    -------
    list of str
        One line a problem, each starting with the file at fault: missing, resized, changed, or not listed. Empty
        if all is well.
    """
    folder = Path(folder)
    try:
        files = read_manifest(folder)["files"]
    except InputError as error:
        return [str(error)]
    problems = [problem for name, entry in files.items() if (problem := _problem_of(folder, name, entry))]
    unlisted = [name for name in published_files(folder) if name not in files]
    return problems + [f"{name}: not listed in {MANIFEST}" for name in unlisted]


def _problem_of(folder: Path, name: str, entry: Any) -> str | None:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return f"{name}: the manifest names a file outside the folder"
    path = folder / name
    if not path.is_file():
        return f"{name}: missing"
    if not isinstance(entry, dict) or not {"bytes", "sha256"} <= entry.keys():
        return f"{name}: the manifest records no size and checksum for it"
    size = path.stat().st_size
    if size != entry["bytes"]:
        return f"{name}: {size} bytes, the manifest says {entry['bytes']}"
    if sha256_of(path) != entry["sha256"]:
        return f"{name}: changed since the manifest was written (sha256 differs)"
    return None


def record_files(folder: str | os.PathLike[str], names: list[str]) -> None:
    """Bring the manifest's entries for `names` up to date, and leave every other entry alone.

    For files that are written after the manifest on purpose, such as the card: the rest is not hashed again, so a
    damaged file stays visible.
    """
    folder = Path(folder)
    content = read_manifest(folder)
    content["files"] |= {name: file_entry(folder / name) for name in names}
    content["files"] = dict(sorted(content["files"].items()))
    write_json(folder / MANIFEST, content)


def published_files(folder: str | os.PathLike[str]) -> list[str]:
    """Relative paths of all files that belong to what is published, sorted.

    Leaves out the manifest itself, what git and the Hub add, half-written files and the Trainer's state.
    """
    folder = Path(folder)
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(name.as_posix() for name in names if name.as_posix() != MANIFEST and not _is_left_out(name))


def training_state(folder: str | os.PathLike[str]) -> list[str]:
    """Relative paths of the Trainer's files for resuming, which stay where they are when a folder is published."""
    folder = Path(folder)
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(name.as_posix() for name in names if _is_training_state(name))


def _is_left_out(name: Path) -> bool:
    partial = any(part.startswith(".") and ".partial." in part for part in name.parts)
    return partial or bool(set(name.parts) & set(_NOT_OURS)) or _is_training_state(name)


def _is_training_state(name: Path) -> bool:
    first = name.parts[0]
    if name.name.startswith(_LOGS):
        return True
    if len(name.parts) == 1:
        return first.startswith(_TRAINING_STATE) and Path(first).suffix in (".pt", ".pth", ".bin", ".json")
    return first.startswith("checkpoint-") and first[len("checkpoint-") :].isdigit()


def file_entry(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What the manifest says about one file: ``bytes`` and ``sha256``."""
    return {"bytes": Path(path).stat().st_size, "sha256": sha256_of(path)}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers, as installed here."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Processor, threads and GPUs of the machine that writes, without its name."""
    import torch

    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "threads": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }


def describe_origin(origin: Any) -> Any:
    """Say where something came from without naming a local path.

    A local folder becomes its name and, where it has one, the sha256 of its manifest; ``repo@revision`` is split;
    dictionaries and lists are described member by member.

    Examples
    --------
    >>> describe_origin("someone/genecompass-tiny@v1")
    {'repo': 'someone/genecompass-tiny', 'revision': 'v1'}
    """
    if origin is None or isinstance(origin, (bool, int, float)):
        return origin
    if isinstance(origin, dict):
        return {key: describe_origin(value) for key, value in origin.items()}
    if isinstance(origin, (list, tuple)):
        return [describe_origin(member) for member in origin]
    path = Path(origin)
    if path.exists():
        described = {"name": path.resolve().name}
        manifest = path / MANIFEST if path.is_dir() else path
        if manifest.is_file():
            described["manifest_sha256" if path.is_dir() else "sha256"] = sha256_of(manifest)
        return described
    if path.is_absolute():
        return {"name": path.name}
    repo, at, revision = str(origin).rpartition("@")
    if at and repo.count("/") == 1:
        return {"repo": repo, "revision": revision}
    return str(origin)
