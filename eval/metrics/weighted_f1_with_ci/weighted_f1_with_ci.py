"""`evaluate` module: F1 over the labels present in the references, weighted by cells, with a bootstrap interval."""

from typing import Any

import datasets
import evaluate
from genecompass.eval.metrics import bootstrap_interval, weighted_f1


class WeightedF1WithInterval(evaluate.Metric):
    """F1 over the labels present in the references, weighted by cells.

    ``compute(predictions=..., references=..., resamples=1000, level=0.95, seed=0)`` returns
    ``weighted_f1`` and the ends of its interval, ``weighted_f1_low`` and ``weighted_f1_high``.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="F1 over the labels present in the references, weighted by cells.",
            citation="",
            inputs_description="predictions and references, one each a cell",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(
        self, predictions: list[Any], references: list[Any], resamples: int = 1000, level: float = 0.95, seed: int = 0
    ) -> dict[str, float]:
        interval = bootstrap_interval(weighted_f1, references, predictions, resamples=resamples, level=level, seed=seed)
        return {"weighted_f1": interval.value, "weighted_f1_low": interval.low, "weighted_f1_high": interval.high}
