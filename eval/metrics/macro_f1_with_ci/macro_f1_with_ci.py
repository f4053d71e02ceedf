"""`evaluate` module: macro-F1 over the labels in the references, with a bootstrap interval."""

from typing import Any

import datasets
import evaluate
from genecompass.eval.metrics import bootstrap_interval, macro_f1


class MacroF1WithInterval(evaluate.Metric):
    """Macro-F1 over the labels in the references; other predictions count as errors.

    ``compute(predictions=..., references=..., resamples=1000, level=0.95, seed=0)`` returns
    ``macro_f1`` and the ends of its interval, ``macro_f1_low`` and ``macro_f1_high``.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Macro-F1 over the labels in the references; other predictions count as errors.",
            citation="",
            inputs_description="predictions and references, one each a cell",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(
        self, predictions: list[Any], references: list[Any], resamples: int = 1000, level: float = 0.95, seed: int = 0
    ) -> dict[str, float]:
        interval = bootstrap_interval(macro_f1, references, predictions, resamples=resamples, level=level, seed=seed)
        return {"macro_f1": interval.value, "macro_f1_low": interval.low, "macro_f1_high": interval.high}
