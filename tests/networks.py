"""Classifiers and networks that several tests use, and comparisons of weights."""

import keras
import numpy as np
from numpy.testing import assert_array_equal

from skssl import SelfSupervisedClassifier


def two_stages(*args, **params):
    """Return a classifier that pretrains and fine-tunes, and does nothing else."""
    recipe = {"augmentation": None, "self_training": None}
    if "encoder" not in params:
        recipe["pretrain_epochs"] = 5
    return SelfSupervisedClassifier(*args, **{**recipe, **params})


def weights_of(model):
    """Return copies of all weights."""
    return [weight.copy() for weight in model.get_weights()]


def flat_weights(model):
    """Return all weights as one array."""
    return np.concatenate([weight.ravel() for weight in model.get_weights()])


def assert_same_weights(model, expected):
    """Check that weights are, bit for bit, those of a model or of a list."""
    if isinstance(expected, keras.Model):
        expected = expected.get_weights()
    for weight, other in zip(model.get_weights(), expected, strict=True):
        assert_array_equal(weight, other)


class Undescribed(keras.layers.Layer):
    """Applies a function, about which its configuration says nothing."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, inputs):
        """Apply the function."""
        return self.function(inputs)
