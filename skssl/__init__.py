"""Self-supervised learning for scikit-learn users."""

from ._classifier import SelfSupervisedClassifier
from ._encoder import SelfSupervisedEncoder
from ._labeling import suggest_to_label
from ._load import load
from ._model_selection import SemiSupervisedKFold, label_efficiency_curve
from ._networks.cnn import build_cnn
from ._runtime import clear_session
from .display import (
    EmbeddingDisplay,
    LabelEfficiencyDisplay,
    PredictionDisplay,
    PretextDisplay,
    TrainingCurveDisplay,
)
from .pretext import RotationPretext

__all__ = [
    "EmbeddingDisplay",
    "LabelEfficiencyDisplay",
    "PredictionDisplay",
    "PretextDisplay",
    "RotationPretext",
    "SelfSupervisedClassifier",
    "SelfSupervisedEncoder",
    "SemiSupervisedKFold",
    "TrainingCurveDisplay",
    "build_cnn",
    "clear_session",
    "label_efficiency_curve",
    "load",
    "suggest_to_label",
]
__version__ = "0.1.0"
