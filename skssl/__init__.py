"""Self-supervised learning for scikit-learn users."""

from ._classifier import SelfSupervisedClassifier
from ._encoder import SelfSupervisedEncoder
from ._labeling import suggest_to_label
from ._load import load
from ._model_selection import SemiSupervisedKFold
from ._networks.cnn import build_cnn
from ._runtime import clear_session
from .display import (
    EmbeddingDisplay,
    PredictionDisplay,
    PretextDisplay,
    TrainingCurveDisplay,
)
from .pretext import RotationPretext

__all__ = [
    "EmbeddingDisplay",
    "PredictionDisplay",
    "PretextDisplay",
    "RotationPretext",
    "SelfSupervisedClassifier",
    "SelfSupervisedEncoder",
    "SemiSupervisedKFold",
    "TrainingCurveDisplay",
    "build_cnn",
    "clear_session",
    "load",
    "suggest_to_label",
]
__version__ = "0.1.0"
