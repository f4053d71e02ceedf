"""Scaling and ablation of pre-training: a grid of settings times seeds, each run beside its yardsticks, with curves."""

import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from ...tokenization.errors import InputError
from ...tokenization.files import atomic_path, write_json
from ...tokenization.gene_table import GeneTable
from ...training.pretraining.config import PretrainConfig, load_config
from ...training.pretraining.pretrain import pretrain
from ...training.pretraining.sources import Corpus

RESULTS = "results.json"
TABLE = "results.tsv"
FIGURES = {"id": "cross_entropy", "value": "mse"}


@dataclasses.dataclass(frozen=True)
class GridRun:
    """One run of a grid.

    Parameters
    ----------
    setting
        Key to value, what differs between runs.
    seed
        Seed of the run.
    """

    setting: Mapping[str, Any]
    seed: int

    @property
    def label(self) -> str:
        """The setting in short: ``task=published, share=0.1``."""
        return ", ".join(f"{key.rsplit('.', 1)[-1]}={_short(value)}" for key, value in self.setting.items()) or "all"

    @property
    def folder(self) -> str:
        """A folder name for the run."""
        text = "_".join(f"{key.rsplit('.', 1)[-1]}-{_short(value)}" for key, value in self.setting.items()) or "run"
        return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in text) + f"_seed-{self.seed}"

    def overrides(self) -> list[str]:
        """The run as ``--set`` arguments."""
        flow = {key: yaml.safe_dump(value, default_flow_style=True).strip() for key, value in self.setting.items()}
        return [f"{key}={text.removesuffix('...').strip()}" for key, text in flow.items()] + [f"seed={self.seed}"]


def _short(value: Any) -> str:
    if value is None:
        return "default"
    if isinstance(value, list):
        return "+".join(map(str, value)) or "none"
    return str(value)


def parse_grid(items: Iterable[str]) -> dict[str, list[Any]]:
    """Read ``key=[value, value, ...]`` with YAML values.

    Examples
    --------
    >>> parse_grid(["data.share=[0.1, 1.0]", "model.use_priors=[[], null]"])
    {'data.share': [0.1, 1.0], 'model.use_priors': [[], None]}
    """
    grid: dict[str, list[Any]] = {}
    for item in items:
        key, equals, text = item.partition("=")
        try:
            values = yaml.safe_load(text) if equals else None
        except yaml.YAMLError:
            values = None
        if not isinstance(values, list) or not values:
            raise InputError(f'--grid {item!r}: write it as key=[value, value], for example "data.share=[0.1, 1.0]"')
        grid[key.strip()] = values
    return grid


def plan(grid: Mapping[str, Sequence[Any]], seeds: Sequence[int]) -> list[GridRun]:
    """All runs, seed by seed, so that a grid that is cut short has whole seeds.

    Examples
    --------
    >>> [run.label for run in plan({"data.share": [0.1, 1.0]}, [0])]
    ['share=0.1', 'share=1.0']
    """
    if not seeds:
        raise InputError("no seed given; a figure without spread says little, use three")
    settings = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    return [GridRun(setting, seed) for seed in seeds for setting in settings]


def run_grid(
    source: str,
    output: Path,
    *,
    overrides: Sequence[str] = (),
    grid: Mapping[str, Sequence[Any]] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    corpus: Corpus | None = None,
    table: GeneTable | None = None,
    on_run: Callable[[GridRun, dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Train every run of a grid, one after the other, and write results as they come.

    A run that is finished already (its folder holds ``pretraining.json``) is not repeated, so an interrupted grid
    goes on where it was.

    Parameters
    ----------
    source
        Preset or YAML file.
    output
        Folder for the runs, ``results.json``, ``results.tsv`` and the curves.
    overrides
        ``section.key=value`` for all runs.
    grid
        Key to the values that it takes.
    seeds
        Seeds of every setting.
    corpus, table
        As `pretrain`.
    on_run
        Called after each run with its result.

    Returns
    -------
    dict
        ``runs`` (setting, seed, evaluation, history, seconds) and ``summary`` (mean and standard deviation over
        seeds); also in ``results.json``.
    """
    runs = plan(grid or {}, seeds)
    configs = [load_config(source, [*overrides, *run.overrides(), f"output={output / run.folder}"]) for run in runs]
    output.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    for run, config in zip(runs, configs, strict=True):
        results.append(_result_of(run, config, corpus, table))
        summary = summarise(results)
        content: dict[str, Any] = {"task": "pre-training", "preset": source, "overrides": list(overrides)}
        content |= {"rows": _card_rows(summary), "runs": results, "summary": summary}
        write_json(output / RESULTS, content)
        if on_run is not None:
            on_run(run, results[-1])
    with atomic_path(output / TABLE) as temporary:
        pd.DataFrame(content["summary"]).to_csv(temporary, sep="\t", index=False)
    return content


def _result_of(run: GridRun, config: PretrainConfig, corpus: Corpus | None, table: GeneTable | None) -> dict[str, Any]:
    folder = Path(str(config.output))
    record_file = folder / "pretraining.json"
    # beside the run, whose own folder is complete with its manifest
    timing_file = folder.with_name(f"{folder.name}.seconds.json")
    if not record_file.is_file():
        unfinished = (folder / "run.json").is_file()
        cpu, wall = time.process_time(), time.perf_counter()
        pretrain(config, corpus=corpus, table=table, resume=unfinished)
        timing = {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        # of the last stretch only, where a run was interrupted
        write_json(timing_file, timing | {"interrupted": unfinished})
    record = json.loads(record_file.read_text(encoding="utf-8"))
    timing = json.loads(timing_file.read_text(encoding="utf-8")) if timing_file.is_file() else {}
    return {
        "label": run.label,
        "setting": dict(run.setting),
        "seed": run.seed,
        "steps": record["steps"],
        "parameters": record["parameters"],
        "vocab_size": record["vocab_size"],
        **{name: round(float(seconds), 1) for name, seconds in timing.items()},
        "evaluation": record["evaluation"],
        "history": [entry for entry in record["history"] if "id_loss" in entry or "eval_id_cross_entropy_all" in entry],
    }


def _card_rows(summary: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The summary as model cards read it: settings trained alike as one data set, yardsticks as baselines."""
    return [
        {
            "dataset": f"held-out cells of the corpus, hidden {row['figure'].split()[0]}s, "
            + ("all species" if row["group"] == "all" else row["group"])
            + ("" if row["setting"] == "all" else f"; {row['setting']}"),
            "method": "this kind of model" if row["predictor"] == "model" else row["predictor"],
            "metric": row["figure"].split(maxsplit=1)[1].replace("_", " "),
            "mean": row["mean"],
            "std": row["sd"],
            "seeds": row["seeds"],
            "ours": row["predictor"] == "model",
        }
        for row in summary
    ]


def summarise(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds, model and yardsticks, per setting and species.

    Returns
    -------
    list of dict
        ``setting``, ``figure`` (id cross-entropy, value mse), ``group`` (all or a species), ``predictor`` (model or
        a yardstick), ``mean``, ``sd`` (NaN for one seed), ``seeds``, ``beaten_in`` (seeds in which the model is
        better; None for the model itself).
    """
    rows: dict[tuple[str, str, str, str], list[tuple[float, bool | None]]] = {}
    for result in results:
        for kind, figure in FIGURES.items():
            model = result["evaluation"]["model"][kind]
            predictors = {"model": model} | result["evaluation"]["yardsticks"][kind]
            for predictor, groups in predictors.items():
                for group, scores in groups.items():
                    better = None if predictor == "model" else model[group][figure] < scores[figure]
                    key = (result["label"], f"{kind} {figure}", group, predictor)
                    rows.setdefault(key, []).append((scores[figure], better))
    summary = []
    for (label, figure, group, predictor), found in rows.items():
        values = np.array([value for value, _ in found])
        summary.append(
            {
                "setting": label,
                "figure": figure,
                "group": group,
                "predictor": predictor,
                "mean": float(values.mean()),
                "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
                "seeds": len(values),
                "beaten_in": None if predictor == "model" else sum(bool(better) for _, better in found),
            }
        )
    return summary


def format_summary(summary: Sequence[Mapping[str, Any]]) -> str:
    """The summary as a table for the screen.

    Examples
    --------
    >>> row = {"setting": "all", "figure": "value mse", "group": "human", "predictor": "model", "mean": 0.5, "sd": 0.1,
    ...        "seeds": 3, "beaten_in": None}
    >>> "0.5000 ± 0.1000" in format_summary([row])
    True
    """
    lines, heading = [], None
    for row in summary:
        if heading != (row["setting"], row["figure"], row["group"]):
            heading = (row["setting"], row["figure"], row["group"])
            lines.append(" / ".join(heading))
        spread = "" if row["sd"] is None else f" ± {row['sd']:.4f}"
        beaten = "" if row["beaten_in"] is None else f"   beaten in {row['beaten_in']} of {row['seeds']}"
        lines.append(f"    {row['predictor']:<50}{row['mean']:.4f}{spread}{beaten}")
    return "\n".join(lines)


def draw(content: Mapping[str, Any], output: Path) -> list[Path]:
    """Draw training curves and, where a share of the corpus varies, the held-out figures over it, as PNG and SVG.

    Parameters
    ----------
    content
        What `run_grid` returned.
    output
        Folder.

    Raises
    ------
    ImportError
        Without matplotlib; the message names the extra to install.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError('curves need matplotlib: pip install "genecompass[plots]"') from None
    figures = {"training_curves": _training_curves(Figure, content["runs"])}
    if len({result["setting"].get("data.share") for result in content["runs"]} - {None}) > 1:
        figures["scaling"] = _scaling(Figure, content["runs"])
    written = []
    for name, figure in figures.items():
        for ending in ("png", "svg"):
            path = output / f"{name}.{ending}"
            with atomic_path(path) as temporary:
                figure.savefig(temporary, format=ending, dpi=150, bbox_inches="tight")
            written.append(path)
    return written


def _training_curves(figure_class: Any, runs: Sequence[Mapping[str, Any]]) -> Any:
    figure = figure_class(figsize=(11, 4))
    labels = list(dict.fromkeys(result["label"] for result in runs))
    for place, (name, words) in enumerate([("id_loss", "id cross-entropy (nats)"), ("value_loss", "value MSE")], 1):
        axis = figure.add_subplot(1, 2, place)
        for result in runs:
            entries = [entry for entry in result["history"] if name in entry]
            # the first steps are off any scale that shows the rest
            steps = [entry["step"] for entry in entries[1:]]
            first = next(other for other in runs if other["label"] == result["label"]) is result
            axis.plot(
                steps,
                [entry[name] for entry in entries[1:]],
                color=f"C{labels.index(result['label'])}",
                alpha=0.8,
                label=result["label"] if first else None,
            )
        axis.set_xlabel("optimiser steps")
        axis.set_ylabel(words)
        axis.spines[["top", "right"]].set_visible(False)
        if name == "value_loss":
            axis.set_yscale("log")
        else:
            axis.legend(frameon=False, fontsize="small")
    figure.suptitle("Training loss, one line a seed")
    return figure


def _scaling(figure_class: Any, runs: Sequence[Mapping[str, Any]]) -> Any:
    figure = figure_class(figsize=(11, 4))
    others = list(dict.fromkeys(_without_share(result) for result in runs))
    for place, (kind, words) in enumerate([("id", "id cross-entropy (nats)"), ("value", "value MSE")], 1):
        axis = figure.add_subplot(1, 2, place)
        for number, other in enumerate(others):
            points: dict[float, list[float]] = {}
            for result in runs:
                if _without_share(result) == other:
                    score = result["evaluation"]["model"][kind]["all"][FIGURES[kind]]
                    points.setdefault(float(result["setting"]["data.share"]), []).append(score)
            shares = sorted(points)
            means = [float(np.mean(points[share])) for share in shares]
            spread = [float(np.std(points[share], ddof=1)) if len(points[share]) > 1 else 0.0 for share in shares]
            axis.errorbar(shares, means, spread, marker="o", capsize=3, color=f"C{number}", label=other)
        axis.set_xscale("log")
        axis.set_xlabel("share of the training cells")
        axis.set_ylabel(f"held-out {words}")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize="small")
    figure.suptitle("Held-out figures over corpus size (mean, standard deviation over seeds)")
    return figure


def _without_share(result: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in result["setting"].items() if key != "data.share"}
    return GridRun(rest, result["seed"]).label if rest else "model"
