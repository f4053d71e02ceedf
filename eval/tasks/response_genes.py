"""Responses to perturbed genes: every simple method on the same splits, genes and pairs held out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...inference.response.conditions import all_genes
from ...inference.response.effects import Effects
from ...inference.response.features import GeneFeatures, random_table, shuffled
from ...inference.response.splits import Split, split_by_gene
from ...tokenization.errors import InputError
from ..baselines.response import Known, gene_baselines
from ..metrics.response import clustered_interval, effect_scores, share_of_possible

Matrix = npt.NDArray[np.float64]
Arm = Callable[[Effects, Split, Sequence[tuple[str, ...]], int], Matrix]
CEILING = "half against half"
BEST = "learned additive"
SHOWN = ("rmse", "pearson", "pearson_reference", "discrimination", "mse_top", "direction_top")
NOTHING = 0.0005
LESS_IS_BETTER = frozenset({"rmse", "mae", "mse_top"})


@dataclass
class ResponseBenchmark:
    """Scores of every method on every condition that was held out.

    Parameters
    ----------
    conditions
        One row per data set, seed, group, method and condition: all scores. Intervals draw conditions, or where
        there is a column ``cluster`` its values.
    settings
        What was fixed beforehand.
    ours
        Methods that read a checkpoint.
    task
        Name in records.
    """

    conditions: pd.DataFrame
    settings: dict[str, Any] = field(default_factory=dict)
    ours: tuple[str, ...] = ()
    task: str = "response-genes"

    def table(self, metrics: Sequence[str] = SHOWN) -> pd.DataFrame:
        """Mean over conditions and seeds, with bootstrap intervals over conditions and the spread over seeds.

        Columns ``<metric>_mean``, ``_low``, ``_high``, ``_sd`` by data set, group and method; ``possible`` is the
        share of the way from the learned additive baseline to the ceiling, by Pearson; NaN where no ceiling is
        known, or its interval reaches down to the baseline.
        """
        rows = []
        metrics = [metric for metric in metrics if metric in self.conditions]
        drawn = self._drawn
        for (data, group, method), part in self.conditions.groupby(["data", "group", "method"], sort=False):
            row: dict[str, Any] = {"data": data, "group": group, "method": method, "seeds": part["seed"].nunique()}
            row["conditions"] = len(part) / row["seeds"]
            for metric in metrics:
                mean, low, high = clustered_interval(part[metric], part[drawn])
                per_seed = part.groupby("seed")[metric].mean()
                spread = float(per_seed.std(ddof=1)) if len(per_seed) > 1 else 0.0
                row |= {f"{metric}_mean": mean, f"{metric}_low": low, f"{metric}_high": high, f"{metric}_sd": spread}
            rows.append(row)
        table = pd.DataFrame(rows)
        table["possible"] = [self._possible(rows, row) for row in rows]
        return table

    def differences(
        self, pairs: Sequence[tuple[str, str]], metrics: Sequence[str] = ("rmse", "pearson", "discrimination")
    ) -> pd.DataFrame:
        """One method less another on the same conditions and seeds, with intervals over conditions.

        Parameters
        ----------
        pairs
            Method, and what it is compared with; pairs of which one is absent are left out.
        """
        rows = []
        drawn = self._drawn
        for (data, group), part in self.conditions.groupby(["data", "group"], sort=False):
            by = {
                name: one.set_index(["seed", "condition", *{drawn} - {"condition"}])
                for name, one in part.groupby("method", sort=False)
            }
            for one, other in pairs:
                if one not in by or other not in by:
                    continue
                for metric in metrics:
                    apart = (by[one][metric] - by[other][metric]).reset_index()
                    mean, low, high = clustered_interval(apart[metric], apart[drawn])
                    worse = high < 0 if metric not in LESS_IS_BETTER else low > 0
                    better = low > 0 if metric not in LESS_IS_BETTER else high < 0
                    # what is 0.000 in print is no difference, however narrow its interval
                    verdict = "tie" if abs(mean) < NOTHING else "better" if better else "worse" if worse else "tie"
                    rows.append({"data": data, "group": group, "method": one, "against": other, "metric": metric,
                                 "difference": mean, "low": low, "high": high, "verdict": verdict})  # fmt: skip
        return pd.DataFrame(rows)

    def record(self) -> dict[str, Any]:
        """Settings and scores as JSON, in the rows that model cards read."""
        rows = [
            {
                "dataset": f"{row['data']}, {row['group']}",
                "method": row["method"],
                "metric": metric,
                "mean": float(row[f"{metric}_mean"]),
                "std": float(row[f"{metric}_sd"]),
                "low": float(row[f"{metric}_low"]),
                "high": float(row[f"{metric}_high"]),
                "seeds": int(row["seeds"]),
                "ours": row["method"] in set(self.ours),
            }
            for row in self.table().to_dict("records")
            for metric in SHOWN
            if np.isfinite(row.get(f"{metric}_mean", np.nan))
        ]
        return {"task": self.task, "settings": self.settings, "rows": rows}

    @property
    def _drawn(self) -> str:
        """What a bootstrap draws: conditions, or where they hang together (a drug's doses) their clusters."""
        return "cluster" if "cluster" in self.conditions else "condition"

    @staticmethod
    def _possible(rows: list[dict[str, Any]], row: dict[str, Any]) -> float:
        """Only where the ceiling is surely above the baseline; a ratio of noise is no share."""
        here = {r["method"]: r for r in rows if r["data"] == row["data"] and r["group"] == row["group"]}
        if CEILING not in here or BEST not in here or row["method"] == CEILING:
            return float("nan")
        base, ceiling = here[BEST]["pearson_mean"], here[CEILING]
        if not ceiling["pearson_low"] > base:
            return float("nan")
        return share_of_possible(row["pearson_mean"], base, ceiling["pearson_mean"])


def benchmark_genes(
    effects: Effects,
    *,
    name: str = "data",
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    tables: Sequence[GeneFeatures] = (),
    arms: dict[str, Arm] | None = None,
    seen: float = 0.75,
    pairs: float = 0.75,
    ours: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> ResponseBenchmark:
    """Every baseline, and every arm that is given, on splits by gene.

    Parameters
    ----------
    effects
        From `read_effects`.
    name
        Of the data in tables.
    seeds
        One split each.
    tables
        Gene tables for ridges and neighbours; each gets a shuffled twin, and one random table joins them.
    arms
        Name to a function of effects, split, wanted conditions and seed: networks to fit. It may read the effects of
        `Split.known` only.
    seen, pairs
        See `split_by_gene`.
    ours
        Which methods read a checkpoint.
    progress
        Called with a few words before each seed.

    Raises
    ------
    InputError
        Too few conditions, or no seed.

    Examples
    --------
    >>> from genecompass.inference.response.effects import effects_of_table
    >>> delta = np.random.default_rng(0).normal(size=(12, 30))
    >>> effects = effects_of_table(delta, [f"g{i}" for i in range(30)], [f"p{i}" for i in range(12)])
    >>> "learned additive" in set(benchmark_genes(effects, seeds=(0,)).conditions["method"])
    True
    """
    if not seeds:
        raise InputError("no seed given; give at least one")
    perturbed = effects.conditions.genes
    names = all_genes(perturbed)
    targets = effects.targets()
    frames = []
    for seed in seeds:
        if progress is not None:
            progress(f"{name}: seed {seed}")
        split = split_by_gene(perturbed, seed=seed, seen=seen, pairs=pairs)
        known = Known(effects.delta[split.known], tuple(perturbed[i] for i in split.known), effects.genes)
        test = np.concatenate(list(split.test.values()))
        wanted = [perturbed[i] for i in test]
        own = [table for features in tables if len((table := features.restricted(names)).genes) > 1]
        twins = [shuffled(features, seed=seed) for features in own]
        predicted = gene_baselines(known, wanted, tables=[*own, *twins, random_table(names, seed=seed)], seed=seed)
        for arm, fit in (arms or {}).items():
            predicted[arm] = fit(effects, split, wanted, seed)
        reference = known.delta.mean(axis=0)
        place = {int(row): i for i, row in enumerate(test)}
        for group, rows in split.test.items():
            mine = [place[int(row)] for row in rows]
            for method, values in predicted.items():
                scores = _scores(effects, rows, values[mine], reference, targets)
                frames.append(_frame(name, seed, group, method, [effects.conditions.names[i] for i in rows], scores))
            frames += _ceiling(effects, rows, reference, targets, name, seed, group)
    settings = {
        "seeds": list(seeds), "conditions": len(perturbed), "measured_genes": len(effects.genes),
        "perturbed_genes": len(names), "seen": seen, "pairs": pairs,
        "coverage": {features.name: features.coverage(names) for features in tables},
    }  # fmt: skip
    return ResponseBenchmark(pd.concat(frames, ignore_index=True), settings, tuple(ours))


def _scores(
    effects: Effects, rows: npt.NDArray[np.int64], predicted: Matrix, reference: Matrix, targets: npt.NDArray[np.bool_]
) -> dict[str, Matrix]:
    top = None if effects.top is None else effects.top[rows]
    return effect_scores(effects.delta[rows], predicted, reference=reference, left_out=targets[rows], top=top)


def _frame(data: str, seed: int, group: str, method: str, names: Sequence[str], scores: dict[str, Matrix]) -> Any:
    keys = {"data": data, "seed": seed, "group": group, "method": method, "condition": list(names)}
    return pd.DataFrame({**keys, **scores})


def _ceiling(
    effects: Effects, rows: npt.NDArray[np.int64], reference: Matrix, targets: npt.NDArray[np.bool_],
    name: str, seed: int, group: str,
) -> list[pd.DataFrame]:  # fmt: skip
    """One half of the cells as the prediction of the other, where halves are known."""
    if effects.halves is None:
        return []
    one, other = effects.halves[0][rows], effects.halves[1][rows]
    known = np.isfinite(one).all(axis=1) & np.isfinite(other).all(axis=1)
    if known.sum() < 2:
        return []
    top = None if effects.top is None else effects.top[rows[known]]
    scores = effect_scores(other[known], one[known], reference=reference, left_out=targets[rows[known]], top=top)
    names = [effects.conditions.names[i] for i in rows[known]]
    return [_frame(name, seed, group, CEILING, names, scores)]


def as_text(benchmark: ResponseBenchmark, metrics: Sequence[str] = ("rmse", "pearson", "discrimination")) -> str:
    """The benchmark as a Markdown table: means with 95 % intervals over conditions."""
    head = "| data | group | conditions | method | " + " | ".join(metrics) + " | of the possible |"
    lines = [head, "| " + " | ".join(["---"] * (5 + len(metrics))) + " |"]
    for row in benchmark.table(tuple(dict.fromkeys((*SHOWN, *metrics)))).to_dict("records"):
        cells = [f"{row[f'{m}_mean']:.3f} [{row[f'{m}_low']:.3f}, {row[f'{m}_high']:.3f}]" for m in metrics]
        possible = f"{row['possible']:.2f}" if np.isfinite(row["possible"]) else ""
        lines.append(
            f"| {row['data']} | {row['group']} | {row['conditions']:.0f} | {row['method']} | "
            + " | ".join(cells)
            + f" | {possible} |"
        )
    return "\n".join(lines)


def differences_as_text(differences: pd.DataFrame) -> str:
    """Paired differences as a Markdown table; empty for none."""
    if differences.empty:
        return ""
    lines = ["| data | group | method | against | metric | difference | |", "| " + " | ".join(["---"] * 7) + " |"]
    for row in differences.to_dict("records"):
        lines.append(
            f"| {row['data']} | {row['group']} | {row['method']} | {row['against']} | {row['metric']} | "
            f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}] | {row['verdict']} |"
        )
    return "\n".join(lines)
