"""Pretext tasks: what a network learns from images without labels."""

from ._barlow_twins import BarlowTwinsPretext
from ._base import PretextTask
from ._combined import CombinedPretext
from ._jigsaw import JigsawPretext
from ._masked import MaskedPretext
from ._rotation import RotationPretext
from ._simclr import SimCLRPretext
from ._views import GivenViews, ViewClassification

__all__ = [
    "BarlowTwinsPretext",
    "CombinedPretext",
    "GivenViews",
    "JigsawPretext",
    "MaskedPretext",
    "PretextTask",
    "RotationPretext",
    "SimCLRPretext",
    "ViewClassification",
]
