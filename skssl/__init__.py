"""Self-supervised learning for scikit-learn users."""

from ._classifier import SelfSupervisedClassifier
from ._conformity import check_pretext_task
from ._data.source import LazyImages
from ._encoder import SelfSupervisedEncoder
from ._image_files import load_image_files
from ._image_reader import ImageReader
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
    "ImageReader",
    "JigsawPretext",
    "LabelEfficiencyDisplay",
    "LazyImages",
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
    "label_efficiency_curve",
    "load",
    "load_image_files",
    "suggest_to_label",
]
__version__ = "0.1.0"
