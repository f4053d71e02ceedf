"""`evaluate` module: average precision of scores, with a bootstrap interval."""

from typing import Any

import datasets
import evaluate
from genecompass.eval.metrics import auprc, bootstrap_interval


class AuprcWithInterval(evaluate.Metric):
    """Average precision of scores.

    ``compute(predictions=..., references=..., resamples=1000, level=0.95, seed=0)`` returns
    ``auprc`` and the ends of its interval, ``auprc_low`` and ``auprc_high``.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Average precision of scores.",
            citation="",
            inputs_description="predictions and references, one each a gene",
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(
        self, predictions: list[Any], references: list[Any], resamples: int = 1000, level: float = 0.95, seed: int = 0
    ) -> dict[str, float]:
        interval = bootstrap_interval(auprc, references, predictions, resamples=resamples, level=level, seed=seed)
        return {"auprc": interval.value, "auprc_low": interval.low, "auprc_high": interval.high}
