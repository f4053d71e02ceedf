"""What the demo shows at its end: one screen of summary, figures, and a report to open in a browser."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ...tokenization.files import atomic_path, write_json
from ..html_report import Section, write_html
from ..metrics import confusion_table
from ..plots import plot_confusion
from .options import DemoOptions, DemoResult

MODEL = "GeneCompass, LoRA"
_INK, _MODEL, _PALE = "#1b2330", "#0b6e99", "#b9c2d0"


def write_report(result: DemoResult, options: DemoOptions, folder: Path) -> None:
    """Write ``cells.h5ad``, ``report.html``, ``results.json`` and the figures (PNG and SVG) into `folder`."""
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    drawn = {
        "loss": _loss(result),
        "umap": _umap(result, options),
        "scores": _scores(result),
        "deletion": _deletion(result),
    }
    for name, figure in drawn.items():
        figure.savefig(figures / f"{name}.png", dpi=150, bbox_inches="tight")
        figure.savefig(figures / f"{name}.svg", bbox_inches="tight")
        plt.close(figure)
    tested = result.cells.obs[result.cells.obs["split"] == "test"]
    table = confusion_table(tested[options.label].astype(str), tested["genecompass_cell_type_best"].astype(str))
    plot_confusion(table, figures / "confusion", title=f"Test cells, {MODEL}")
    _write_cells(result, folder)
    write_json(folder / "results.json", _numbers(result))
    write_html(folder / "report.html", "GeneCompass demo", _headline(result), _sections(result, options, figures))


def summary(result: DemoResult, options: DemoOptions) -> str:
    """One screen: what was made, how good it is beside the baselines, and where to look.

    Examples
    --------
    >>> summary(result, options)  # doctest: +SKIP
    """
    folder = Path(options.output)
    lines = ["", _headline(result), "", "Pre-training, held-out cells (model / best yardstick that needs no model):"]
    lines += [f"  {line}" for line in _pretraining_lines(result)]
    lines += ["", f"Cell types, macro-F1 on {_tested(result):,} test cells [95 % interval]:"]
    for method, row in result.scores.sort_values("macro_f1", ascending=False).iterrows():
        lines.append(f"  {method:<32} {row.macro_f1:.3f} [{row.low:.3f}, {row.high:.3f}]  {row.seconds:6.1f} s")
    lines += [
        "",
        f"Deleting {result.marker} (marks {result.marker_group}), shift of the cell against matched random genes:",
    ]
    lines += [f"  {line}" for line in _deletion_lines(result)]
    lines += [
        "",
        f"{sum(result.seconds.values()):.0f} s in all. Look at {folder / 'report.html'}",
        f"  checkpoint {folder / 'checkpoint'}   adapter {folder / 'adapter'}   cells {folder / 'cells.h5ad'}",
    ]
    return "\n".join(lines)


def _headline(result: DemoResult) -> str:
    ranked = result.scores["macro_f1"].sort_values(ascending=False)
    best = str(result.scores["macro_f1"].drop(MODEL).idxmax())
    gap = result.difference
    verdict = "above" if gap.low > 0 else "below" if gap.high < 0 else "a tie with"
    return (
        f"Cell types by LoRA on a network trained for {result.seconds['pre-training']:.0f} s: macro-F1 "
        f"{ranked[MODEL]:.3f}, {verdict} the best simple baseline ({best}, {ranked[best]:.3f}): difference "
        f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}] on the same {_tested(result)} cells."
    )


def _tested(result: DemoResult) -> int:
    return int((result.cells.obs["split"] == "test").sum())


def _pretraining_lines(result: DemoResult) -> list[str]:
    evaluation = result.pretraining.evaluation
    lines = []
    for kind, (title, figure, words) in _asked(evaluation).items():
        mine = evaluation["model"][kind]["all"][figure]
        yardsticks = {name: groups["all"][figure] for name, groups in evaluation["yardsticks"][kind].items()}
        name = min(yardsticks, key=lambda key: yardsticks[key])
        lines.append(f"{title.lower()}, {words}: {mine:.3f} / {yardsticks[name]:.3f} ({name})")
    return lines


_DELETION_COLUMNS = ["group", "n_cells", "mean", "null_mean", "null_sd", "n_null", "effect_size", "p", "q"]


def _asked(evaluation: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    """What pre-training asked: kind to title, figure and its name in words."""
    known = {
        "id": ("Which genes are hidden", "cross_entropy", "cross-entropy"),
        "value": ("Their values", "mse", "mean squared error"),
        "count": ("Held-back counts of a cell", "cross_entropy", "cross-entropy"),
    }
    return {kind: words for kind, words in known.items() if kind in evaluation["model"]}


def _deletion_lines(result: DemoResult) -> list[str]:
    lines = []
    for row in _deletion_table(result).head(6).to_dict("records"):
        null = f"null {row['null_mean']:+.2e} ± {row['null_sd']:.1e}"
        tested = f"p {row['p']:.3f} of {row['n_null']} random genes" if row["p"] == row["p"] else "too few cells for p"
        lines.append(f"{row['group']:<32} {row['mean']:+.2e}  {null}  {tested}  ({row['n_cells']} cells)")
    return lines


def _deletion_table(result: DemoResult) -> pd.DataFrame:
    effects = result.effects
    # by evidence: one cell of another type may move furthest and say nothing
    return effects.sort_values(["p", "effect_size"], ascending=[True, False], na_position="last")


def _numbers(result: DemoResult) -> dict[str, Any]:
    return {
        "facts": result.facts,
        "pretraining": result.pretraining.evaluation,
        "annotation": result.scores.drop(columns="seconds").to_dict(orient="index"),
        "deletion": {
            "gene": result.marker,
            "marks": result.marker_group,
            "effects": _deletion_table(result)[_DELETION_COLUMNS].to_dict("records"),
        },
    }


def _write_cells(result: DemoResult, folder: Path) -> None:
    with atomic_path(folder / "cells.h5ad") as temporary:
        result.cells.write_h5ad(temporary, compression="gzip")


def _sections(result: DemoResult, options: DemoOptions, figures: Path) -> list[Section]:
    spread = result.scores.round(3).rename(columns={"macro_f1": "macro-F1", "low": "2.5 %", "high": "97.5 %"})
    deletion = _deletion_table(result)[_DELETION_COLUMNS]
    times = pd.DataFrame({"step": result.seconds.keys(), "seconds": np.round(list(result.seconds.values()), 1)})
    return [
        Section(
            "Cells",
            f"{result.cells.n_obs:,} cells and {result.cells.n_vars:,} genes. A quarter of the cells, stratified by "
            "label, was set aside before anything was learned.",
            listing=result.coverage,
        ),
        Section(
            "Pre-training",
            "Some genes of each cell are hidden: of a part the network sees the id and predicts the value, of the "
            "others it predicts which genes they are. Hidden genes carry no rank, so that their neighbours do not "
            "give them away. Dashed lines cost nothing to predict: a network below them has learned something.\n\n"
            + "; ".join(_pretraining_lines(result))
            + ".",
            figures=[figures / "loss.png"],
        ),
        Section(
            "Embeddings", "UMAP of the cells' embeddings, before any label was shown.", figures=[figures / "umap.png"]
        ),
        Section(
            "Cell types",
            f"Macro-F1 on {_tested(result):,} test cells with bootstrap intervals. All methods saw the same training "
            f"cells. The adapter has {result.facts['adapter']}.",
            table=spread,
            figures=[figures / "scores.png", figures / "confusion.png"],
        ),
        Section(
            f"Deleting {result.marker}",
            f"{result.marker} marks {result.marker_group} among the training cells. It was deleted from the counts of "
            "test cells that express it, which were ranked again; the shift of the cell's embedding stands beside the "
            "same deletion of random genes of the same rank and detection rate.",
            table=deletion.round(6),
            figures=[figures / "deletion.png"],
        ),
        Section("Time", "Wall time by step.", table=times),
    ]


def _axes(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    figure, axes = plt.subplots(1, columns, figsize=(width, height), layout="constrained")
    for axis in np.atleast_1d(axes):
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _loss(result: DemoResult) -> Any:
    history = pd.DataFrame(result.pretraining.history)
    evaluation = result.pretraining.evaluation
    titles = _asked(evaluation)
    figure, axes = _axes(4.5 * len(titles), 3.2, len(titles))
    for axis, (kind, (title, figure_name, words)) in zip(np.atleast_1d(axes), titles.items(), strict=True):
        curve = history.dropna(subset=[f"{kind}_loss"])
        axis.plot(curve["step"], curve[f"{kind}_loss"], color=_MODEL, label="training")
        held_out = evaluation["model"][kind]["all"][figure_name]
        axis.plot(curve["step"].iloc[-1], held_out, "o", color=_INK, label="held out, at the end")
        for style, (name, groups) in zip(("--", ":", "-."), evaluation["yardsticks"][kind].items(), strict=False):
            axis.axhline(groups["all"][figure_name], color=_INK, lw=1, ls=style, label=name)
        axis.set(title=title, xlabel="step", ylabel=words)
        axis.legend(frameon=False, fontsize=8)
    return figure


def _umap(result: DemoResult, options: DemoOptions) -> Any:
    figure, axis = _axes(7.5, 4.6)
    labels = result.cells.obs[options.label].astype(str)
    where = result.cells.obsm["X_umap"]
    palette = plt.get_cmap("tab20" if labels.nunique() > 10 else "tab10")
    for number, name in enumerate(labels.value_counts().index):
        rows = (labels == name).to_numpy()
        axis.scatter(*where[rows].T, s=10, lw=0, color=palette(number % palette.N), label=f"{name} ({rows.sum()})")
    axis.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2", title="Cells by type, embedded without labels")
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), markerscale=2)
    return figure


def _scores(result: DemoResult) -> Any:
    scores = result.scores.sort_values("macro_f1")
    figure, axis = _axes(7, 0.6 + 0.42 * len(scores))
    colours = [_MODEL if method == MODEL else _PALE for method in scores.index]
    errors = np.stack([scores["macro_f1"] - scores["low"], scores["high"] - scores["macro_f1"]])
    axis.barh(
        scores.index, scores["macro_f1"], color=colours, xerr=errors, ecolor=_INK, error_kw={"lw": 1, "capsize": 3}
    )
    for row, value in enumerate(scores["macro_f1"]):
        axis.text(0.01, row, f"{value:.3f}", va="center", fontsize=8, color=_INK)
    axis.set(xlim=(0, 1), xlabel="macro-F1 on test cells (95 % interval)")
    return figure


def _deletion(result: DemoResult) -> Any:
    table = _deletion_table(result).head(10).iloc[::-1]
    figure, axis = _axes(7, 0.9 + 0.4 * len(table))
    rows = np.arange(len(table))
    width = table["null_high"] - table["null_low"]
    axis.barh(rows, width, left=table["null_low"], height=0.6, color=_PALE, label="random genes, 95 %")
    axis.plot(table["null_mean"], rows, "|", color=_INK, label="their mean")
    axis.set_xlim(left=0.0)
    axis.plot(table["mean"], rows, "o", color=_MODEL, label=result.marker)
    axis.set_yticks(
        rows, [f"{group} ({n})" for group, n in zip(table["group"], table["n_cells"], strict=True)], fontsize=8
    )
    axis.set(xlabel="shift of the cell embedding (cosine distance)", title=f"Deleting {result.marker}")
    axis.legend(frameon=False, fontsize=8)
    return figure
