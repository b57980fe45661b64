"""Strategies that learn on from images without a label."""

from ._auto import as_strategies
from ._base import Learner, SelfTraining
from ._fixmatch import FixMatch
from ._spreading import LabelSpread

__all__ = ["FixMatch", "LabelSpread", "Learner", "SelfTraining", "as_strategies"]
