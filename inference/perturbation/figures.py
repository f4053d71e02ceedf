"""Figures of a screen: every effect beside what random genes like it do."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...tokenization.errors import InputError
from .results import SIGNED

_MODEL, _PALE, _INK = "#0072B2", "#C9CDD2", "#333333"
_WORDS = {
    "cell_cosine": "shift of the cell embedding (cosine distance)",
    "cell_euclidean": "shift of the cell embedding (Euclidean distance)",
    "gene_cosine": "mean shift of the other genes (cosine distance)",
    "value_change": "mean change of predicted values (absolute)",
    "goal_cosine": "gain in cosine towards the goal",
    "goal_progress": "share of the way from start to goal",
}


def plot_effects(
    summary: pd.DataFrame,
    path: str | os.PathLike[str],
    *,
    effect: str = "cell_cosine",
    group: str | None = "all",
    top: int = 30,
    title: str = "",
) -> list[Path]:
    """Draw effects with their interval over cells, on the band in which 95 % of matched random genes lie.

    Rows stand in the order of evidence: the smallest p first, then the distance from the null. Filled where q is
    below 0.05; a row without p (a small group, no null) is drawn pale.

    Parameters
    ----------
    summary
        Of `PerturbationResult`, or a ranking of `rank_cell_fate`.
    path
        Where to write, with any ending: a PNG and an SVG come out.
    effect, group
        Which rows; all groups for None.
    top
        Most rows drawn.
    title
        Heading.

    Returns
    -------
    list of pathlib.Path

    Raises
    ------
    InputError
        If the summary has no such rows.

    Examples
    --------
    >>> plot_effects(result.summary, "deletions.png")  # doctest: +SKIP
    """
    table = summary
    for column, wanted in (("effect", effect), ("group", group)):
        if column in table and wanted is not None:
            table = table[table[column] == wanted]
    table = table[table["n_cells"] > 0]
    if table.empty:
        raise InputError(f"nothing to draw: no effect {effect!r} in group {group!r} was seen in any cell")
    strength = table["effect_size"].abs()
    table = table.assign(strength=strength).sort_values(["p", "strength"], ascending=[True, False], na_position="last")
    n_rows, table = len(table), table.head(top).iloc[::-1]
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('figures need matplotlib: pip install "genecompass[plots]"') from error
    figure, axes = plt.subplots(figsize=(7.5, 1.3 + 0.24 * len(table)), layout="constrained")
    _draw(axes, table, signed=effect in SIGNED)
    labels = [
        str(row.perturbation) + ("" if group is not None or "group" not in table else f" in {row.group}")
        for row in table.itertuples()
    ]
    axes.set_yticks(np.arange(len(table)), labels, fontsize=8)
    counts = [f"{row.n_cells} cells, {row.n_null} random genes" for row in table.itertuples()]
    right = axes.secondary_yaxis("right")
    right.set_yticks(np.arange(len(table)), counts, fontsize=6)
    right.tick_params(length=0, labelcolor="0.4")
    right.spines["right"].set_visible(False)
    shown = f"{len(table)} of {n_rows}, smallest p first" if n_rows > len(table) else ""
    axes.set(xlabel=_WORDS.get(effect, effect), title=", ".join(part for part in (title, shown) if part))
    axes.set_ylim(-0.7, len(table) - 0.3)
    figure.legend(loc="outside lower center", ncols=4, fontsize=7, frameon=False)
    return _save(figure, path)


def _draw(axes: Any, table: pd.DataFrame, *, signed: bool) -> None:
    rows = np.arange(len(table))
    null = table["null_low"].notna().to_numpy()
    width = table["null_high"] - table["null_low"]
    axes.barh(
        rows[null], width[null], left=table["null_low"][null], height=0.7, color=_PALE, label="random genes, 95 %"
    )
    axes.plot(table["null_mean"], rows, "|", color="0.45", markersize=8, label="their mean")
    # an interval over few cells may reach below 0, a distance cannot
    low = table["low"] if signed else table["low"].clip(lower=0.0)
    spread = np.nan_to_num(np.stack([table["mean"] - low, table["high"] - table["mean"]]))
    axes.errorbar(
        table["mean"], rows, xerr=spread, fmt="none", ecolor=_INK, elinewidth=0.9, label="95 % interval over cells"
    )
    found = (table["q"] < 0.05).to_numpy()
    for chosen, options, label in (
        (found, {"mfc": _MODEL, "mec": _MODEL}, "q < 0.05"),
        (~found & table["p"].notna().to_numpy(), {"mfc": "white", "mec": _MODEL}, "q of 0.05 or more"),
        (table["p"].isna().to_numpy(), {"mfc": "white", "mec": "0.7"}, "too few cells for p"),
    ):
        if chosen.any():
            axes.plot(table["mean"][chosen], rows[chosen], "o", markersize=5, label=label, **options)
    if signed:
        axes.use_sticky_edges = False
        axes.margins(x=0.05)
        axes.axvline(0.0, color="0.6", lw=0.7, zorder=0)
    else:
        axes.set_xlim(left=0.0)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Any, path: str | os.PathLike[str]) -> list[Path]:
    import matplotlib.pyplot as plt

    stem = Path(path).with_suffix("")
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
    for file in written:
        figure.savefig(file, dpi=150)
    plt.close(figure)
    return written
