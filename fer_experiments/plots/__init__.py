"""Figures of one result or one sweep: pure functions that return a `matplotlib.figure.Figure`.

Matplotlib's object interface only: no pyplot, no global state, safe in any thread.
"""

from fer_experiments.plots.evaluation import calibration_curve, emotion_errors, precision_recall_curve
from fer_experiments.plots.result import confusion_matrix, face_sheet, learning_curves, roc_curve
from fer_experiments.plots.sweep import importances, objective_over_trials, parallel_coordinates

__all__ = [
    "calibration_curve",
    "confusion_matrix",
    "emotion_errors",
    "face_sheet",
    "importances",
    "learning_curves",
    "objective_over_trials",
    "parallel_coordinates",
    "precision_recall_curve",
    "roc_curve",
]
