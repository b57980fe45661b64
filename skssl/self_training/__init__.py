"""Strategies that learn on from images without a label."""

from ._base import Learner, SelfTraining, as_strategies
from ._fixmatch import FixMatch
from ._spreading import LabelSpread

__all__ = ["FixMatch", "LabelSpread", "Learner", "SelfTraining", "as_strategies"]
