"""Compiled networks that are traced once, and then train again and again.

Tracing a network takes Keras longer than training it on a few hundred images, and what
was traced is never freed. So a network trains as a copy, which is kept for the next one
of the same architecture and settings: its weights are exchanged, its graph stays.
"""

import contextlib
import itertools
import json
import random
import re
from collections import defaultdict

import keras
import numpy as np
import tensorflow as tf

# So many copies, of so many weights, are kept: five numbers for each weight.
MAX_IDLE = 8
MAX_IDLE_WEIGHTS = 5_000_000

_idle = {}  # key: (compiled copy, initial values of its optimizer)


class LiveNormalization(keras.layers.Normalization):
    """Normalization by the statistics it has, not by those it was traced with."""

    def call(self, inputs):
        """Standardise the inputs."""
        self.finalize_state()
        return super().call(inputs)


def _live_copy(layer):
    if isinstance(layer, keras.Model):
        return keras.models.clone_model(layer, clone_function=_live_copy)
    if type(layer) is keras.layers.Normalization and layer.weights:
        return LiveNormalization.from_config(layer.get_config())
    return layer.__class__.from_config(layer.get_config())


def architecture(model, compile_kwargs):
    """Return a network and its settings as text, equal for equal networks."""
    settings = {
        key: keras.saving.serialize_keras_object(value)
        for key, value in compile_kwargs.items()
    }
    config = [json.loads(model.to_json()), settings]
    text = json.dumps(config, sort_keys=True, default=str)
    # scikeras registers Keras's own classes once it has pickled a model.
    text = text.replace('"registered_name": ">', '"registered_name": "')
    # Keras numbers its objects through the whole process: number them from here on.
    numbers = defaultdict(itertools.count)
    for name in dict.fromkeys(re.findall(r'"name": "([^"]+)"', text)):
        base = re.sub(r"_\d+$", "", name)
        text = text.replace(f'"{name}"', f'"{base}#{next(numbers[base])}"')
    return text


def _is_of_keras(node):
    """Whether a part of an architecture names nothing but classes of Keras.

    Only then the text says all: two classes of the user may have the same name.
    """
    if isinstance(node, list):
        return all(map(_is_of_keras, node))
    if not isinstance(node, dict):
        return True
    name, module = node.get("class_name"), node.get("module") or ""
    known = name in (None, "__keras_tensor__") or (
        name != "Lambda" and f"{module}.".startswith("keras.")
    )
    return known and all(map(_is_of_keras, node.values()))


def _reusable_key(model, compile_kwargs):
    """Return what copies that may train in place of a model are kept by, or None."""
    if model.count_params() > MAX_IDLE_WEIGHTS or tf.distribute.has_strategy():
        return None
    try:
        text = architecture(model, compile_kwargs)
    except Exception:  # raised by an object of the user that cannot be put in words
        return None
    if not _is_of_keras(json.loads(text)):
        return None
    return keras.config.dtype_policy().name, text


@contextlib.contextmanager
def seeded(seed):
    """Draw Keras's default seeds from `seed`; the caller's generators stay untouched.

    Layers and initializers without a seed of their own take one from `random`.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


@contextlib.contextmanager
def trainer(model, compile_kwargs, reuse):
    """Lend a compiled network to train in place of a model, which gets its weights.

    A compiled model trains itself, and goes on with the optimizer it has.

    Parameters
    ----------
    model : keras.Model
        Where the training starts, and what has its result.
    compile_kwargs : dict
        Arguments of `keras.Model.compile`.
    reuse : bool
        Whether a copy may train in its place, for lack of a user's code that sees it.
    """
    if model.compiled:
        yield model
        return
    key = _reusable_key(model, compile_kwargs) if reuse else None
    if key is None:
        # A shell with the same layers: the optimizer, as large as two networks, is not
        # to stay with the model.
        shell = keras.Model(model.input, model.output, name=model.name)
        shell.compile(**compile_kwargs)
        shell.optimizer.build(shell.trainable_variables)
        yield shell
        return
    copy, initial = _idle.pop(key, None) or _compiled_copy(model, compile_kwargs)
    _assign(copy.optimizer.variables, initial)
    _assign(copy.variables, model.variables)
    yield copy
    _assign(model.variables, copy.variables)
    _idle[key] = copy, initial
    while len(_idle) > MAX_IDLE:
        _idle.pop(next(iter(_idle)), None)


def _compiled_copy(model, compile_kwargs):
    with seeded(0):  # no seed that it draws is kept
        copy = _live_copy(model)
    copy.compile(**compile_kwargs)
    copy.optimizer.build(copy.trainable_variables)
    return copy, [np.array(variable) for variable in copy.optimizer.variables]


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
