"""Copies of what the user gives, whose classes Keras need not know.

Keras copies by a configuration and the name of a class, which fails for a class that is
not registered. Here the class is at hand. Two private names serve that:
`_compile_config` of a compiled model, which holds what it was compiled with, and
`_learning_rate` of an optimizer, which is its schedule where it has one.
"""

import inspect
from numbers import Real

import keras

from .graph import all_layers
from .packing import packed, reason


def copied_model(model):
    """Return a copy of a model of the user, with equal weights and settings."""
    kinds = {type(layer) for layer in all_layers(model)}
    unknown = sorted(x.__name__ for x in kinds if not _is_known(x))
    try:
        if unknown:
            raise TypeError(f"Keras does not know {', '.join(unknown)[:60]}")
        if model.built:
            copied = packed(model).unpacked()
        else:
            copied = type(model).from_config(model.get_config())
    except Exception as error:
        why = str(error) if unknown else reason(error.__cause__ or error)[:100]
        raise TypeError(
            f"The keras.Model given as estimator cannot be copied: {why}. If a layer "
            "is of your own class, register it with "
            "keras.saving.register_keras_serializable, or give a function that builds "
            "the model."
        ) from error
    if model.compiled:
        copied.compile(**compiled_with(model))
    return copied


def _is_known(cls):
    """Whether Keras can find a class by its name."""
    registered = keras.saving.get_registered_name(cls)
    known = keras.saving.get_registered_object(registered)
    return is_of_keras(cls) or known is cls


def is_of_keras(thing):
    """Return whether a class, or a function, comes with Keras."""
    return f"{thing.__module__}.".startswith("keras.")


def compiled_with(model):
    """Return the arguments that a model was compiled with."""
    settings = dict(model._compile_config.config)
    scaled = keras.optimizers.LossScaleOptimizer
    settings["auto_scale_loss"] = (
        model.dtype_policy.name != "mixed_float16" or type(model.optimizer) is scaled
    )
    return settings


def fresh_optimizer(optimizer, cls=None):
    """Return an optimizer equal to a given one, which has not trained anything.

    The given one stays as it is. A schedule as its learning rate is taken over. The
    fresh one is of another class if `cls` says so.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        inner = fresh_optimizer(optimizer.inner_optimizer)
        return type(optimizer)(**{**optimizer.get_config(), "inner_optimizer": inner})
    rate = optimizer._learning_rate
    if isinstance(rate, keras.Variable):
        return _rebuilt(optimizer, cls)
    # The schedule need not have a configuration, so ask for that of a stand-in.
    plain = object.__new__(type(optimizer))
    vars(plain).update(vars(optimizer), _learning_rate=None)
    return _rebuilt(plain, cls, learning_rate=rate)


def fresh_metric(metric):
    """Return a new metric equal to a given one; anything else as it is."""
    return _rebuilt(metric) if isinstance(metric, keras.metrics.Metric) else metric


def _rebuilt(thing, cls=None, **parts):
    """Return a new optimizer or metric, equal to a given one.

    Its configuration is completed by parts. What it leaves out besides is refused where
    it makes a difference.
    """
    cls = cls or type(thing)
    functions = {x.__name__: x for x in vars(thing).values() if inspect.isfunction(x)}
    try:
        with keras.saving.custom_object_scope(functions):
            rebuilt = cls.from_config({**thing.get_config(), **parts})
    except Exception as error:
        raise _cannot_rebuild(thing, reason(error)[:200]) from error
    if is_of_keras(type(thing)):
        return rebuilt
    # What the classes of Keras set is in the configuration, or changes in training.
    said = {*vars(keras.optimizers.Optimizer(0.0)), *vars(keras.metrics.Metric())}
    for name, value in vars(thing).items():
        plain = all(
            isinstance(x, bool | Real | str | None) for x in keras.tree.flatten(value)
        )
        if plain and name not in said and vars(rebuilt).get(name) != value:
            raise _cannot_rebuild(thing, f"{name}={value!r} is not in it")
    return rebuilt


def _cannot_rebuild(thing, why):
    return TypeError(
        f"An instance of {type(thing).__name__} cannot be built from its get_config() "
        f"({why}). Let get_config return every argument of the constructor."
    )
