"""The plan of a standard table: which data stand for which task, in a small YAML or JSON file.

::

    seeds: [0, 1, 2]            # of every part that does not name its own
    parts:
      - task: annotation
        name: sorted PBMC to independent cells
        cells: data/sorted.h5ad
        test: data/independent.h5ad
        species: human

Paths are relative to the plan.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ...tokenization.cell_options import CellOptions
from ...tokenization.errors import InputError
from ...tokenization.files import read_text

_READING = frozenset(CellOptions.__annotations__) - {"shared_genes"}


@dataclass(frozen=True)
class Task:
    """What a part of one task says.

    Parameters
    ----------
    required
        Keys that it needs.
    optional
        Other keys, with their defaults.
    files
        Those of them that name files: a path, a list of paths, or a mapping of names to paths.
    """

    required: tuple[str, ...]
    optional: dict[str, Any]
    files: tuple[str, ...]


TASKS: dict[str, Task] = {
    "annotation": Task(
        ("cells", "species"),
        {
            **{"label": "cell_type", "gene_species": None, "test": None, "split_by": None, "folds": 5},
            **{"cells_per_class": [5, 25, "all"], "methods": None, "max_length": 512, "max_steps": 150},
        },
        ("cells", "test"),
    ),
    "cross-species": Task(
        ("cells", "species"),
        {
            **{"label": "cell_type", "gene_species": None, "cells_per_class": [5, 25, "all"]},
            **{"methods": None, "max_length": 512, "max_steps": 150},
        },
        ("cells",),
    ),
    "zero-shot": Task(
        ("cells", "species"),
        {"label": "cell_type", "gene_species": None, "batch": "auto", "max_length": 512, "scib": None},
        ("cells",),
    ),
    "gene-classification": Task(
        ("cells", "species", "labels"),
        {"methods": None, "folds": 5, "folds_by": "family", "max_cells": 600, "max_length": 2048, "max_steps": 60},
        ("cells", "labels"),
    ),
    "perturbation": Task(
        ("cells", "species", "targets"),
        {"gene_species": None, "factors": None, "max_factors": 20, "max_cells": None, "n_null": 30},
        ("cells", "targets"),
    ),
    "grn": Task(
        ("cells", "species", "references"),
        {"gene_species": None, "regulators": None, "methods": None, "max_cells": None, "n_variable": 500},
        ("cells", "references", "regulators"),
    ),
    "response-genes": Task(
        ("cells", "species"),
        {"perturbation": "perturbation", "control": None, "go": None, "seen": 0.75},
        ("cells", "go"),
    ),
}
_SHARED = ("task", "name", "seeds", "reading", "trained_on")


@dataclass(frozen=True)
class Part:
    """One part of the table.

    Parameters
    ----------
    task
        Out of `TASKS`.
    name
        In tables and in ``--only``.
    settings
        Every key of the task, defaults filled in, paths resolved.
    seeds
        One run each.
    reading
        `CellOptions` of its cells.
    trained_on
        The checkpoint's pre-training saw the cells that are asked about: marked in the table, without effect on it.
    """

    task: str
    name: str
    settings: dict[str, Any]
    seeds: tuple[int, ...] = (0, 1, 2)
    reading: dict[str, Any] = field(default_factory=dict)
    trained_on: bool = False

    def files(self) -> Iterator[tuple[str, Path]]:
        """Every file that it reads, with the key that names it."""
        for key in TASKS[self.task].files:
            value = self.settings.get(key)
            paths = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else [value]
            yield from ((key, Path(path)) for path in paths if path is not None)


def read_plan(path: str | os.PathLike[str]) -> list[Part]:
    """Read and check a plan, before any work: every key is known, and every file is there.

    Parameters
    ----------
    path
        YAML or JSON.

    Raises
    ------
    InputError
        Not readable, no parts, an unknown task or key, a missing key or file, two parts of one name.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "cells.h5ad").write_bytes(b"")
    >>> _ = (folder / "plan.yaml").write_text("parts: [{task: zero-shot, cells: cells.h5ad, species: human}]")
    >>> [part.name for part in read_plan(folder / "plan.yaml")]
    ['zero-shot: cells']
    """
    path = Path(path)
    text = read_text(path)
    try:
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not readable as {'JSON' if path.suffix == '.json' else 'YAML'} ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("parts"), list) or not content["parts"]:
        raise InputError(f"{path}: no parts; write a list under `parts:`, each with a `task:` and its `cells:`")
    unknown = set(content) - {"seeds", "parts"}
    if unknown:
        raise InputError(f"{path}: unknown key {min(unknown)!r}; there are: seeds, parts")
    seeds = content.get("seeds", [0, 1, 2])
    parts = [_part(entry, seeds, path, number) for number, entry in enumerate(content["parts"], start=1)]
    names = [part.name for part in parts]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: two parts are called {twice!r}; give one of them another `name:`")
    return parts


def _part(entry: Any, seeds: Any, path: Path, number: int) -> Part:
    where = f"{path}, part {number}"
    if not isinstance(entry, dict) or entry.get("task") not in TASKS:
        said = entry.get("task") if isinstance(entry, dict) else entry
        raise InputError(f"{where}: unknown task {said!r}; there are: {', '.join(TASKS)}")
    task = TASKS[entry["task"]]
    known = {*task.required, *task.optional, *_SHARED}
    if unknown := sorted(set(map(str, entry)) - known):
        raise InputError(
            f"{where} ({entry['task']}): unknown key {unknown[0]!r}; there are: {', '.join(sorted(known))}"
        )
    for key in task.required:
        if entry.get(key) in (None, "", [], {}):
            raise InputError(f"{where} ({entry['task']}): `{key}:` is missing")
    settings = {**task.optional, **{key: value for key, value in entry.items() if key not in _SHARED}}
    for key in task.files:
        settings[key] = _resolved(settings.get(key), path.parent, f"{where} ({entry['task']}), {key}")
    own = entry.get("seeds", seeds)
    if not isinstance(own, list) or not own or not all(type(seed) is int for seed in own):
        raise InputError(f"{where}: seeds {own!r}; write a list of whole numbers such as [0, 1, 2]")
    reading = entry.get("reading") or {}
    if not isinstance(reading, dict) or set(reading) - _READING:
        raise InputError(f"{where}: reading {reading!r}; it takes: {', '.join(sorted(_READING))}")
    trained_on = entry.get("trained_on", False)
    if not isinstance(trained_on, bool):
        raise InputError(f"{where}: trained_on {trained_on!r}; write true or false")
    first = settings["cells"][0] if isinstance(settings["cells"], list) else settings["cells"]
    name = str(entry.get("name") or f"{entry['task']}: {Path(first).name.split('.')[0]}")
    return Part(entry["task"], name, settings, tuple(own), dict(reading), trained_on)


def _resolved(value: Any, home: Path, where: str) -> Any:
    if value is None:
        return None
    if isinstance(value, list):
        return [_resolved(one, home, where) for one in value]
    if isinstance(value, dict):
        return {str(name): _resolved(one, home, where) for name, one in value.items()}
    found = home / Path(str(value)).expanduser()
    if not found.exists():
        raise InputError(f"{where}: no such file {found}; mend the path, or take the part out of the plan")
    return str(found)
