"""What may go up to the Hub: no pickles, no paths of this machine, no secrets, no empty files, no weights missing."""

import json
import re
import zipfile
from pathlib import Path
from typing import Any

from ..tokenization.manifest import MANIFEST, check_manifest, published_files, read_manifest

WEIGHTS = {"checkpoint": "*.safetensors", "adapter": "adapter_model.safetensors", "priors": "*.safetensors"}
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".dill", ".npy", ".npz")
_SECRET_FILES = (".env", ".netrc", ".git-credentials", "token", "id_rsa", "id_ed25519")
_SECRETS = re.compile(
    r"hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{36}|AKIA[0-9A-Z]{16}|\bsk-[A-Za-z0-9_-]{32,}|"
    r"-----BEGIN [A-Z ]*PRIVATE KEY"
)
# Folders in which people and clusters keep their files. Web addresses do not match: a word comes before the slash.
_PATHS = re.compile(
    r"(?<![\w.:/~-])/(?:home|Users|root|tmp|var|mnt|media|data\d*|scratch|work|opt|srv|private|lustre|gpfs|nfs|content|"
    r"kaggle|workspace)/[\w.][^\s\"'<>|),;]*|(?<!\w)[A-Za-z]:\\\\?[\w.]+\\[^\s\"']*"
)
_TEXT_UP_TO = 32 * 2**20  # bytes; weights and tables are larger and hold no text


def refusals(folder: Path, *, rewritten: tuple[str, ...] = ()) -> list[str]:
    """Everything that keeps a folder from being published, one line each; empty if it may go up.

    Parameters
    ----------
    folder
        Local folder with a manifest.
    rewritten
        Files whose local paths will be replaced before anything is sent.

    Examples
    --------
    >>> import tempfile
    >>> refusals(Path(tempfile.mkdtemp()))[0].endswith("carry one")
    True
    """
    problems = list(check_manifest(folder))
    if not (folder / MANIFEST).is_file() or (problems and problems[0].startswith(str(folder))):
        return problems
    kind = read_manifest(folder).get("kind", "")
    if kind in WEIGHTS and not list(folder.glob(WEIGHTS[kind])):
        problems.append(f"{folder}: no weights here ({WEIGHTS[kind]})")
    if not (folder / "README.md").is_file():
        problems.append(f"README.md: missing; write the card with `genecompass card {folder}`")
    for name in [*published_files(folder), MANIFEST]:
        problems += [f"{name}: {reason}" for reason in _reasons_against(folder / name, name not in rewritten)]
    return problems


def _reasons_against(path: Path, look_for_paths: bool) -> list[str]:
    if path.stat().st_size == 0:
        return ["empty (0 bytes); write it again or delete it"]
    if is_pickle(path):
        return ["a pickle, which runs code when it is opened; convert it to safetensors, JSON or parquet"]
    if path.name in _SECRET_FILES:
        return ["looks like a file of secrets"]
    text = _text_of(path)
    if text is None:
        return []
    reasons = []
    if _SECRETS.search(text):
        reasons.append("holds what looks like an access token or a private key")
    if look_for_paths and (found := absolute_path_in(path, text)):
        mend = "pass --base owner/name" if path.name == "adapter_config.json" else "replace it by a plain name"
        reasons.append(f"names a path of this machine ({found}); {mend}")
    return reasons


def is_pickle(path: Path) -> bool:
    """Whether a file is a pickle, by its ending or by its first bytes (also inside a zip, as torch writes them)."""
    if path.suffix.lower() in _PICKLES:
        return True
    with open(path, "rb") as handle:
        start = handle.read(4)
    if len(start) > 1 and start[0] == 0x80 and 2 <= start[1] <= 5:
        return True
    if start == b"PK\x03\x04" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith((".pkl", ".pickle")) for name in archive.namelist())
    return False


def absolute_path_in(path: Path, text: str) -> str | None:
    """First absolute path of somebody's machine in a text file; in JSON also any string that is nothing but one."""
    if path.suffix == ".json":
        try:
            strings = _strings_in(json.loads(text))
        except json.JSONDecodeError:
            strings = []
        for string in strings:
            if re.fullmatch(r"/[\w.-]+(/[^\s/]+)+/?", string):
                return string
    found = _PATHS.search(text)
    return found.group(0) if found else None


def _text_of(path: Path) -> str | None:
    if path.stat().st_size > _TEXT_UP_TO:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def _strings_in(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    if isinstance(content, dict):
        return [string for pair in content.items() for member in pair for string in _strings_in(member)]
    if isinstance(content, list):
        return [string for member in content for string in _strings_in(member)]
    return []
