"""Plots of images, predictions and training."""

from ._prediction import PredictionDisplay
from ._pretext import PretextDisplay
from ._training_curve import TrainingCurveDisplay

__all__ = ["PredictionDisplay", "PretextDisplay", "TrainingCurveDisplay"]
