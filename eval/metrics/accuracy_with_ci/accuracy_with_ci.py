"""`evaluate` module: share of cells whose label is right, with a bootstrap interval."""

from typing import Any

import datasets
import evaluate
from genecompass.eval.metrics import accuracy, bootstrap_interval


class AccuracyWithInterval(evaluate.Metric):
    """Share of cells whose label is right.

    ``compute(predictions=..., references=..., resamples=1000, level=0.95, seed=0)`` returns
    ``accuracy`` and the ends of its interval, ``accuracy_low`` and ``accuracy_high``.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Share of cells whose label is right.",
            citation="",
            inputs_description="predictions and references, one each a cell",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(
        self, predictions: list[Any], references: list[Any], resamples: int = 1000, level: float = 0.95, seed: int = 0
    ) -> dict[str, float]:
        interval = bootstrap_interval(accuracy, references, predictions, resamples=resamples, level=level, seed=seed)
        return {"accuracy": interval.value, "accuracy_low": interval.low, "accuracy_high": interval.high}
