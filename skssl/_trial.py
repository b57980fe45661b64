"""What can be known to be wrong before anything is trained.

Loss and metrics are computed once on a made-up batch of outputs, without the network:
so nothing is traced, and a fit becomes longer by a few milliseconds only. One private
name serves that: `_direction` of a metric, from which Keras takes what is better.
"""

import contextlib
import inspect
import re

import keras
import numpy as np
import tensorflow as tf

from ._runtime import seeded

COMPARED = ("loss", "loss_weights", "metrics", "weighted_metrics")


class _Outputs(keras.Model):
    """A model whose outputs are its inputs, to compute losses and metrics with."""

    def call(self, inputs):
        """Return the inputs."""
        return inputs


def try_settings(network, weighted):
    """Compute loss and metrics once on a made-up batch, and return their names.

    Nothing that belongs to the training is changed.

    Parameters
    ----------
    network : Network
        The network that is to be fine-tuned.
    weighted : bool
        Whether the rows have weights.

    Returns
    -------
    directions : dict of str to bool
        For each name in the history, whether Keras knows if it should rise or fall.

    Raises
    ------
    ValueError
        If loss or metrics cannot be computed, or are no single number.
    """
    n_units = network.classifier.output_shape[-1]
    n_rows = 4 if n_units == 3 else 3  # shapes that are equal by chance hide mistakes
    outputs = tf.fill((n_rows, n_units), 1 / max(2, n_units))
    outputs = tf.cast(outputs, network.classifier.output.dtype)
    targets = np.arange(n_rows) % 2 * (max(2, n_units) - 1)
    if network.one_hot:
        targets = np.eye(n_units)[targets]
    batch = targets, outputs, np.ones(n_rows, np.float32) if weighted else None
    settings = {name: network.compile_kwargs.get(name) for name in COMPARED}
    with _unchanged(settings), seeded(0):
        try:
            model, results = _computed(settings, *batch)
        except Exception as error:
            raise _unfit(settings, batch, error) from error
    _check_metrics(settings, results, batch)
    directions = {m.name: hasattr(m, "_direction") for m in _metrics_of(model)}
    directions["loss"] = True
    return {name: directions.get(name, False) for name in results}


def _computed(settings, targets, outputs, weight):
    """Return a model compiled with settings, and the results of one batch."""
    model = _Outputs()
    model.compile(optimizer=None, **settings)
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        loss = model.compute_loss(y=targets, y_pred=outputs, sample_weight=weight)
    if tape.gradient(loss, outputs) is None:
        raise ValueError("the loss has no gradient")
    return model, model.compute_metrics(None, targets, outputs, weight)


def _metrics_of(model):
    """Return the metrics that a model was compiled with, as objects."""
    return [m for x in model.metrics for m in getattr(x, "metrics", [x])]


@contextlib.contextmanager
def _unchanged(settings):
    """Leave the metrics that the user gave as instances in the state they are in."""
    given = [
        x for x in keras.tree.flatten(settings) if isinstance(x, keras.metrics.Metric)
    ]
    before = [[variable.numpy() for variable in x.variables] for x in given]
    try:
        yield
    finally:
        for metric, values in zip(given, before, strict=True):
            metric.reset_state()  # variables that came into being with the batch
            for variable, value in zip(metric.variables, values, strict=False):
                variable.assign(value)


def _unfit(settings, batch, error):
    """Return an error that says which of the settings cannot be computed, and why."""
    targets, outputs, _ = batch
    reason = str(error).strip().partition("\n")[0]
    # TensorFlow says in which of its operations it was.
    reason = re.sub(r"\{\{.*\}\} | \[Op:.*", "", reason)[:200].rstrip(". ")
    return ValueError(
        f"{_culprit(settings, batch)} of the estimator cannot be computed from targets "
        f"of shape {targets.shape} and outputs of shape {tuple(outputs.shape)}: "
        f"{reason}. {_remedy(targets, outputs)}"
    )


def _culprit(settings, batch):
    """Return the one setting that cannot be computed, as far as it is one."""
    loss = {**dict.fromkeys(COMPARED), "loss": settings["loss"]}
    alone = [loss, *({**loss, key: [x]} for key, x in _given_metrics(settings))]
    for one in alone:
        try:
            _computed(one, *batch)
        except Exception:
            key, value = next((k, v) for k, v in reversed(one.items()) if v is not None)
            return f"{key}={value!r}"
    return ", ".join(f"{k}={v!r}" for k, v in settings.items() if v is not None)


def _given_metrics(settings):
    """Return (name of the setting, metric) for each metric that is given."""
    return [
        (key, metric)
        for key in ("metrics", "weighted_metrics")
        for metric in keras.tree.flatten(settings[key])
        if metric is not None
    ]


def _remedy(targets, outputs):
    if targets.ndim == 2:
        return "The targets are one-hot, as the loss takes them: choose such metrics."
    if outputs.shape[-1] == 1:
        return "The targets are 0 and 1: choose a loss and metrics of two classes."
    return (
        "The targets are class indices, as the loss takes them. For one-hot targets "
        "set loss='categorical_crossentropy', or the attribute one_hot=True of an own "
        "loss."
    )


def _check_metrics(settings, results, batch):
    """Refuse metrics that give no single number, or compare what does not fit."""
    targets, outputs, _ = batch
    for name, value in results.items():
        shape = tuple(getattr(value, "shape", ()))
        if shape:
            raise ValueError(
                f"The metric {name!r} of the estimator must give one number, got an "
                f"array of shape {shape}. Choose one that averages, as by "
                "average='macro'."
            )
    if targets.ndim == 2 or outputs.shape[-1] == 1:
        return
    for key, metric in _given_metrics(settings):
        kind = metric if inspect.isfunction(metric) else type(metric)
        name = metric if isinstance(metric, str) else kind.__name__
        own = not isinstance(metric, str) and not kind.__module__.startswith("keras.")
        # Keras computes it without a complaint, and it means nothing.
        if not own and "categorical" in name.lower() and "sparse" not in name.lower():
            raise ValueError(
                f"{key}={[metric]!r} of the estimator compares with one-hot targets. "
                f"{_remedy(targets, outputs)} Or choose a metric that begins with "
                "'sparse_'."
            )
