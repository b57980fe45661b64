"""What the parameter `self_training` stands for."""

from ._base import SelfTraining
from ._fixmatch import FixMatch
from ._spreading import LabelSpread


def as_strategies(self_training):
    """Return the parameter `self_training` as a list of strategies, checked."""
    if self_training is None:
        return []
    if isinstance(self_training, str) and self_training == "auto":
        return [LabelSpread(), FixMatch()]
    strategies = (
        self_training if isinstance(self_training, list | tuple) else [self_training]
    )
    for strategy in strategies:
        if not isinstance(strategy, SelfTraining):
            raise TypeError(
                "self_training must be 'auto', None, a strategy of skssl.self_training "
                f"or a list of them, got {strategy!r}."
            )
    return [strategy.check() for strategy in strategies]
