"""`evaluate` module: area under the ROC curve of scores, with a bootstrap interval."""

from typing import Any

import datasets
import evaluate
from genecompass.eval.metrics import auroc, bootstrap_interval


class AurocWithInterval(evaluate.Metric):
    """Area under the ROC curve of scores.

    ``compute(predictions=..., references=..., resamples=1000, level=0.95, seed=0)`` returns
    ``auroc`` and the ends of its interval, ``auroc_low`` and ``auroc_high``.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Area under the ROC curve of scores.",
            citation="",
            inputs_description="predictions and references, one each a gene",
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(
        self, predictions: list[Any], references: list[Any], resamples: int = 1000, level: float = 0.95, seed: int = 0
    ) -> dict[str, float]:
        interval = bootstrap_interval(auroc, references, predictions, resamples=resamples, level=level, seed=seed)
        return {"auroc": interval.value, "auroc_low": interval.low, "auroc_high": interval.high}
