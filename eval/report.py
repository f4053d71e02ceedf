"""What a benchmark leaves behind: JSON, a table for the terminal, figures, entries for a model card."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..tokenization.files import write_json
from .metrics import confusion_table
from .tasks.annotation import ALL_CELLS, METHODS, NOTES
from .tasks.coverage import coverage_table
from .tasks.differences import difference_to_best_baseline
from .tasks.summary import long_rows, summarise, winners

_HEADER = (
    f"  {'method':55s} {'macro-F1':>14s} {'95 % interval':>14s} {'accuracy':>14s} {'ECE':>6s} {'seconds':>8s} "
    f"{'trained':>10s}  less the best baseline"
)
_METRICS = ("macro_f1", "accuracy", "calibration_error")


def write_annotation_report(
    records: Sequence[dict[str, Any]],
    output: str | os.PathLike[str],
    *,
    task: str = "annotation",
    model: str,
    figures: bool = True,
) -> dict[str, Any]:
    """Write ``<task>.json``, ``<task>.txt`` and figures; give what the JSON holds.

    Parameters
    ----------
    records
        From `run_annotation`.
    output
        Folder.
    task
        ``annotation`` or ``cross-species``.
    model
        Name of the checkpoint.
    figures
        Draw confusion matrices and learning curves (needs matplotlib).

    Returns
    -------
    dict
        ``rows`` (all labelled cells: data set, method, metric, mean, std), ``table`` (with cost), ``curve``
        (by labelled cells a class) and ``winners``.
    """
    output = Path(output)
    ours = sorted({record["method"] for record in records if record["ours"]})
    table = summarise(records, by=["split", "cells_per_class", "method"])
    whole = table[table["cells_per_class"] == ALL_CELLS]
    differences = difference_to_best_baseline(records)
    content: dict[str, Any] = {
        "task": task,
        "model": model,
        "metric": "macro-F1 over the labels present in the test set; predictions of other labels count as errors",
        "notes": list(NOTES),
        "rows": long_rows(whole, dataset="split", metrics=_METRICS, ours=_of_this_model(ours)),
        "winners": winners(whole, by="split", metric="macro_f1", ours=ours),
        "differences": differences,
        "coverage": coverage_table(records),
        "table": _plain(whole),
        "curve": _plain(table),
    }
    write_json(output / f"{task}.json", content)
    (output / f"{task}.txt").write_text(
        annotation_text(table, content["winners"], differences) + _coverage_text(content["coverage"]), encoding="utf-8"
    )
    if figures:
        _draw(records, table, output, ours)
    return content


def _of_this_model(methods: list[str]) -> list[str]:
    """Methods that start from the checkpoint's weights: the others are comparisons, no results of it on a card."""
    return [method for method in methods if "from scratch" not in method and "untrained" not in method]


def annotation_text(
    table: pd.DataFrame,
    best: dict[str, dict[str, Any]] | None = None,
    differences: dict[str, dict[str, Any]] | None = None,
) -> str:
    """The tables for a terminal: one line a method, cost beside score, then the learning curves.

    Parameters
    ----------
    table
        From `summarise` by split, labelled cells and method.
    best
        From `winners`; the winner's line is starred, and a baseline that wins is named.
    differences
        From `difference_to_best_baseline`: each line ends in the paired difference with its interval, or ``tie``.
    """
    lines = []
    for split, part in table.groupby("split", sort=False):
        whole = part[part["cells_per_class"] == ALL_CELLS]
        winner = (best or {}).get(str(split), {})
        compared = (differences or {}).get(str(split), {"baseline": None, "methods": {}})
        lines += [
            f"{split}",
            _HEADER,
        ]
        for row in _in_order(whole):
            trained = _number(row.get("trainable_parameters"))
            star = "*" if row["method"] == winner.get("method") else " "
            lines.append(
                f" {star}{row['method']:55s} {_spread(row, 'macro_f1'):>14s} {_interval(row):>14s} "
                f"{_spread(row, 'accuracy'):>14s} {row['calibration_error_mean']:6.3f} {row['seconds']:8.1f} "
                f"{trained:>10s}  {_against(compared['methods'].get(row['method']))}".rstrip()
            )
        if compared["baseline"] is not None:
            lines.append(f"  differences in macro-F1 to {compared['baseline']}, on the same test cells, 95 % interval")
        if winner.get("baseline_wins"):
            tied = [n for n, d in compared["methods"].items() if d["verdict"] == "tie" and n.startswith("GeneCompass")]
            lines.append(
                f"  a simple baseline wins here: {winner['method']}"
                + (f"; a tie with it: {', '.join(tied)}" if tied else "")
            )
        lines.append("")
        points = list(dict.fromkeys(part["cells_per_class"]))
        if len(points) > 1:
            lines.append(f"  {'macro-F1 by labelled cells a class':55s} " + " ".join(f"{p!s:>14s}" for p in points))
            for method in dict.fromkeys(row["method"] for row in _in_order(part)):
                cells = part[part["method"] == method].set_index("cells_per_class")
                found = [_spread(cells.loc[p], "macro_f1") if p in cells.index else "" for p in points]
                lines.append(f"  {method:55s} " + " ".join(f"{entry:>14s}" for entry in found))
            lines.append("")
    lines += [f"note: {note}" for note in NOTES]
    return "\n".join(lines) + "\n"


def _interval(row: dict[str, Any]) -> str:
    low, high = row.get("macro_f1_low_mean"), row.get("macro_f1_high_mean")
    return "" if low is None or high is None or low != low else f"[{low:.3f}, {high:.3f}]"


def _coverage_text(rows: list[dict[str, Any]]) -> str:
    """What leaving out the cells of lowest score buys."""
    lines = []
    for split in dict.fromkeys(row["split"] for row in rows):
        names = [name for name in rows[0] if name.startswith("accuracy_at_")]
        shown = " ".join(f"{name.removeprefix('accuracy_at_') + ' %':>7s}" for name in names)
        lines += [f"{split}", f"  {'accuracy of the part of cells with the highest scores':55s} {shown}"]
        for row in (row for row in rows if row["split"] == split):
            lines.append(f"  {row['method']:55s} " + " ".join(f"{row[name]:7.3f}" for name in names))
        lines.append("")
    return "\n" + "\n".join(lines) if lines else ""


def _against(difference: dict[str, Any] | None) -> str:
    if difference is None:
        return ""
    ends = f"{difference['value']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]"
    return f"{ends} {difference['verdict']}"


def write_simple_report(
    records: Sequence[dict[str, Any]],
    output: str | os.PathLike[str],
    *,
    task: str,
    model: str,
    metrics: Sequence[str],
) -> str:
    """Write ``<task>.json`` and ``<task>.txt`` of a benchmark without learning curves; give the text.

    Parameters
    ----------
    records
        One dictionary a run: ``split``, ``method``, ``ours``, ``seed``, scores, ``seconds``.
    output, task, model
        As for `write_annotation_report`.
    metrics
        Scores to show, the first decides who wins.
    """
    output = Path(output)
    ours = sorted({record["method"] for record in records if record["ours"]})
    table = summarise(records, by=["split", "method"])
    shown = [metric for metric in metrics if f"{metric}_mean" in table]
    best = winners(table, by="split", metric=shown[0], ours=ours)
    content = {
        "task": task,
        "model": model,
        "rows": long_rows(table, dataset="split", metrics=shown, ours=_of_this_model(ours)),
        "winners": best,
        "table": _plain(table),
    }
    write_json(output / f"{task}.json", content)
    lines = []
    for split, part in table.groupby("split", sort=False):
        lines += [str(split), f"  {'method':58s} " + " ".join(f"{m[:15]:>15s}" for m in shown) + "  seconds"]
        for row in part.to_dict("records"):
            star = "*" if row["method"] == best[str(split)]["method"] else " "
            scores = " ".join(f"{_spread(row, metric):>15s}" for metric in shown)
            lines.append(f" {star}{row['method']:58s} {scores} {row['seconds']:8.1f}")
        if best[str(split)]["baseline_wins"]:
            lines.append(f"  a simple baseline wins here: {best[str(split)]['method']}")
        lines.append("")
    text = "\n".join(lines)
    (output / f"{task}.txt").write_text(text, encoding="utf-8")
    return text


def eval_results(content: dict[str, Any], *, model_name: str) -> list[Any]:
    """Entries for a model card's metadata: our rows, mean over seeds.

    Parameters
    ----------
    content
        A benchmark's JSON with ``task`` and ``rows``.
    model_name
        As the card calls the model.

    Returns
    -------
    list of huggingface_hub.EvalResult

    Examples
    --------
    >>> row = {"dataset": "PBMC", "method": "GeneCompass LoRA", "metric": "macro_f1", "mean": 0.9, "ours": True}
    >>> eval_results({"task": "annotation", "rows": [row]}, model_name="tiny")[0].metric_value
    0.9
    """
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="other",
            task_name=content["task"],
            dataset_type="other",
            dataset_name=row["dataset"],
            metric_type=row["metric"],
            metric_name=f"{row['metric']} ({row['method']})",
            metric_value=round(float(row["mean"]), 4),
        )
        for row in content["rows"]
        if row["ours"]
    ]


def _draw(records: Sequence[dict[str, Any]], table: pd.DataFrame, output: Path, ours: list[str]) -> None:
    from .plots import plot_confusion, plot_learning_curve

    for split, part in table.groupby("split", sort=False):
        stem = _file_name(str(split))
        if len(part["cells_per_class"].unique()) > 1:
            plot_learning_curve(part, output / "figures" / f"{stem}_learning_curve", title=str(split), ours=ours)
        for method in dict.fromkeys(record["method"] for record in records):
            runs = [r for r in records if r["split"] == split and r["method"] == method and r.get("predicted")]
            if runs and (method in ours or method.startswith("log counts")):
                truth = np.concatenate([run["truth"] for run in runs])
                predicted = np.concatenate([run["predicted"] for run in runs])
                name = output / "figures" / f"{stem}_confusion_{_file_name(method)}"
                plot_confusion(confusion_table(truth, predicted), name, title=f"{split}: {method}")


def _in_order(table: pd.DataFrame) -> list[dict[str, Any]]:
    order = {method: place for place, method in enumerate(METHODS)}
    rows: list[dict[str, Any]] = [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
    return sorted(rows, key=lambda row: order.get(row["method"], len(order)))


def _spread(row: Any, metric: str) -> str:
    return f"{row[f'{metric}_mean']:.3f} ± {row[f'{metric}_sd']:.3f}"


def _number(value: Any) -> str:
    return "-" if value is None or value != value else f"{int(value):,}"


def _plain(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows that JSON takes: no NaN, no NumPy numbers."""
    return [
        {str(name): (None if isinstance(value, float) and np.isnan(value) else value) for name, value in row.items()}
        for row in table.to_dict("records")
    ]


def _file_name(text: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in text).strip("_").lower()
