"""Compiled copies of networks, which are traced once and train again and again.

Keras takes longer to trace a network than to train it on a few hundred images, and what
was traced is never freed. So a network trains as a copy, which is kept for the next
training of the same architecture and settings: the copy gets the weights of the network
and gives them back. The copies are in `_runtime`, so that they can be deleted without
TensorFlow.
"""

import contextlib
import functools
import json

import keras
import tensorflow as tf

from .._networks.copies import fresh_optimizer
from .._networks.graph import all_layers
from .._networks.identity import architecture, identity
from .._networks.training_copies import training_copy
from .._runtime import LOCK, kept_copies, seeded
from .batches import MAX_BLOCK_STEPS
from .distribution import DistributedTrainer

# What is kept at most, of all copies together.
MAX_COPIES = 8
MAX_BYTES = 2**28
# Where classes come from that their names identify.
KNOWN = "keras.", "skssl."


class BlockTrainer(keras.Model):
    """Model that trains on a block of batches in one call of TensorFlow.

    For a small network, a call of TensorFlow and a batch of tf.data each cost more time
    than a step. With `steps_per_execution` of Keras, a fit behind frozen layers takes
    1.5 times as long.

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
            images, seeds, bounds, _, *labels = iterator.get_next()

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

    Behind frozen layers these many are a third of the time of a fit. Apart from
    rounding the result is the same.
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


def compiled(model, compile_kwargs, prepare=None):
    """Return a compiled model with the same layers.

    The given model stays uncompiled, so that it does not hold the optimizer, which is
    twice its size.

    Parameters
    ----------
    model, compile_kwargs : keras.Model, dict
        A network that is not compiled, and arguments of `keras.Model.compile`.
    prepare : callable, default=None
        Turns (images, seed, *labels) of a batch into what the network is trained on.
        Without it the result is no BlockTrainer but a `keras.Model` that trains on
        prepared batches, as with ``run_eagerly=True``. Under a distribution strategy
        it is a DistributedTrainer.
    """
    if tf.distribute.has_strategy():
        if compile_kwargs.get("jit_compile") is True:
            raise ValueError(
                "jit_compile=True cannot be used under a strategy of tf.distribute: "
                "replicas exchange gradients within a step. Leave it out."
            )
        trained = DistributedTrainer(model.input, model.output, name=model.name)
        if prepare is not None:
            trained.n_steps = MAX_BLOCK_STEPS
        compile_kwargs = {**compile_kwargs, "steps_per_execution": 1}
    elif prepare is None or compile_kwargs.get("run_eagerly"):
        trained = keras.Model(model.input, model.output, name=model.name)
    else:
        trained = BlockTrainer(model.input, model.output, name=model.name)
        trained.prepare = prepare
        optimizer = _fused(compile_kwargs["optimizer"], model.trainable_variables)
        faster = {"optimizer": optimizer, "steps_per_execution": 1}
        compile_kwargs = {**compile_kwargs, **faster}
    trained.compile(**compile_kwargs)
    if not tf.distribute.has_strategy():
        _leave_gradients(trained.optimizer)
    trained.optimizer.build(trained.trainable_variables)
    return trained


def _leave_gradients(optimizer):
    """Keep an optimizer from summing gradients over the only replica.

    For such a sum TensorFlow registers a gradient of its own, for good. It holds the
    graph of the step, and so network and optimizer: each fit that traces its step would
    leave their memory behind, as one of Keras does (Keras 3.15, TensorFlow 2.21).
    """
    while optimizer is not None:
        optimizer._all_reduce_sum_gradients = list
        optimizer = getattr(optimizer, "inner_optimizer", None)  # of a loss scale


@contextlib.contextmanager
def compiled_copy(model, compile_kwargs, prepare, needs_plain_steps=False):
    """Give a compiled network to train in place of a model, which gets its weights.

    A compiled model trains itself, and goes on with the optimizer it has.

    Parameters
    ----------
    model, compile_kwargs, prepare : keras.Model, dict, callable
        Where the training starts and what has its result; the others as in
        :func:`compiled`.
    needs_plain_steps : bool, default=False
        Whether code of the user's sees the network at work. Then it is a plain
        `keras.Model`, and no copy.
    """
    if model.compiled:
        yield model
        return
    key = None if needs_plain_steps else _key(model, compile_kwargs, prepare)
    if key is None:
        yield compiled(model, compile_kwargs, None if needs_plain_steps else prepare)
        return
    is_kept = not tf.distribute.has_strategy()
    copy = initial = None
    if is_kept:
        with LOCK:
            copy, initial = kept_copies.pop(key, (None, None))
    if copy is None:
        with seeded(0):  # no seed that it draws is kept
            copy = compiled(training_copy(model), compile_kwargs, prepare)
        initial = [variable.numpy() for variable in copy.optimizer.variables]
    assign(copy.optimizer.variables, initial)
    rate = _number_as_rate(compile_kwargs["optimizer"])
    if rate is not None:
        copy.optimizer.learning_rate = rate
    assign(copy.variables, model.variables)
    yield copy
    assign(model.variables, copy.variables)
    if is_kept:
        _keep(key, copy, initial)


def _keep(key, copy, initial):
    """Keep a copy for the next training, and delete the oldest beyond the limits."""
    with LOCK:
        kept_copies[key] = copy, initial
        while (
            len(kept_copies) > MAX_COPIES
            or sum(_n_bytes(kept) for kept, _ in kept_copies.values()) > MAX_BYTES
        ):
            kept_copies.pop(next(iter(kept_copies)))


def _n_bytes(model):
    """Return about how many bytes a copy takes.

    They are those of the weights, of two moments of each and of the initial moments.
    """
    return 5 * 4 * model.count_params()


def _key(model, compile_kwargs, prepare):
    """Return what copies that may train in place of a model are kept by, or None.

    Only where all of a network is from Keras its text says all: two classes of the
    user may have the same name. A pretext task of the user's may have a state.
    """
    owner = getattr(prepare, "__self__", None)
    code = getattr(prepare, "func", prepare) if owner is None else type(owner)
    if not code.__module__.startswith("skssl."):
        return None
    if owner is not None:
        if not _is_plain(owner):
            return None
        # They follow from the task, which is identified with what it prepares.
        compile_kwargs = {**compile_kwargs, "loss": None, "metrics": None}
    parts = [*all_layers(model), *keras.tree.flatten(list(compile_kwargs.values()))]
    parts += keras.tree.flatten(list(getattr(prepare, "args", ())))
    if _n_bytes(model) > MAX_BYTES:
        return None
    if not all(map(_is_of_keras, parts)):
        return None
    optimizer = compile_kwargs["optimizer"]
    try:
        if _number_as_rate(optimizer) is not None:  # a variable, which is assigned
            config = {**optimizer.get_config(), "learning_rate": 0.0}
            optimizer = type(optimizer).from_config(config)
        text = architecture(model, {**compile_kwargs, "optimizer": optimizer})
        preparation = identity(prepare)
    except Exception:  # raised by an object of the user that cannot be put in words
        return None
    if not _names_keras_alone(json.loads(text)):
        return None
    return keras.config.dtype_policy().name, text, preparation


def _is_plain(task):
    """Whether a task, with all that it consists of, is of skssl and plain values."""
    values = keras.tree.flatten(list(task.get_params().values()))
    return not any(map(callable, values)) and all(
        type(value).__module__.startswith("skssl.")
        for value in values
        if hasattr(value, "get_params")
    )


def _is_of_keras(thing):
    """Whether a layer or a setting is from Keras or skssl, or no code at all."""
    if isinstance(thing, keras.layers.Lambda):
        return False  # before Keras warns that a lambda is unsafe to save
    return not callable(thing) or f"{thing.__module__}.".startswith(KNOWN)


def _names_keras_alone(node):
    """Whether a part of an architecture names only classes of Keras and skssl."""
    if isinstance(node, list):
        return all(map(_names_keras_alone, node))
    if not isinstance(node, dict):
        return True
    name, module = node.get("class_name"), node.get("module") or ""
    values = None, "__keras_tensor__", "__slice__"
    known = name in values or f"{module}.".startswith(KNOWN)
    return known and all(map(_names_keras_alone, node.values()))


def _number_as_rate(optimizer):
    """Return the learning rate of an optimizer, if it is no schedule."""
    rate = optimizer.get_config().get("learning_rate")
    return rate if isinstance(rate, float) else None


def assign(variables, values):
    """Give variables their values."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


@contextlib.contextmanager
def restored_on_failure(model):
    """Put a model back to where it was if training fails."""
    variables = list(model.variables)
    if model.compiled:
        variables += model.optimizer.variables
    before = [variable.numpy() for variable in variables]
    try:
        yield
    except BaseException:
        assign(variables, before)
        raise
