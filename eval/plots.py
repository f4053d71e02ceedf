"""Figures where people look: UMAP, confusion matrix, learning curve, scores by gene; each as PNG and SVG."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

# Okabe and Ito's colours, which colour-blind readers can tell apart, then matplotlib's tab20 for more labels
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
_MARKERS = "osv^DPX*<>"


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('figures need matplotlib: pip install "genecompass[plots]"') from error
    return plt


def _save(figure: Any, path: str | os.PathLike[str]) -> list[Path]:
    """Write PNG and SVG under the name of `path`, whatever its ending."""
    stem = Path(path).with_suffix("")
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
    for file in written:
        figure.savefig(file, dpi=150, bbox_inches="tight")
    _pyplot().close(figure)
    return written


def _palette(number: int) -> list[Any]:
    if number <= len(_COLOURS):
        return list(_COLOURS[:number])
    return [_pyplot().get_cmap("tab20" if number <= 20 else "turbo")(i / max(number - 1, 1)) for i in range(number)]


def plot_confusion(table: pd.DataFrame, path: str | os.PathLike[str], *, title: str = "") -> list[Path]:
    """Draw a confusion matrix: shares of the true label as colour, numbers of cells as text.

    Parameters
    ----------
    table
        From `confusion_table`: rows true, columns predicted.
    path
        Where to write; ``.png`` and ``.svg`` are both made.
    title
        Above the figure.

    Returns
    -------
    list of Path
        Files written.

    Examples
    --------
    >>> import tempfile
    >>> from genecompass.eval.metrics import confusion_table
    >>> folder = Path(tempfile.mkdtemp())
    >>> drawn = plot_confusion(confusion_table(["B", "T", "T"], ["B", "T", "B"]), folder / "confusion.png")
    >>> [path.name for path in drawn]
    ['confusion.png', 'confusion.svg']
    """
    plt = _pyplot()
    shares = table.to_numpy() / np.maximum(table.to_numpy().sum(axis=1, keepdims=True), 1)
    height, width = table.shape
    figure, axes = plt.subplots(figsize=(1.8 + 0.55 * width, 1.6 + 0.45 * height))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(width), table.columns, rotation=45, ha="right")
    axes.set_yticks(range(height), table.index)
    axes.set(xlabel="predicted", ylabel="truth", title=title)
    for row in range(height):
        for column in range(width):
            if count := int(table.to_numpy()[row, column]):
                colour = "white" if shares[row, column] > 0.55 else "black"
                axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, ax=axes, label="share of the true label", fraction=0.046, pad=0.04)
    return _save(figure, path)


def plot_learning_curve(
    table: pd.DataFrame,
    path: str | os.PathLike[str],
    *,
    metric: str = "macro_f1",
    title: str = "",
    ours: Sequence[str] = (),
) -> list[Path]:
    """Draw a score over the number of labelled cells a class, with its spread over seeds.

    Parameters
    ----------
    table
        From `summarise`, of one data set: ``method``, ``cells_per_class``, ``<metric>_mean``, ``<metric>_sd``.
    path, title
        As for `plot_confusion`.
    metric
        Score to draw.
    ours
        Methods to draw as solid lines; baselines are dashed.
    """
    plt = _pyplot()
    points = list(dict.fromkeys(table["cells_per_class"].astype(str)))
    methods = list(dict.fromkeys(table["method"]))
    figure, axes = plt.subplots(figsize=(6.5, 4.2))
    colours = _palette(len(methods))
    for number, (method, colour) in enumerate(zip(methods, colours, strict=True)):
        part = table[table["method"] == method]
        where = [points.index(str(k)) + 0.02 * (number - len(methods) / 2) for k in part["cells_per_class"]]
        axes.errorbar(
            where,
            part[f"{metric}_mean"],
            yerr=part[f"{metric}_sd"],
            label=method,
            color=colour,
            marker=_MARKERS[number % len(_MARKERS)],
            linestyle="-" if method in ours else "--",
            capsize=2,
            markersize=5,
        )
    axes.set_xticks(range(len(points)), points)
    axes.set(xlabel="labelled cells a class", ylabel=metric.replace("_", " "), title=title, ylim=(0, 1.02))
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return _save(figure, path)


def plot_umap(
    embedding: npt.ArrayLike,
    colours: dict[str, Sequence[str]],
    path: str | os.PathLike[str],
    *,
    seed: int = 0,
    title: str = "",
) -> list[Path]:
    """Draw one UMAP of an embedding, coloured side by side by label, species, batch, ...

    Parameters
    ----------
    embedding
        Cells x dimensions.
    colours
        Name of a panel to one value a cell.
    path, title
        As for `plot_confusion`.
    seed
        Of the layout.

    Examples
    --------
    >>> plot_umap(adata.obsm["X_genecompass"], {"species": adata.obs["organism"]}, "umap.png")  # doctest: +SKIP
    """
    plt = _pyplot()
    try:
        import umap
    except ImportError as error:
        raise ImportError('UMAP figures need umap-learn: pip install "genecompass[plots]"') from error
    points = np.asarray(embedding, dtype=np.float32)
    neighbours = max(2, min(15, len(points) - 1))
    layout = umap.UMAP(n_neighbors=neighbours, min_dist=0.3, random_state=seed, n_jobs=1).fit_transform(points)
    figure, panels = plt.subplots(1, len(colours), figsize=(5.4 * len(colours), 4), squeeze=False)
    order = np.random.default_rng(seed).permutation(len(points))  # so that no group hides another
    for axes, (name, values) in zip(panels[0], colours.items(), strict=True):
        text = np.asarray(values).astype(str)
        labels = np.unique(text)
        colour_of = dict(zip(labels, _palette(len(labels)), strict=True))
        size = float(np.clip(6000 / len(points), 2, 14))
        axes.scatter(layout[order, 0], layout[order, 1], c=[colour_of[text[i]] for i in order], s=size, linewidths=0)
        handles = [
            plt.Line2D([], [], marker="o", linestyle="", color=colour_of[x], label=x, markersize=5) for x in labels
        ]
        axes.legend(handles=handles, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        axes.set(title=name, xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
    figure.suptitle(title)
    figure.tight_layout()
    return _save(figure, path)


def plot_gene_scores(scores: pd.Series, path: str | os.PathLike[str], *, top: int = 25, title: str = "") -> list[Path]:
    """Draw one number a gene for one cell: attention from the species slot, or attribution; strongest genes on top.

    Parameters
    ----------
    scores
        Index gene symbol; signed for attribution.
    path, title
        As for `plot_confusion`.
    top
        Genes to draw.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> scores = pd.Series({"INS": 0.31, "GCG": -0.12}, name="attribution")
    >>> [path.name for path in plot_gene_scores(scores, folder / "scores.png")]
    ['scores.png', 'scores.svg']
    """
    plt = _pyplot()
    chosen = scores.reindex(scores.abs().sort_values(ascending=False).index)[:top][::-1]
    figure, axes = plt.subplots(figsize=(4.5, 0.9 + 0.2 * len(chosen)))
    colours = [_COLOURS[0] if value >= 0 else _COLOURS[1] for value in chosen]
    axes.barh(range(len(chosen)), chosen.to_numpy(), color=colours)
    axes.set_yticks(range(len(chosen)), chosen.index, fontsize=8)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set(xlabel=scores.name or "score", title=title)
    return _save(figure, path)
