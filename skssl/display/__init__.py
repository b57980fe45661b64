"""Plots of images, predictions, embeddings, training and scores."""

from ._embedding import EmbeddingDisplay
from ._label_efficiency import LabelEfficiencyDisplay
from ._prediction import PredictionDisplay
from ._pretext import PretextDisplay
from ._training_curve import TrainingCurveDisplay

__all__ = [
    "EmbeddingDisplay",
    "LabelEfficiencyDisplay",
    "PredictionDisplay",
    "PretextDisplay",
    "TrainingCurveDisplay",
]
