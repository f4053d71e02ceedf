"""What is known about a folder, read from what was saved in it; what nobody recorded says so."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..tokenization.errors import InputError
from ..tokenization.manifest import MANIFEST, read_manifest
from ..tokenization.markdown import plain

NOT_RECORDED = "not recorded"
Rows = list[tuple[str, str]]


def kind_of(folder: Path) -> str:
    """``checkpoint``, ``adapter``, ``priors`` or ``corpus``: as the manifest says, or by the files that are there.

    Raises
    ------
    InputError
        It is none of these.
    """
    if (folder / MANIFEST).is_file() and (kind := read_manifest(folder).get("kind")):
        return str(kind)
    if (folder / "adapter_config.json").is_file():
        return "adapter"
    if (folder / "config.json").is_file():
        return "checkpoint"
    if list(folder.glob("data/*/*.parquet")):
        return "corpus"
    if list(folder.glob("*.safetensors")):
        return "priors"
    raise InputError(
        f"{folder}: neither checkpoint (config.json), adapter (adapter_config.json), prior tables (*.safetensors) "
        f"nor corpus (data/<species>/*.parquet)"
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's content; empty where there is no such file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from error
    return content if isinstance(content, dict) else {}


def training_record(folder: Path) -> dict[str, Any]:
    """What training left beside the weights; for a resumable checkpoint, what its run knows so far."""
    record = read_json(folder / "pretraining.json") or read_json(folder / "finetuning.json")
    if not record and folder.name.startswith("checkpoint-"):
        record = read_json(folder.parent / "run.json")
        state = read_json(folder / "trainer_state.json")
        if state:
            record |= {"steps": state.get("global_step"), "history": state.get("log_history", [])}
    return record


def text_of(value: Any) -> str:
    """A value as a card shows it; nothing, or an empty one, is "not recorded".

    Examples
    --------
    >>> text_of(None), text_of(132600000), text_of({"human": 3}), text_of([0, 1])
    ('not recorded', '132,600,000', 'human: 3', '0, 1')
    """
    if value is None or value == "" or value == [] or value == {}:
        return NOT_RECORDED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return "; ".join(f"{plain(key)}: {text_of(member)}" for key, member in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(text_of(member) for member in value)
    return plain(value)


def model_rows(folder: Path) -> Rows:
    """Architecture, sizes, species and priors of a checkpoint."""
    config = read_json(folder / "config.json")
    keys = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    layers, width, heads, inner = (config.get(key) for key in keys)
    shape = f"{layers} layers, {width} wide, {heads} heads, feed-forward {inner}" if layers else None
    parameters, frozen = _count_numbers(folder)
    return [
        ("Architecture", text_of(config.get("architectures"))),
        ("Shape", text_of(shape)),
        ("Trainable parameters", text_of(parameters)),
        ("Frozen prior-knowledge entries", "none" if parameters and not frozen else text_of(frozen)),
        ("Vocabulary", text_of(config.get("vocab_size"))),
        ("Longest cell (genes)", text_of(config.get("max_position_embeddings"))),
        ("Species", text_of(config.get("species"))),
        ("Prior knowledge (width)", "none" if config.get("priors") == {} else text_of(config.get("priors"))),
        ("Labels", text_of(_labels(folder, config))),
    ]


def _labels(folder: Path, config: dict[str, Any]) -> Any:
    recorded = read_json(folder / "finetuning.json").get("labels")
    classifies = any("Classification" in name for name in config.get("architectures") or [])
    if recorded:
        return recorded
    return list((config.get("id2label") or {}).values()) if classifies else "none (no classification head)"


def _count_numbers(folder: Path) -> tuple[int | None, int | None]:
    """Numbers in the weights: learned ones, and frozen prior-knowledge tables."""
    from safetensors import SafetensorError, safe_open

    learned = frozen = 0
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="np") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - not a dictionary
                    size = 1
                    for length in tensors.get_slice(name).get_shape():
                        size *= length
                    if ".prior_tables." in name or ".prior_rows" in name:
                        frozen += size if ".prior_tables." in name else 0
                    else:
                        learned += size
        except SafetensorError as error:
            raise InputError(f"{path}: does not open ({error})") from error
    return (learned or None), (frozen or None) if learned else None


def training_rows(folder: Path) -> Rows:
    """How long, on what and with which settings a model was trained."""
    record = training_record(folder)
    manifest = read_manifest(folder) if (folder / MANIFEST).is_file() else {}
    config = record.get("config") or _yaml(folder / "pretraining.yaml")
    optimisation, masking = config.get("optimisation") or {}, config.get("masking") or {}
    options, cost = record.get("options") or {}, record.get("cost") or {}
    steps, planned = record.get("steps") or cost.get("steps"), record.get("planned_steps")
    of_planned = f"{steps:,} of {planned:,} planned" if steps and planned and steps != planned else steps
    rows = [
        ("Task", text_of(masking.get("task") or record.get("task"))),
        ("Method", text_of(record.get("method") or ("all weights" if optimisation else None))),
        ("Masked share of gene slots", text_of(masking.get("rate"))),
        ("Optimiser steps", text_of(of_planned)),
        ("Learning rate", text_of(optimisation.get("learning_rate") or record.get("learning_rate"))),
        ("Schedule", text_of(optimisation.get("schedule"))),
        ("Precision", text_of(optimisation.get("precision") or _precision(options))),
        ("Seed", text_of(config.get("seed", options.get("seed")))),
        ("Wall time (seconds)", text_of(record.get("seconds") or cost.get("seconds"))),
        ("Hardware at save time", text_of(_hardware(manifest.get("hardware")))),
        ("Corpus", text_of(config.get("corpus") or record.get("corpus"))),
        ("Corpus fingerprint", text_of(record.get("corpus_fingerprint"))),
        ("Derived from", text_of(_origin(manifest.get("derived_from")))),
        ("Versions", text_of(record.get("versions") or manifest.get("versions"))),
        ("Command", f"`{record['command']}`" if record.get("command") else NOT_RECORDED),
    ]
    if options:
        # fine-tuning masks nothing, and learns from labelled cells instead of a corpus
        absent = {"Masked share of gene slots", "Schedule", "Corpus", "Corpus fingerprint"}
        rows = [(name, value) for name, value in rows if name not in absent or value != NOT_RECORDED]
    shown = {"labels", "history", "versions", "config", "evaluation", "ontology_ids", "known_answer", "command"}
    shown |= {"steps", "planned_steps", "seconds", "seed", "method", "learning_rate", "precision", "corpus"}
    shown |= {"corpus_fingerprint", "parameters", "vocab_size", "task"}
    extra = [(key, value) for key, value in record.items() if key not in shown and _is_short(value)]
    return rows + [(key.replace("_", " ").capitalize(), text_of(value)) for key, value in extra]


def _precision(options: dict[str, Any]) -> str | None:
    return ("bf16" if options["bf16"] else "fp32") if "bf16" in options else None


def _is_short(value: Any) -> bool:
    return value is not None and len(text_of(value)) <= 300


def _hardware(recorded: Any) -> str | None:
    if not isinstance(recorded, dict):
        return None
    gpus = ", ".join(recorded.get("gpus") or []) or "no GPU"
    return f"{recorded.get('cpu')}, {recorded.get('threads')} threads; {gpus}"


def _origin(recorded: Any) -> Any:
    if isinstance(recorded, dict) and "repo" in recorded:
        return f"{recorded['repo']} at {recorded.get('revision')}"
    return recorded


def _yaml(path: Path) -> dict[str, Any]:
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.is_file() else {}


def history(folder: Path) -> list[dict[str, Any]]:
    """Logged figures of a run, each with its step or epoch."""
    return [entry for entry in training_record(folder).get("history") or [] if "step" in entry or "epoch" in entry]


def source_rows(folder: Path) -> list[dict[str, str]]:
    """Where the data came from, one row a source with licence and citation, as far as recorded."""
    manifest = read_manifest(folder) if (folder / MANIFEST).is_file() else {}
    found = manifest.get("sources")
    entries = found if isinstance(found, list) else []
    if isinstance(found, dict):
        entries = [
            {"dataset": name, **(entry if isinstance(entry, dict) else {"file": entry})}
            for name, entry in found.items()
        ]
    if manifest.get("kind") == "priors" and not entries:
        entries = _prior_sources(folder)
    keys = ("dataset", "species", "kept", "rows", "licence", "citation")
    return [
        {key: text_of(entry.get(key, entry.get({"dataset": "name"}.get(key, key)))) for key in keys}
        for entry in entries
        if isinstance(entry, dict)
    ]


def _prior_sources(folder: Path) -> list[dict[str, Any]]:
    """What the tables of a folder were made from: files with what was taken of them, data sets with their cells."""
    records = (record for path in sorted(folder.glob("*.safetensors")) for record in _prior_records(path).values())
    return [
        {
            "dataset": source.get("dataset") or f"{source.get('file')} (sha256 {str(source.get('sha256'))[:12]})",
            "species": source.get("species"),
            "kept": next((source[key] for key in ("kept", "sampled", "genes_found") if key in source), None),
            "rows": next((source[key] for key in ("edges", "cells", "memberships") if key in source), None),
            **{key: source.get(key) for key in ("licence", "citation")},
        }
        for record in records
        for source in record.get("sources") or []
    ]


def corpus_rows(folder: Path) -> Rows:
    """Cells, genes and shards per species, and what quality control removed."""
    manifest = read_manifest(folder) if (folder / MANIFEST).is_file() else {}
    rows: Rows = []
    for name, totals in (manifest.get("species") or {}).items():
        rows += [(f"{key.capitalize()}, {name}", text_of(value)) for key, value in totals.items()]
    options = manifest.get("options") or {}
    rows += [(f"Option: {key}", text_of(value)) for key, value in options.items() if _is_short(value)]
    rows.append(("Kept obs columns", text_of(manifest.get("obs_columns"))))
    rows.append(("Removed by quality control", text_of(_removed(manifest))))
    rows.append(("Versions", text_of(manifest.get("versions"))))
    return rows


def _removed(manifest: dict[str, Any]) -> dict[str, int] | None:
    sources = manifest.get("sources")
    if not isinstance(sources, list) or not any("removed" in source for source in sources):
        return None
    total: dict[str, int] = {}
    for source in sources:
        for reason, number in (source.get("removed") or {}).items():
            if isinstance(number, int):
                total[reason] = total.get(reason, 0) + number
    return total or {"cells": 0}


def prior_rows(folder: Path) -> list[dict[str, str]]:
    """One row a prior-knowledge table: name, shape, and what its file's metadata records."""
    from safetensors import safe_open

    found = []
    for path in sorted(folder.glob("*.safetensors")):
        records = _prior_records(path)
        of_file = {} if records else _prior_metadata(path)
        with safe_open(path, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dictionary
                shape = " x ".join(f"{length:,}" for length in tensors.get_slice(name).get_shape())
                recorded = text_of(_brief(records[name]) if name in records else _short(of_file))
                found.append({"name": name, "file": path.name, "shape": shape, "recorded": recorded})
    return found


def _brief(record: dict[str, Any]) -> dict[str, Any]:
    """Of a table's record, what a reader of the card asks first: how it was made and for how many genes."""
    coverage = {
        species: f"{text_of(found.get('known'))} of {text_of(found.get('genes'))} genes"
        for species, found in (record.get("coverage") or {}).items()
    }
    settings = {key: value for key, value in (record.get("settings") or {}).items() if value is not None}
    kept = {key: record.get(key) for key in ("method", "missing", "seed", "versions")}
    return {**kept, "coverage": coverage, "settings": settings}


def _short(metadata: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if len(text_of(value)) <= 500}


def _prior_records(path: Path) -> dict[str, dict[str, Any]]:
    """Name of each table -> its record, for files written by this package; empty for others."""
    inside = _prior_metadata(path).get("genecompass_priors")
    return dict(inside.get("priors") or {}) if isinstance(inside, dict) else {}


def _prior_metadata(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, framework="np") as tensors:
        inside = dict(tensors.metadata() or {})
    beside = read_json(path.with_suffix(".json"))
    merged: dict[str, Any] = {}
    for key, value in {**inside, **beside}.items():
        try:
            merged[key] = json.loads(value) if isinstance(value, str) and value[:1] in "{[" else value
        except json.JSONDecodeError:
            merged[key] = value
    return {key: value for key, value in merged.items() if key != "format"}
