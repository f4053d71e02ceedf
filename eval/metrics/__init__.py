"""Metrics as plain functions; a folder beside them for each thin `evaluate` module, loadable offline.

``evaluate.load("eval/metrics/macro_f1_with_ci")`` gives the same numbers as the functions here.
"""

from .calibration import expected_calibration_error, fit_temperature
from .classification import accuracy, confusion_table, macro_f1, per_class_table, weighted_f1
from .embedding import neighbour_agreement, scib_scores
from .intervals import Interval, bootstrap_interval
from .ranking import auprc, auroc

__all__ = [
    "Interval",
    "accuracy",
    "auprc",
    "auroc",
    "bootstrap_interval",
    "confusion_table",
    "expected_calibration_error",
    "fit_temperature",
    "macro_f1",
    "neighbour_agreement",
    "per_class_table",
    "scib_scores",
    "weighted_f1",
]
