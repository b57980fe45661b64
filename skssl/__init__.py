"""Self-supervised learning for scikit-learn users."""

from ._classifier import SelfSupervisedClassifier
from ._conformity import check_pretext_task
from ._encoder import SelfSupervisedEncoder
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
from .pretext import (
    BarlowTwinsPretext,
    CombinedPretext,
    JigsawPretext,
    MaskedPretext,
    RotationPretext,
    SimCLRPretext,
)

__all__ = [
    "BarlowTwinsPretext",
    "CombinedPretext",
    "EmbeddingDisplay",
    "JigsawPretext",
    "MaskedPretext",
    "PredictionDisplay",
    "PretextDisplay",
    "RotationPretext",
    "SelfSupervisedClassifier",
    "SelfSupervisedEncoder",
    "SemiSupervisedKFold",
    "SimCLRPretext",
    "TrainingCurveDisplay",
    "build_cnn",
    "check_pretext_task",
    "clear_session",
    "load",
]
__version__ = "0.1.0"
