"""Benchmark results for a card: every method with its spread, ours among the baselines, nothing left out."""

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..tokenization.errors import InputError
from ..tokenization.markdown import plain


@dataclass(frozen=True)
class Score:
    """One score of one method.

    Parameters
    ----------
    task
        ``annotation``, ``grn``, ``pre-training``, ...
    dataset
        Data set and split, in words.
    metric
        Name of the metric.
    method
        Name of the method.
    value
        Mean over seeds.
    spread
        Standard deviation over seeds; None where there was one.
    seeds
        How many; None where not recorded.
    ours
        Whether it is this checkpoint, in whatever way it was used; baselines are not.
    """

    task: str
    dataset: str
    metric: str
    method: str
    value: float
    spread: float | None = None
    seeds: int | None = None
    ours: bool = False

    @property
    def text(self) -> str:
        """The value with its spread, as a table shows it."""
        return _shown(self.value) + (f" ± {_shown(self.spread)}" if self.spread is not None else "")


def _shown(value: float) -> str:
    """Three decimals; two digits where these would all be zeros."""
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.005 else f"{value:.2g}"


def read_scores(paths: Iterable[str | os.PathLike[str]]) -> list[Score]:
    """Read benchmark JSON.

    Understood are files with ``task`` (or ``benchmark``), ``dataset`` and a list of ``rows`` (or ``results``); each
    row has ``method``, and either ``metric``, ``mean`` and ``std``, or one entry a metric with these two.

    Raises
    ------
    InputError
        The file cannot be read, or holds no row that says method, metric and score.
    """
    scores = []
    for path in paths:
        path = Path(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not readable as JSON ({error})") from error
        found = scores_in(content, default_task=path.stem)
        if not found:
            raise InputError(f"{path}: no scores found; a benchmark's JSON has rows with method, metric, mean and std")
        scores += found
    return scores


def scores_in(content: Any, *, default_task: str = "benchmark") -> list[Score]:
    """Scores in the parsed JSON of a benchmark; see `read_scores`."""
    if isinstance(content, list):
        return [score for entry in content for score in scores_in(entry, default_task=default_task)]
    if not isinstance(content, dict):
        return []
    task = str(content.get("task") or content.get("benchmark") or default_task)
    dataset = str(content.get("dataset") or content.get("data") or content.get("split") or "")
    lists: list[Any] = [content.get(key) for key in ("rows", "summary", "results", "scores")]
    rows: list[dict[str, Any]] = next((found for found in lists if _is_rows(found)), [])
    return [score for row in rows for score in _scores_of_row(row, task, dataset)]


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _scores_of_row(row: dict[str, Any], task: str, dataset: str) -> list[Score]:
    method = row.get("method") or row.get("model") or row.get("name")
    if not method:
        return []
    where = ", ".join(str(row[key]) for key in ("dataset", "split", "species", "setting") if row.get(key)) or dataset
    common = {"task": str(row.get("task") or task), "dataset": where, "method": str(method)}
    ours = bool(row.get("ours", not row.get("baseline", not _sounds_like_ours(str(method)))))
    seeds = row.get("seeds") if isinstance(row.get("seeds"), int) else _length(row.get("seeds"))
    if row.get("metric"):
        value = row.get("mean", row.get("value", row.get("score")))
        pairs = [(str(row["metric"]), value, row.get("std", row.get("spread", row.get("sd"))))]
    else:
        pairs = [
            (name.removesuffix("_mean"), *_mean_and_spread(row, name, value))
            for name, value in row.items()
            if name not in ("seed", "seeds", "ours", "baseline", "n_seeds") and not name.endswith(("_std", "_sd"))
        ]
    return [
        Score(**common, metric=name, value=number, spread=_number(spread), seeds=seeds, ours=ours)
        for name, value, spread in pairs
        if (number := _number(value)) is not None
    ]


def _mean_and_spread(row: dict[str, Any], name: str, value: Any) -> tuple[Any, Any]:
    if isinstance(value, dict):
        return value.get("mean"), value.get("std", value.get("sd"))
    stem = name.removesuffix("_mean")
    return value, row.get(f"{stem}_std", row.get(f"{stem}_sd"))


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _length(value: Any) -> int | None:
    return len(value) if isinstance(value, list) else None


def _sounds_like_ours(method: str) -> bool:
    lowered = method.lower()
    return lowered.startswith(("genecompass", "this model", "this checkpoint", "model"))


def pretraining_scores(evaluation: dict[str, Any]) -> list[Score]:
    """Held-out cells after pre-training: the model beside the yardsticks that cost nothing to predict."""
    scores = []
    for kind, label in (("id", "hidden gene ids"), ("value", "hidden values"), ("count", "held-back counts")):
        for species, figures in (evaluation.get("model", {}).get(kind) or {}).items():
            scores += _figures("this model", label, species, figures, True)
        for name, groups in (evaluation.get("yardsticks", {}).get(kind) or {}).items():
            for species, figures in groups.items():
                scores += _figures(name, label, species, figures, False)
    return scores


def _figures(method: str, label: str, species: str, figures: dict[str, Any], ours: bool) -> list[Score]:
    where = f"held-out cells of the corpus, {label}, {'all species' if species == 'all' else species}"
    return [
        Score("pre-training", where, metric.replace("_", " "), method, float(value), seeds=1, ours=ours)
        for metric, value in figures.items()
        if metric != "slots" and _number(value) is not None
    ]


def tables(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """One table a task and data set: a row a method, a column a metric, in the order of the files."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for score in scores:
        table = found.setdefault(
            (score.task, score.dataset),
            {"task": plain(score.task), "dataset": plain(score.dataset or ""), "metrics": [], "rows": {}},
        )
        if score.metric not in table["metrics"]:
            table["metrics"].append(score.metric)
        name = f"**{plain(score.method)}**" if score.ours else plain(score.method)
        row = table["rows"].setdefault(name, {"seeds": score.seeds, "cells": {}})
        row["cells"][score.metric] = score.text
    return list(found.values())


_HUB_TASKS = {"annotation": "text-classification", "gene-classification": "token-classification"}


def eval_results(scores: Sequence[Score]) -> list[Any]:
    """`huggingface_hub.EvalResult` of every score of this checkpoint; baselines stay in the table."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=_HUB_TASKS.get(score.task, "fill-mask" if score.task == "pre-training" else "other"),
            task_name=f"{score.task}: {score.method}",
            dataset_type="other",
            dataset_name=score.dataset or score.task,
            # the Hub's format joins scores of like task and configuration under the name of the first
            dataset_config=f"{score.dataset or score.task}, {score.method}",
            metric_type=score.metric.lower().replace(" ", "_").replace("-", "_"),
            metric_name=score.metric,
            metric_value=round(score.value, 6),
            metric_args={
                key: value
                for key, value in {"std": score.spread, "seeds": score.seeds, "method": score.method}.items()
                if value is not None
            },
        )
        for score in scores
        if score.ours
    ]
