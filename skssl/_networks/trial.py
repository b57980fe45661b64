"""Checks of loss, metrics and callbacks before anything is trained.

Loss and metrics are computed once on a made-up batch of outputs, without the network:
so nothing is traced, and a fit becomes longer by a few milliseconds only.
"""

import inspect
import re

import keras
import numpy as np
import tensorflow as tf

from .._runtime import seeded
from .copies import fresh_metric
from .packing import is_of_keras

COMPARED = ("loss", "loss_weights", "metrics", "weighted_metrics")
ONE_HOT_REMEDY = (
    "For one-hot targets set loss='categorical_crossentropy', or the attribute "
    "one_hot=True of an own loss."
)
LOWERING = keras.callbacks.ReduceLROnPlateau
SCHEDULING = keras.callbacks.LearningRateScheduler | LOWERING
MONITORING = keras.callbacks.EarlyStopping | keras.callbacks.ModelCheckpoint | LOWERING


def try_settings(network, weighted):
    """Compute loss and metrics of a network once, and return their names.

    Nothing that belongs to the training is changed. Where they cannot be computed, or
    are no single number, a ValueError says so.
    """
    output = network.training_model.output
    n_units = output.shape[-1]
    n_rows = 4 if n_units == 3 else 3  # not n_units, so that no shapes agree by chance
    outputs = tf.cast(tf.fill((n_rows, n_units), 1 / max(2, n_units)), output.dtype)
    targets = np.arange(n_rows) % 2 * (max(2, n_units) - 1)
    if network.one_hot:
        targets = np.eye(n_units, dtype=keras.config.floatx())[targets]
    weight = np.ones(n_rows, np.float32) if weighted else None
    given = {k: v for k in COMPARED if (v := network.compile_kwargs.get(k)) is not None}
    try:
        with seeded(0):
            model = keras.Model()
            copies = keras.tree.map_structure(fresh_metric, given)
            model.compile(optimizer=None, **copies)
            with tf.GradientTape() as tape:
                tape.watch(outputs)
                loss = model.compute_loss(None, targets, outputs, weight)
            if tape.gradient(loss, outputs) is None:
                raise ValueError("the loss has no gradient")
            results = model.compute_metrics(None, targets, outputs, weight)
    except Exception as error:
        raise _not_computable(given, targets, outputs, error) from error
    for name, value in results.items():
        if shape := tuple(getattr(value, "shape", ())):
            raise ValueError(
                f"The metric {name!r} of the estimator must give one number, got an "
                f"array of shape {shape}. Choose one that averages, as by "
                "average='macro'."
            )
    if targets.ndim == 1 and n_units > 1:
        _check_metrics_of_indices([given.get("metrics"), given.get("weighted_metrics")])
    return list(results)


def _not_computable(given, targets, outputs, error):
    """Return an error that says which settings cannot be computed, and why."""
    # TensorFlow says in which of its operations it was.
    why = re.sub(r"\{\{.*\}\} | \[Op:.*", "", str(error).strip().split("\n")[0])
    kind, remedy = "class indices", ONE_HOT_REMEDY
    if targets.ndim == 2:
        kind, remedy = "one-hot", "Choose metrics that take one-hot targets."
    elif outputs.shape[-1] == 1:
        kind, remedy = "0 and 1", "Choose a loss and metrics of two classes."
    return ValueError(
        f"{', '.join(f'{k}={v!r}' for k, v in given.items())} of the estimator cannot "
        f"be computed from targets of shape {targets.shape} and outputs of shape "
        f"{tuple(outputs.shape)}: {why[:200]}. The targets are {kind}, as the loss "
        f"takes them. {remedy}"
    )


def _check_metrics_of_indices(metrics):
    """Refuse metrics that give a wrong value for class indices without an error."""
    for metric in filter(None, keras.tree.flatten(metrics)):
        kind = metric if inspect.isfunction(metric) else type(metric)
        name = metric if isinstance(metric, str) else kind.__name__
        of_keras = isinstance(metric, str) or is_of_keras(kind)
        if of_keras and "categorical" in name.lower() and "sparse" not in name.lower():
            raise ValueError(
                f"The metric {name} of the estimator compares with one-hot targets, "
                "but the targets are class indices, as the loss takes them. Choose a "
                f"metric that begins with 'sparse_'. {ONE_HOT_REMEDY}"
            )


def check_monitors(callbacks, names, validated):
    """Refuse callbacks of Keras that monitor a metric which is not measured.

    The names are those of :func:`try_settings`, `validated` is whether there are
    validation data.
    """
    known = {*names, *(f"val_{name}" for name in names if validated)}
    if any(isinstance(x, SCHEDULING) for x in callbacks):
        known.add("learning_rate")
    # Code of the user may add metrics of its own to the history.
    may_add = not all(is_of_keras(type(x)) for x in callbacks)
    for callback in callbacks:
        saves_all = not getattr(callback, "save_best_only", True)
        if saves_all or not isinstance(callback, MONITORING):
            continue
        name = callback.monitor
        if name in known or (may_add and name.removeprefix("val_") not in names):
            continue
        remedy = "Correct monitor=, or add to metrics."
        if name.startswith("val_") and not validated:
            remedy = "Give validation_split or fit__validation_data."
        raise ValueError(
            f"{type(callback).__name__} monitors {name!r}, but the metrics are "
            f"{sorted(known)}. {remedy}"
        )
