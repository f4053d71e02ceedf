"""`evaluate` module: expected calibration error of predicted labels and their confidences."""

import datasets
import evaluate
from genecompass.eval.metrics import expected_calibration_error


class CalibrationError(evaluate.Metric):
    """Mean gap between confidence and accuracy.

    ``compute(predictions=labels, references=labels, confidences=probabilities, bins=15)``.
    """

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description="Expected calibration error over equally wide bins of confidence.",
            citation="",
            inputs_description="predicted labels, true labels, and the probability of each predicted label",
            features=datasets.Features(
                {"predictions": text, "references": text, "confidences": datasets.Value("float64")}
            ),
        )

    def _compute(
        self, predictions: list[str], references: list[str], confidences: list[float], bins: int = 15
    ) -> dict[str, float]:
        return {"calibration_error": expected_calibration_error(references, predictions, confidences, bins=bins)}
