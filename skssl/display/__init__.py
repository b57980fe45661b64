"""Plots of images, predictions, embeddings and training."""

from ._embedding import EmbeddingDisplay
from ._prediction import PredictionDisplay
from ._pretext import PretextDisplay
from ._training_curve import TrainingCurveDisplay

__all__ = [
    "EmbeddingDisplay",
    "PredictionDisplay",
    "PretextDisplay",
    "TrainingCurveDisplay",
]
