"""Training curves for a card: a short table always, a figure where matplotlib is installed."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..tokenization.files import atomic_path

CURVE_FILE = "figures/training.png"
# what may be on a curve, in the order of the columns
_LOSSES = ("loss", "id_loss", "value_loss", "count_loss", "eval_loss", "validation_loss", "eval_macro_f1", "score")
_POINTS = 8


def curve_table(history: Sequence[dict[str, Any]]) -> dict[str, list[Any]] | None:
    """At most eight steps, evenly chosen, with the losses that were logged; None without a history."""
    axis = _axis(history)
    columns = [name for name in _LOSSES if any(isinstance(entry.get(name), (int, float)) for entry in history)]
    entries = [entry for entry in history if axis in entry and any(name in entry for name in columns)]
    if not columns or not entries:
        return None
    chosen = sorted({round(index * (len(entries) - 1) / max(1, _POINTS - 1)) for index in range(_POINTS)})
    points = [entries[index] for index in chosen]
    rows = [[f"{entry[axis]:,}", *(_number(entry.get(name)) for name in columns)] for entry in points]
    return {"columns": [axis, *(name.replace("_", " ") for name in columns)], "rows": rows}


def _axis(history: Sequence[dict[str, Any]]) -> str:
    return "step" if any("step" in entry for entry in history) else "epoch"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else "-"


def draw_curves(history: Sequence[dict[str, Any]], folder: Path) -> list[dict[str, str]]:
    """Draw the logged losses over steps into ``figures/training.png``.

    Returns
    -------
    list
        ``path`` (relative) and ``caption`` of the figure; empty without history or without matplotlib.
    """
    axis = _axis(history)
    columns = [name for name in _LOSSES if sum(isinstance(entry.get(name), (int, float)) for entry in history) > 1]
    if not columns or importlib.util.find_spec("matplotlib") is None:
        return []
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(columns), 2.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
        points = [(entry[axis], entry[name]) for entry in history if axis in entry and name in entry]
        axes.plot(*zip(*points, strict=True), color="#2b6cb0", linewidth=1.6)
        axes.set_xlabel(axis)
        axes.set_title(name.replace("_", " "), fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    with atomic_path(folder / CURVE_FILE) as temporary:
        figure.savefig(temporary, dpi=150, metadata={"Software": None})
    return [{"path": CURVE_FILE, "caption": "training curves"}]
