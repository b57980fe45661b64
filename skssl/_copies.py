"""Copies of what the user gives, whose classes Keras need not know.

Keras copies by a configuration and the name of a class, and so does scikeras, where
`copy.deepcopy` meets objects of Keras: that fails for a class which is not registered.
Here the class is at hand. Two private names serve that: `_compile_config` of a compiled
model, which holds what it was compiled with, and `_learning_rate` of an optimizer,
which is its schedule where it has one.
"""

import inspect
from numbers import Real

import keras

from ._archive import reason
from ._packing import packed


def copied_model(model):
    """Return a copy of a model of the user, compiled with the same settings.

    Parameters
    ----------
    model : keras.Model
        Any, which stays as it is.

    Returns
    -------
    copied : keras.Model
        A model with weights of its own, which have the same values.

    Raises
    ------
    TypeError
        If Keras cannot build it again.
    """
    start = "The keras.Model that was given as estimator cannot be copied: "
    remedy = "give a function that builds the model instead."
    unknown = sorted({type(x).__name__ for x in _layers_unknown_to_keras(model)})
    if unknown:
        raise TypeError(
            f"{start}Keras does not know its layers of the classes {unknown}. Register "
            f"each with keras.saving.register_keras_serializable, or {remedy}"
        )
    try:
        copied = packed(model).unpacked()
    except TypeError as error:
        raise TypeError(
            f"{start}{reason(error.__cause__ or error)}. Please {remedy}"
        ) from error
    if model.compiled:
        copied.compile(**compiled_with(model))
    return copied


def _layers_unknown_to_keras(layer):
    """Return the layers in a layer that Keras cannot build from their configuration."""
    inner = [*getattr(layer, "layers", ()), getattr(layer, "layer", None)]
    found = [
        unknown
        for part in inner
        if isinstance(part, keras.layers.Layer)
        for unknown in _layers_unknown_to_keras(part)
    ]
    cls = type(layer)
    if not is_of_keras(cls) and keras.saving.get_registered_name(cls) == cls.__name__:
        found.append(layer)
    return found


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


def fresh_optimizer(optimizer):
    """Return an optimizer equal to a given one, which has not trained anything.

    Keras does not need to know the class of it, or of its learning rate schedule.

    Parameters
    ----------
    optimizer : keras.optimizers.Optimizer
        Any, which stays as it is.

    Returns
    -------
    fresh : keras.optimizers.Optimizer
        A new one of the same class.

    Raises
    ------
    TypeError
        If it cannot be built from its configuration.
    """
    cls = type(optimizer)
    if cls is keras.optimizers.LossScaleOptimizer:
        config = cls.get_config(
            _with_attributes(optimizer, inner_optimizer=keras.optimizers.SGD())
        )
        inner = fresh_optimizer(optimizer.inner_optimizer)
        return cls(**{**config, "inner_optimizer": inner})
    rate = optimizer._learning_rate
    own_rate = not isinstance(rate, keras.Variable)
    if own_rate:  # a schedule need not have a configuration
        optimizer = _with_attributes(optimizer, _learning_rate=keras.Variable(0.0))
    config = optimizer.get_config()
    if own_rate:
        config["learning_rate"] = _describable(rate)
    return _rebuilt(optimizer, config)


def fresh_metric(metric):
    """Return a new metric equal to a given one; a name or function as it is."""
    if not isinstance(metric, keras.metrics.Metric):
        return metric
    try:
        return _rebuilt(metric, metric.get_config())
    except Exception:  # its configuration holds what Keras cannot build again
        metric.reset_state()  # Keras does so only from the second epoch on
        return metric


def _with_attributes(thing, **attributes):
    """Return a stand-in for an object that shares all its other attributes."""
    stand_in = object.__new__(type(thing))
    vars(stand_in).update(vars(thing), **attributes)
    return stand_in


def _describable(rate):
    """Return a learning rate that has a configuration, to tell it from others."""
    try:
        rate.get_config()
    except NotImplementedError:
        attributes = {name: repr(value) for name, value in vars(rate).items()}
        rate = _with_attributes(rate)
        rate.get_config = lambda: attributes
    except AttributeError:
        pass  # a function
    return rate


def _rebuilt(thing, config):
    """Return an optimizer or metric of that configuration, own attributes included.

    The classes of users often have a configuration that leaves some of these out.
    """
    cls = type(thing)
    try:
        rebuilt = cls.from_config(dict(config))
    except Exception as error:
        rebuilt = _without_own_constructor(cls, config)
        if rebuilt is None:
            raise _cannot_rebuild(cls, error) from error
    left_out = {}
    for name, value in ({} if is_of_keras(cls) else vars(thing)).items():
        plain = isinstance(value, bool | Real | str | None) and name != "built"
        if plain and name not in config and vars(rebuilt).get(name, ...) != value:
            left_out[name] = value
        elif name not in vars(rebuilt) and not getattr(thing, "built", False):
            if any(isinstance(x, keras.Variable) for x in keras.tree.flatten(value)):
                raise _cannot_rebuild(cls, f"it makes {name}, which is a variable")
            setattr(rebuilt, name, value)
    for name, value in left_out.items():
        setattr(rebuilt, name, value)
    if left_out:
        rebuilt.get_config = lambda: {**config, **left_out}
    return rebuilt


def _without_own_constructor(cls, config):
    """Return an instance that only the constructor of Keras has made, None at worst.

    That of the user wants arguments which the configuration leaves out.
    """
    base = next(filter(is_of_keras, cls.__mro__))
    accepted = inspect.signature(base.__init__).parameters
    arguments = {name: x for name, x in config.items() if name in accepted}
    if base is cls or any(isinstance(x, dict) for x in arguments.values()):
        return None
    try:
        rebuilt = cls.__new__(cls)
        base.__init__(rebuilt, **arguments)
    except Exception:
        return None
    return rebuilt


def _cannot_rebuild(cls, error):
    reason = str(error).partition("\n")[0][:200]
    return TypeError(
        f"An instance of {cls.__name__} cannot be built from its get_config() "
        f"({reason}). Let get_config return every argument of the constructor, or give "
        f"the class and its arguments, as in KerasClassifier(optimizer={cls.__name__}, "
        "optimizer__argument=value)."
    )


def has_own_schedule(optimizer):
    """Whether the learning rate of an optimizer is code of the user."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    rate = inner._learning_rate
    return not isinstance(rate, keras.Variable) and not is_of_keras(
        rate if inspect.isfunction(rate) else type(rate)
    )
