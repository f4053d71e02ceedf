"""Publish a finished folder: say what would go up, refuse what must not, upload, tag, say how to load it."""

import glob
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..tokenization.errors import InputError
from ..tokenization.files import atomic_path, write_json
from ..tokenization.manifest import (
    MANIFEST,
    check_manifest,
    published_files,
    read_manifest,
    record_files,
    training_state,
)
from ..tokenization.sources import split_revision
from .contents import refusals
from .snippets import loading_line, replace_usage, usage

DATA_KINDS = ("corpus", "priors")


@dataclass(frozen=True)
class PushPlan:
    """What would go up, before anything does.

    Parameters
    ----------
    folder
        Local folder.
    repo
        ``owner/name``.
    repo_type
        ``model`` or ``dataset``.
    kind
        What the manifest says it is.
    files
        Relative path to size in bytes, the manifest included.
    left_here
        Files of the Trainer that stay on this machine.
    tag
        Tag that will name the commit, or None.
    private
        True, False, or None: as the repository is, private if it is new.
    """

    folder: Path
    repo: str
    repo_type: str
    kind: str
    files: dict[str, int]
    left_here: list[str]
    tag: str | None
    private: bool | None

    @property
    def total_bytes(self) -> int:
        """Size of everything that would go up."""
        return sum(self.files.values())


@dataclass(frozen=True)
class Pushed:
    """Where it went: commit, page and the line of Python that loads it."""

    commit: str
    url: str
    load: str


def plan_push(
    folder: str | os.PathLike[str],
    repo: str,
    *,
    dataset: bool | None = None,
    tag: str | None = None,
    private: bool | None = None,
    base: str | None = None,
) -> PushPlan:
    """Check a folder for publication without touching the network.

    Parameters
    ----------
    folder
        Checkpoint, adapter, prior table or corpus with a manifest and a card.
    repo
        ``owner/name`` on the Hub.
    dataset
        Whether it goes to a dataset repository; None: corpora and prior tables do.
    tag
        Names the commit, so that users can pin it.
    private
        None makes new repositories private and leaves existing ones as they are.
    base
        For an adapter: the base checkpoint that `point_at_hub` will write into it, so that a dry run need not
        refuse the local path that stands there now.

    Raises
    ------
    InputError
        The name is not allowed, or the folder holds what must not be published; every reason is named.

    Examples
    --------
    >>> plan = plan_push("runs/tiny/model", "someone/genecompass-tiny", tag="v1")  # doctest: +SKIP
    """
    folder = Path(folder)
    check_repo_name(repo)
    if tag is not None:
        _check_tag(tag)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    if base is not None:
        check_repo_name(split_revision(base)[0])
    rewritten = ("adapter_config.json", "README.md") if base is not None else ()
    if problems := refusals(folder, rewritten=rewritten):
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise InputError(f"{folder} cannot be pushed: {'; '.join(problems[:5])}{more}")
    kind = read_manifest(folder)["kind"]
    is_data = kind in DATA_KINDS if dataset is None else dataset
    if kind == "corpus" and not is_data:
        raise InputError(f"{folder}: a corpus belongs into a dataset repository; push with --dataset")
    files = {name: (folder / name).stat().st_size for name in [*published_files(folder), MANIFEST]}
    return PushPlan(folder, repo, "dataset" if is_data else "model", kind, files, training_state(folder), tag, private)


def push_folder(plan: PushPlan, *, move_tag: bool = False) -> Pushed:
    """Create the repository, upload what the plan lists, remove what the previous push had and this one has not, tag.

    An interrupted push is resumed by pushing again: whatever arrived is not sent twice. The tag is set last, so that
    a tagged revision is always whole.

    Parameters
    ----------
    plan
        From `plan_push`.
    move_tag
        Whether a tag that exists already may move to the new commit.

    Raises
    ------
    InputError
        No token, somebody else's repository, visibility that differs, tag taken, network lost.

    Examples
    --------
    >>> push_folder(plan_push("runs/tiny/model", "someone/genecompass-tiny")).load  # doctest: +SKIP
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name="genecompass")
    with hub_errors_in_one_line(plan.repo):
        _check_owner(api, plan.repo)
        _create(api, plan)
        tag_exists = _check_tag_is_free(api, plan, move_tag)
        commit = api.upload_folder(
            repo_id=plan.repo,
            folder_path=plan.folder,
            repo_type=plan.repo_type,
            allow_patterns=[_literal(name) for name in plan.files],
            delete_patterns=[_literal(name) for name in _stale_files(plan)] or None,
            commit_message=f"Upload {plan.kind} with genecompass",
        )
        if plan.tag is not None:
            if tag_exists:
                api.delete_tag(plan.repo, tag=plan.tag, repo_type=plan.repo_type)
            api.create_tag(plan.repo, tag=plan.tag, revision=commit.oid, repo_type=plan.repo_type)
    page = f"{api.endpoint}/{'datasets/' if plan.repo_type == 'dataset' else ''}{plan.repo}"
    return Pushed(commit.oid, page, loading_line(plan.folder, plan.kind, plan.repo, plan.tag or commit.oid))


@contextmanager
def copy_for_hub(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A copy of a folder to be changed before it goes up, made of links where the disk has them; gone afterwards.

    Examples
    --------
    >>> with copy_for_hub("runs/adapter") as ready:  # doctest: +SKIP
    ...     point_at_hub(ready, "someone/adapter", base="someone/tiny@v1")
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    try:
        scratch = Path(tempfile.mkdtemp(prefix=".push-", dir=folder.resolve().parent))
    except OSError:
        scratch = Path(tempfile.mkdtemp())
    try:
        ready = scratch / folder.resolve().name
        shutil.copytree(folder, ready, copy_function=_link)
        yield ready
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def point_at_hub(folder: str | os.PathLike[str], repo: str, *, tag: str | None = None, base: str | None = None) -> None:
    """Let a folder speak of its repository: the card's program, and the base checkpoint of an adapter.

    Only these two files and their entries in the manifest change, so that damage elsewhere stays visible. A folder
    without manifest is left alone; `plan_push` says what is wrong with it.

    Parameters
    ----------
    folder
        Finished folder.
    repo, tag
        Where it will go.
    base
        For an adapter: its base checkpoint on the Hub, ``owner/name[@revision]``.
    """
    folder = Path(folder)
    check_repo_name(repo)
    if not (folder / MANIFEST).is_file():
        return
    # A file that is damaged already must stay so: its new checksum would hide it.
    damaged = {problem.split(":")[0] for problem in check_manifest(folder)}
    if base is not None:
        _set_base(folder, base, damaged)
    kind = read_manifest(folder).get("kind", "")
    card = folder / "README.md"
    if card.is_file() and card.name not in damaged:
        text = card.read_text(encoding="utf-8")
        renewed = replace_usage(text, usage(folder, kind, repo, tag))
        if renewed != text:
            with atomic_path(card) as temporary:
                temporary.write_text(renewed, encoding="utf-8")
            record_files(folder, [card.name])


def _set_base(folder: Path, base: str, damaged: set[str]) -> None:
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise InputError(f"{folder}: not an adapter (no {path.name}); --base is for adapters")
    if path.name in damaged:
        raise InputError(f"{path}: not as the manifest records it; restore it before pushing")
    name, revision = split_revision(base)
    check_repo_name(name)
    settings = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, settings | {"base_model_name_or_path": name, "revision": revision})
    record_files(folder, [path.name])


def check_repo_name(repo: str) -> None:
    """Raise `InputError` unless `repo` is ``owner/name`` as the Hub allows it."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if repo.count("/") != 1 or not all(repo.split("/")):
        raise InputError(f"{repo!r} is not a repository name; write owner/name")
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InputError(f"{repo!r} is not a name that the Hub allows: {error}") from error


def _check_tag(tag: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", tag) or ".." in tag or tag.endswith((".lock", ".")):
        raise InputError(f"{tag!r} cannot be a tag; use letters, digits, dots and dashes, such as v1.0")
    if tag == "main":
        raise InputError("'main' is the branch; choose another tag, such as v1")


def _check_owner(api: Any, repo: str) -> None:
    who = api.whoami()
    mine = [who["name"], *(organisation["name"] for organisation in who.get("orgs", []))]
    owner = repo.split("/")[0]
    if owner not in mine:
        raise InputError(f"{repo}: {owner} is not yours; you are {who['name']} and may push to {', '.join(mine)}")


def _create(api: Any, plan: PushPlan) -> None:
    api.create_repo(plan.repo, repo_type=plan.repo_type, private=plan.private is not False, exist_ok=True)
    is_private = bool(api.repo_info(plan.repo, repo_type=plan.repo_type).private)
    if plan.private is not None and plan.private != is_private:
        is_now = "private" if is_private else "public"
        raise InputError(
            f"{plan.repo}: exists already and is {is_now}; change that on its settings page, "
            f"or leave out --private/--public to push as it is"
        )


def _check_tag_is_free(api: Any, plan: PushPlan, move_tag: bool) -> bool:
    if plan.tag is None:
        return False
    refs = api.list_repo_refs(plan.repo, repo_type=plan.repo_type)
    if plan.tag in [branch.name for branch in refs.branches]:
        raise InputError(f"{plan.repo}: {plan.tag} is a branch there; choose another tag")
    exists = plan.tag in [tag.name for tag in refs.tags]
    if exists and not move_tag:
        raise InputError(
            f"{plan.repo}: tag {plan.tag} exists already, and whoever pinned it expects the same files; "
            f"choose a new tag, or move it with --move-tag"
        )
    return exists


def _stale_files(plan: PushPlan) -> list[str]:
    """Files that the previous push listed and this one has not; files that others put there are left alone."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        old = read_manifest(Path(hf_hub_download(plan.repo, MANIFEST, repo_type=plan.repo_type)).parent)
    except (EntryNotFoundError, InputError):
        return []
    return sorted(old["files"].keys() - plan.files.keys())


def _literal(name: str) -> str:
    """A pattern that matches this one file."""
    return glob.escape(name)


@contextmanager
def hub_errors_in_one_line(repo: str) -> Iterator[None]:
    """Turn what goes wrong on the way to the Hub into one line that says what to do."""
    from huggingface_hub import errors

    # the base of all HTTP errors, whichever client library huggingface_hub uses
    http_error: Any = errors.HfHubHTTPError.__bases__[0]
    try:
        yield
    except errors.LocalTokenNotFoundError as error:
        raise InputError("no access token; log in with `hf auth login` or set HF_TOKEN (with write access)") from error
    except errors.OfflineModeIsEnabled as error:
        raise InputError(f"{repo}: HF_HUB_OFFLINE is set; unset it to push") from error
    except errors.HfHubHTTPError as error:
        raise InputError(f"{repo}: {_explain(error)}") from error
    except (http_error, ConnectionError, TimeoutError, RuntimeError) as error:
        # the uploader wraps whatever happened to one file into a RuntimeError
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        if isinstance(cause, errors.HfHubHTTPError):
            raise InputError(f"{repo}: {_explain(cause)}") from error
        if not isinstance(cause, (http_error, ConnectionError, TimeoutError)):
            raise
        reason = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
        raise InputError(
            f"{repo}: network lost ({reason}); push again to resume, what arrived is not sent twice"
        ) from error


def _explain(error: Any) -> str:
    status = getattr(error.response, "status_code", None)
    said = getattr(error, "server_message", None) or str(error).splitlines()[0]
    if status == 401:
        return "the access token is not valid; log in again with `hf auth login`"
    if status == 403:
        return f"your token may not write here ({said})"
    return f"the Hub refused: {said}"
