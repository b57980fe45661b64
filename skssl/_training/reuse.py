"""Compiled networks that are traced once, and then train again and again.

Tracing a network takes Keras longer than training it on a few hundred images, and what
was traced is never freed. So a network trains as a copy, which is kept for the next one
of the same architecture and settings: its weights are exchanged, its graph stays.
"""

import contextlib
import functools
import inspect
import json

import joblib
import keras
import tensorflow as tf

from .._networks.copies import fresh_optimizer
from .._networks.graph import all_layers
from .._networks.identity import architecture
from .._runtime import LOCK, prepare_tensorflow, seeded

prepare_tensorflow()  # before the first operation runs

# So many copies, of so many weights, are kept: five numbers for each weight.
MAX_IDLE = 8
MAX_IDLE_WEIGHTS = 5_000_000

_idle = {}  # key: (compiled copy, initial values of its optimizer)


class BlockTrainer(keras.Model):
    """Model that trains on a block of batches in one call of TensorFlow.

    For small networks, a call and a batch of its own from the input cost more time than
    a step.

    Attributes
    ----------
    prepare : callable
        Turns (images, seed, *labels) of a batch into what the network is trained on.
    """

    prepare = None

    def make_train_function(self, force=False):
        """Make the function that Keras calls with an iterator over blocks."""
        if self.train_function is not None and not force:
            return
        # No AutoGraph: it would rewrite a task's code, and its errors.
        step = tf.function(
            self.train_step,
            jit_compile=self.jit_compile,
            reduce_retracing=True,
            autograph=False,
        )

        def train_block(iterator):
            images, seeds, bounds, *labels = iterator.get_next()

            def train_batch(i):
                batch = slice(bounds[i], bounds[i + 1])
                batch_labels = [label[batch] for label in labels]
                step(self.prepare(images[batch], seeds[i], *batch_labels))
                return [i + 1]

            tf.while_loop(lambda i: i < tf.shape(seeds)[0], train_batch, [0])
            return self.get_metrics_result()

        # TensorFlow warns of repeated tracing where functions have the same code. A
        # partial function counts as one of its own.
        self.train_function = tf.function(
            functools.partial(train_block), reduce_retracing=True, autograph=False
        )


class FusedAdam(keras.optimizers.Adam):
    """Adam of Keras, whose update is one operation of TensorFlow instead of many.

    Behind frozen layers these many are half the time of a step. Apart from rounding the
    result is the same.
    """

    def update_step(self, gradient, variable, learning_rate):
        """Update one variable."""
        index = self._get_variable_index(variable)
        if isinstance(variable, keras.Variable):
            variable = variable.value
        dtype = variable.dtype
        step = tf.cast(self.iterations + 1, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.cast(self.beta_1, dtype) ** step,
            beta2_power=tf.cast(self.beta_2, dtype) ** step,
            lr=tf.cast(learning_rate, dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(tf.convert_to_tensor(gradient), dtype),
        )


def _fused(optimizer, variables):
    """Return an optimizer that does the same in less time, or the given one."""
    if (
        type(optimizer) is keras.optimizers.Adam
        and not optimizer.amsgrad
        and all(variable.dtype == "float32" for variable in variables)
    ):
        return fresh_optimizer(optimizer, FusedAdam)
    return optimizer


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


def _is_own_function(value):
    return inspect.isfunction(value) and not value.__module__.startswith("keras.")


def _reusable_key(model, compile_kwargs, prepare):
    """Return what copies that may train in place of a model are kept by, or None."""
    task = getattr(prepare, "__self__", None)
    own = [prepare] if task is None else [prepare, type(task)]
    if not all(x.__module__.startswith("skssl.") for x in own):
        return None
    if model.count_params() > MAX_IDLE_WEIGHTS or tf.distribute.has_strategy():
        return None
    parts = [*all_layers(model), *keras.tree.flatten(list(compile_kwargs.values()))]
    if any(isinstance(x, keras.layers.Lambda) or _is_own_function(x) for x in parts):
        return None  # before Keras warns that a lambda is unsafe to save
    optimizer = compile_kwargs["optimizer"]
    try:
        if _number_as_rate(optimizer) is not None:  # a variable, which is assigned
            config = {**optimizer.get_config(), "learning_rate": 0.0}
            optimizer = type(optimizer).from_config(config)
        text = architecture(model, {**compile_kwargs, "optimizer": optimizer})
    except Exception:  # raised by an object of the user that cannot be put in words
        return None
    if not _is_of_keras(json.loads(text)):
        return None
    preparation = prepare.__qualname__, joblib.hash(task)
    return keras.config.dtype_policy().name, text, preparation


def _number_as_rate(optimizer):
    """Return the learning rate of an optimizer, if it is no schedule."""
    rate = optimizer.get_config().get("learning_rate")
    return rate if isinstance(rate, float) else None


def shell(model, compile_kwargs, prepare, plain=False):
    """Return a compiled model with the same layers, to train in place of a model.

    So the optimizer, as large as two networks, does not stay with that.

    Parameters
    ----------
    model : keras.Model
        A network that is not compiled.
    compile_kwargs : dict
        Arguments of `keras.Model.compile`.
    prepare : callable
        Turns (images, seed, *labels) of a batch into what the network is trained on.
    plain : bool, default=False
        Whether to return a plain model that trains on prepared batches, as happens
        under a distribution strategy and with ``run_eagerly=True``, too. Otherwise it
        is a BlockTrainer.
    """
    plain = plain or tf.distribute.has_strategy() or compile_kwargs.get("run_eagerly")
    kind = keras.Model if plain else BlockTrainer
    trained = kind(model.input, model.output, name=model.name)
    if not plain:
        trained.prepare = prepare
        optimizer = _fused(compile_kwargs["optimizer"], model.trainable_variables)
        replaced = {"optimizer": optimizer, "steps_per_execution": 1}
        compile_kwargs = {**compile_kwargs, **replaced}
    trained.compile(**compile_kwargs)
    trained.optimizer.build(trained.trainable_variables)
    return trained


@contextlib.contextmanager
def trainer(model, compile_kwargs, prepare, watched):
    """Lend a compiled network to train in place of a model, which gets its weights.

    A compiled model trains itself, and goes on with the optimizer it has.

    Parameters
    ----------
    model, compile_kwargs, prepare : keras.Model, dict, callable
        Where the training starts and what has its result; the others as in
        :func:`shell`.
    watched : bool
        Whether a user's code sees the network at work. Then it is a plain one, which
        can be saved, and no copy that serves again.
    """
    if model.compiled:
        yield model
        return
    key = None if watched else _reusable_key(model, compile_kwargs, prepare)
    if key is None:
        yield shell(model, compile_kwargs, prepare, plain=watched)
        return
    with LOCK:
        copy, initial = _idle.pop(key, (None, None))
    if copy is None:
        copy, initial = _copied(model, compile_kwargs, prepare)
    _assign(copy.optimizer.variables, initial)
    rate = _number_as_rate(compile_kwargs["optimizer"])
    if rate is not None:
        copy.optimizer.learning_rate = rate
    _assign(copy.variables, model.variables)
    yield copy
    _assign(model.variables, copy.variables)
    with LOCK:
        _idle[key] = copy, initial
        while len(_idle) > MAX_IDLE:
            _idle.pop(next(iter(_idle)))


def _copied(model, compile_kwargs, prepare):
    with seeded(0):  # no seed that it draws is kept
        copy = shell(_live_copy(model), compile_kwargs, prepare)
    return copy, [variable.numpy() for variable in copy.optimizer.variables]


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
