"""One door for everything that takes a checkpoint or a corpus: a local folder, or ``repo[@revision]`` on the Hub."""

import errno
import os
import re
import warnings
from pathlib import Path
from typing import Any

from .errors import InputError

# the checkpoint that travels with the package, and what `model=None` means
DEFAULT_MODEL = "genecompass-mini"
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class UnpinnedRevisionWarning(UserWarning):
    """A repository was read at whatever its main branch held at that moment."""


def model_or_default(model: Any) -> Any:
    """`model`, or the name of the checkpoint that travels with the package where it is None.

    Examples
    --------
    >>> model_or_default(None), model_or_default("runs/tiny")
    ('genecompass-mini', 'runs/tiny')
    """
    return DEFAULT_MODEL if model is None else model


def default_checkpoint() -> Path:
    """Folder of the checkpoint that travels with the package.

    Raises
    ------
    InputError
        This installation lacks it.
    """
    folder = Path(__file__).resolve().parent.parent / "modeling_genecompass" / "genecompass_mini"
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{DEFAULT_MODEL} is missing from this installation; install genecompass again, or name a model"
        )
    return folder


def split_revision(source: str | os.PathLike[str]) -> tuple[str, str | None]:
    """Split ``repo@revision``.

    Examples
    --------
    >>> split_revision("someone/genecompass-tiny@v1")
    ('someone/genecompass-tiny', 'v1')
    >>> split_revision("someone/genecompass-tiny")
    ('someone/genecompass-tiny', None)
    """
    name, at, revision = str(source).partition("@")
    if at and not revision:
        raise InputError(f"{source}: nothing after '@'; write {name}@v1, a branch, a tag or a commit")
    return name, revision or None


def resolve(
    source: str | os.PathLike[str],
    *,
    repo_type: str = "model",
    allow_patterns: list[str] | None = None,
) -> Path:
    """Give the local folder behind a path or a Hub repository, fetching it into the Hub's cache where needed.

    Parameters
    ----------
    source
        A local folder (always preferred if it exists), or ``owner/name`` with an optional ``@revision``: branch,
        tag or commit; or ``genecompass-mini``, which travels with the package.
    repo_type
        ``model`` (checkpoints, adapters) or ``dataset`` (corpora, prior tables).
    allow_patterns
        Fetch only files that match, such as ``["genes/*", "data/mouse/*"]``.

    Returns
    -------
    Path
        A folder to read from. Never write there: it may be the cache.

    Raises
    ------
    InputError
        In one line: neither folder nor repository name, no such repository or revision, gated, no network and not
        in the cache, disk full.

    Warns
    -----
    UnpinnedRevisionWarning
        When a repository is named without a revision, with the commit that was read.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> resolve(folder) == Path(folder)
    True
    """
    if str(source) == DEFAULT_MODEL and not Path(DEFAULT_MODEL).exists():
        return default_checkpoint()
    if Path(source).expanduser().exists():
        return Path(source).expanduser()
    name, revision = split_revision(source)
    if not _REPO.fullmatch(name):
        raise InputError(f"{source}: no such folder, and not a repository name (owner/name or owner/name@revision)")
    folder = _snapshot(name, revision, repo_type, allow_patterns)
    if revision is None:
        warnings.warn(
            f"{name}: no revision pinned, read at commit {folder.name}; "
            f"write {name}@{folder.name[:12]} to get the same files and code every time",
            UnpinnedRevisionWarning,
            stacklevel=2,
        )
    return folder


def _snapshot(name: str, revision: str | None, repo_type: str, allow_patterns: list[str] | None) -> Path:
    from huggingface_hub import errors, snapshot_download

    # the base of all HTTP errors, whichever client library huggingface_hub uses
    http_error: Any = errors.HfHubHTTPError.__bases__[0]
    where = f"{name}@{revision}" if revision else name
    other = {"model": "dataset", "dataset": "model"}[repo_type]
    try:
        return Path(snapshot_download(name, revision=revision, repo_type=repo_type, allow_patterns=allow_patterns))
    # Order matters: a gated repository is a kind of missing one, and a cache miss a kind of missing file.
    except errors.GatedRepoError as error:
        raise InputError(
            f"{where}: gated; ask for access on its page, then log in with `hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"{where}: no such {repo_type} repository, or it is private and you are not logged in "
            f"(`hf auth login` or HF_TOKEN); or is it a {other} repository?"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{name}: has no revision {revision!r} (branch, tag or commit)") from error
    except errors.HFValidationError as error:
        raise InputError(f"{where}: not a valid repository name: {error}") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise InputError(
            f"{where}: not in the local cache, and the Hub cannot be reached (no network, or HF_HUB_OFFLINE is set)"
        ) from error
    except errors.HfHubHTTPError as error:
        raise InputError(f"{where}: the Hub answered with an error: {_first_line(error)}; try again later") from error
    except http_error as error:
        raise InputError(f"{where}: network lost while fetching ({_first_line(error)}); run again to resume") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(
                f"{where}: disk full while fetching; free space or point HF_HOME to another disk, then run again"
            ) from error
        raise InputError(f"{where}: cannot be fetched: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
