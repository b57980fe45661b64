"""Pretext tasks: what a network learns from images without labels."""

from ._base import PretextTask
from ._rotation import RotationPretext
from ._views import GivenViews, ViewClassification

__all__ = ["GivenViews", "PretextTask", "RotationPretext", "ViewClassification"]

# By name, the tasks whose parameters are all that a saved estimator needs of them.
SAVABLE_TASKS = {task.__name__: task for task in (GivenViews, RotationPretext)}
