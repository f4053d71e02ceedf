"""The last step of a build: shards under their final names, gene axes, card, and the manifest that seals them."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.files import atomic_path, write_json
from genecompass.tokenization.manifest import file_entry, versions

from . import layout
from .card import card_text
from .gather import ShardTask
from .judge import Verdict
from .ledger import Ledger, digest
from .sources import source_from


def read_corpus_manifest(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The manifest of a corpus; None where the folder holds none yet.

    Raises
    ------
    InputError
        When the folder is published, but not a corpus.
    """
    path = Path(folder) / layout.MANIFEST
    if not path.exists():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if content.get("kind") != "corpus":
        raise InputError(f"{path}: describes a {content.get('kind')}, not a corpus")
    return content


def already_published(folder: Path, plan: dict[str, Any]) -> bool:
    """Whether the corpus's manifest already seals this plan: the builder was killed while it cleaned up."""
    content = read_corpus_manifest(folder)
    return content is not None and content["plan"] == _plan_digest(plan)


def publish(
    ledger: Ledger,
    plan: dict[str, Any],
    inputs: list[dict[str, Any]],
    verdicts: list[Verdict],
    failed: dict[str, str],
    tasks: list[ShardTask],
    written: list[dict[str, Any] | None],
) -> None:
    """Move finished shards under their final names, write card and manifest; killed in between, a rerun completes it.

    Parameters
    ----------
    ledger, plan
        The build.
    inputs, verdicts
        What was read, and what quality control kept of it.
    failed
        Inputs that could not be read.
    tasks, written
        The shards, and what is known of each; None for one that stayed empty.
    """
    folder = ledger.folder
    base = None if plan["fresh"] else read_corpus_manifest(folder)
    shards: dict[str, dict[str, Any]] = {} if base is None else dict(base["shards"])
    for species in plan["shards"]:
        number = sum(entry["species"] == species for entry in shards.values())
        for task, record in zip(tasks, written, strict=True):
            if task.species == species and record is not None:
                name = layout.shard_path(species, number)
                shards[name] = {"species": species, "round": plan["round"], **record}
                _move(ledger.work / f"{task.name}.parquet", folder / name)
                number += 1
        _copy(ledger.work / "genes" / f"{species}.parquet", folder / layout.gene_axis_path(species))
    _remove_strays(folder, shards)
    sources = [] if base is None else list(base["sources"])
    for entry, verdict in zip(inputs, verdicts, strict=True):
        sources.append(_source_entry(entry, verdict, plan["round"]))
    content = {
        "format": layout.FORMAT,
        "kind": "corpus",
        "derived_from": None,
        "versions": versions(),
        "species": _totals(folder, shards),
        "obs_columns": plan["obs_columns"],
        "row_group_cells": layout.ROW_GROUP_CELLS,
        "options": plan["options"],
        "rounds": plan["round"] + 1,
        "plan": _plan_digest(plan),
        "sources": sources,
        "failed": failed,
        "shards": shards,
    }
    with atomic_path(folder / layout.CARD) as temporary:
        temporary.write_text(card_text(content), encoding="utf-8")
    axes = [layout.gene_axis_path(species) for species in content["species"]]
    files = {name: file_entry(folder / name) for name in [layout.CARD, *axes]}
    files |= {name: {key: entry[key] for key in ("bytes", "sha256")} for name, entry in shards.items()}
    write_json(folder / layout.MANIFEST, content | {"files": dict(sorted(files.items()))})


def _totals(folder: Path, shards: dict[str, dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Cells, shards, expressed genes and genes on the axis, per species."""
    totals: dict[str, dict[str, int]] = {}
    for entry in shards.values():
        species = entry["species"]
        if species not in totals:
            axis = pq.read_metadata(folder / layout.gene_axis_path(species))
            totals[species] = {"cells": 0, "shards": 0, "expressed": 0, "genes": axis.num_rows}
        totals[species]["cells"] += entry["rows"]
        totals[species]["shards"] += 1
        totals[species]["expressed"] += entry["genes"]
    return totals


def _plan_digest(plan: dict[str, Any]) -> str:
    portable = {key: plan[key] for key in ("options", "round", "shards", "obs_columns")}
    return digest(portable | {"inputs": [[e["source"]["dataset"], e["sha256"], e["rows"]] for e in plan["inputs"]]})


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.exists():
        os.replace(source, target)


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def _remove_strays(folder: Path, shards: dict[str, dict[str, Any]]) -> None:
    """Remove shards of the corpus that a reshuffle replaced."""
    for path in (folder / "data").glob("*/train-*.parquet"):
        if path.relative_to(folder).as_posix() not in shards:
            path.unlink()


def _source_entry(entry: dict[str, Any], verdict: Verdict, round_number: int) -> dict[str, Any]:
    source = source_from(entry["source"])
    return {
        "dataset": source.dataset,
        "file": Path(source.path).name,
        "sha256": entry["sha256"],
        "species": entry["species"],
        "gene_species": source.gene_species,
        "rows": entry["rows"],
        "kept": verdict.kept,
        "removed": verdict.removed,
        "counts": source.counts,
        "licence": source.licence,
        "citation": source.citation,
        "round": round_number,
    }
