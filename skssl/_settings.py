"""What a wrapper says about training: every setting is used, or refused by name.

This is the only module that knows scikeras. It takes two things from there: the routing
of parameters (``optimizer__learning_rate``, ``model__filters``) and the network that a
wrapper builds. Everything else that a wrapper does, scikit-learn or Keras does better.
Two private names serve that: `_get_compile_kwargs` and `_fit_callbacks` of a wrapper.
"""

import inspect
import warnings
from functools import partial
from numbers import Integral, Real

import keras
import numpy as np
from scikeras.utils import loss_name
from scikeras.wrappers import KerasClassifier

from ._cnn import build_cnn
from ._copies import (
    compiled_with,
    copied_model,
    fresh_metric,
    fresh_optimizer,
    is_of_keras,
)

# Arguments of `keras.Model.fit` and `compile`, which are settings as fit__… and
# compile__…. A test holds them against the Keras that is installed.
FIT_SETTINGS = (
    "batch_size",
    "callbacks",
    "class_weight",
    "epochs",
    "shuffle",
    "validation_batch_size",
    "validation_data",
    "validation_freq",
    "validation_split",
    "validation_steps",
    "verbose",
)
REFUSED_FIT_SETTINGS = {
    "x": "Give the images as X to `fit`.",
    "y": "Give the labels as y to `fit`.",
    "sample_weight": "Give the weights as sample_weight to `fit`.",
    "initial_epoch": "Fine-tuning starts at its first epoch; to go on with a fitted "
    "classifier, set its warm_start=True or call partial_fit.",
    "steps_per_epoch": "An epoch is a pass over the labelled rows; set epochs and "
    "batch_size.",
}
COMPILE_SETTINGS = (
    "auto_scale_loss",
    "jit_compile",
    "loss",
    "loss_weights",
    "metrics",
    "optimizer",
    "run_eagerly",
    "steps_per_execution",
    "weighted_metrics",
)
AUTO = ("jit_compile", "auto")
CALLBACK = keras.callbacks.Callback
# What the routed settings of a prefix end up in.
ROUTED = {
    "optimizer": "optimizer",
    "loss": "loss",
    "metrics": "metrics",
    "callbacks": "callbacks",
}


class DefaultWrapper(KerasClassifier):
    """The wrapper of a network that the user gives without one.

    Parameters
    ----------
    model : callable or keras.Model
        The network, or what builds it.
    optimizer : str, default="adam"
        As of KerasClassifier.
    batch_size : int, default=64
        As of KerasClassifier.
    epochs : int, default=None
        None is as many epochs as give enough steps.
    """

    def __init__(self, model=None, optimizer="adam", batch_size=64, epochs=None):
        super().__init__(
            model, optimizer=optimizer, batch_size=batch_size, epochs=epochs
        )


def wrap(estimator):
    """Return `estimator` as a KerasClassifier of our own.

    What it was given, such as callbacks, is not copied, apart from a model.

    Parameters
    ----------
    estimator : KerasClassifier, callable, keras.Model or None
        The `estimator` parameter.

    Returns
    -------
    wrapper : KerasClassifier
        A wrapper whose settings are checked as far as they can be without data.

    Raises
    ------
    TypeError
        If `estimator` is none of these, or a model that cannot be copied.
    ValueError
        If a setting would have no effect.
    """
    if isinstance(estimator, KerasClassifier):
        wrapper = type(estimator)(**estimator.get_params(deep=False))
    elif (
        estimator is None
        or isinstance(estimator, keras.Model)
        or (callable(estimator) and not isinstance(estimator, type))
    ):
        wrapper = DefaultWrapper(build_cnn if estimator is None else estimator)
    else:
        raise TypeError(
            "estimator must be a scikeras KerasClassifier, a function that builds a "
            f"keras.Model, a keras.Model or None, got {estimator!r}."
        )
    _check_names(wrapper)
    wrapper.random_state = None  # the classifier seeds the network
    if isinstance(wrapper.model, keras.Model):
        wrapper.model = copied_model(wrapper.model)
    return wrapper


def _check_names(wrapper):
    """Refuse settings by name that nothing would read."""
    params = wrapper.get_params(deep=False)
    if params.get("warm_start"):
        raise ValueError(
            "warm_start=True of the KerasClassifier is not used. Set warm_start=True "
            "of the SelfSupervisedClassifier."
        )
    build = _build_function(wrapper)
    if not callable(build):
        expected = "a function that builds a keras.Model, or a keras.Model"
        raise _wrong("model", build, expected, TypeError)
    for name in ("callbacks", "fit__callbacks"):
        value = params.get(name)
        single = value if isinstance(value, type) else type(value)
        if value is not None and not issubclass(single, list | dict | CALLBACK):
            expected = "a callback, or a list or dict of them"
            raise _wrong(name, value, expected, TypeError)
    for name in params:
        remedy = _remedy(name, build)
        if remedy:
            raise ValueError(f"{name} of the KerasClassifier is not used. {remedy}")
    _check_routes(params)


def _remedy(name, build):
    """Return what to do about a setting that nothing reads, None if it is read."""
    prefix, _, rest = name.partition("__")
    if not rest:
        return None
    if prefix == "fit":
        return _refused_argument(rest, FIT_SETTINGS, REFUSED_FIT_SETTINGS, "fit")
    if prefix == "compile":
        return _refused_argument(rest, COMPILE_SETTINGS, {}, "compile")
    if prefix == "predict":
        return "Prediction needs no settings: leave it out."
    if prefix == "model" and isinstance(build, keras.Model):
        return "A keras.Model is built already: give a function that builds it."
    read = prefix in ROUTED or (prefix == "model" and not _is_nested(rest))
    if read or _takes(build, "params"):  # all of them are shown to such a function
        return None
    return "No part of the training has that name: correct it, or leave out."


def _refused_argument(name, used, refused, method):
    """Return what to do instead of giving an argument of Keras, None if it is used."""
    name, _, rest = name.partition("__")
    if name in refused:
        return refused[name]
    if name not in used or (rest and (method, name) != ("fit", "callbacks")):
        return f"It is no argument of keras.Model.{method}: correct it, or leave out."
    return None


def _check_routes(params):
    """Refuse settings that are routed to an object which is not there."""
    for target, name in [*ROUTED.items(), ("fit__callbacks", "fit__callbacks")]:
        prefix = f"{target}__"
        routed = {
            key.removeprefix(prefix): value
            for key, value in params.items()
            if key.startswith(prefix)
        }
        nested = target != "optimizer"  # scikeras passes on one level of these alone
        given = params.get(f"compile__{name}", params.get(name))
        for lost in _lost(given, routed) if nested else filter(_is_nested, routed):
            raise ValueError(
                f"{prefix}{lost} of the KerasClassifier is not used: {name}={given!r} "
                "has no such part. Correct the name, or leave it out."
            )


def _is_nested(name):
    return "__" in name


def _lost(items, routed):
    """Return those routed names that reach no class in items."""
    if items is None or (isinstance(items, list | tuple | dict) and not items):
        return list(routed)
    parts = {}
    if isinstance(items, dict):
        parts = items
    elif isinstance(items, list | tuple):
        parts = {str(k): item for k, item in enumerate(items)}
    elif isinstance(items, type):
        parts = {name: x for name, x in routed.items() if not _is_nested(name)}
    lost = []
    for head in dict.fromkeys(name.partition("__")[0] for name in routed):
        prefix = f"{head}__"
        below = {
            name.removeprefix(prefix): x
            for name, x in routed.items()
            if name.startswith(prefix)
        }
        found = _lost(parts[head], below) if head in parts else below
        lost += [prefix + name for name in found]
    return lost


def _build_function(wrapper):
    model = wrapper.model if wrapper.model is not None else wrapper.build_fn
    return getattr(wrapper, "_keras_build_fn", None) if model is None else model


def _takes(function, argument):
    """Whether scikeras hands a build function an argument of this name."""
    if isinstance(function, keras.Model):
        return False
    parameters = inspect.signature(function).parameters.values()
    return any(x.name == argument or x.kind is x.VAR_KEYWORD for x in parameters)


def compile_settings(wrapper):
    """Return how a wrapper wants its network compiled.

    Parameters
    ----------
    wrapper : KerasClassifier
        A wrapper of our own, initialized.

    Returns
    -------
    settings : dict
        Arguments of `keras.Model.compile`; optimizer and metrics are fresh ones.

    Raises
    ------
    ValueError
        If the build function compiles its model, and the wrapper has other settings.
    """
    model = wrapper.model_
    if model.compiled:
        settings = compiled_with(model)
        _check_agreement(wrapper, settings)
    else:
        settings = wrapper._get_compile_kwargs()
    given = getattr(wrapper, "compile__optimizer", wrapper.optimizer)
    if model.compiled or not isinstance(given, str | type):  # else it is a new one
        optimizer = keras.optimizers.get(settings["optimizer"])
        settings["optimizer"] = fresh_optimizer(optimizer)
    for name in ("loss", "loss_weights"):
        settings[name] = _only_one(name, settings.get(name))
    for name in ("metrics", "weighted_metrics"):
        settings[name] = keras.tree.map_structure(fresh_metric, settings.get(name))
    if not settings["metrics"] and not settings["weighted_metrics"]:
        settings["metrics"] = ["accuracy"]
    for name in ("run_eagerly", "auto_scale_loss", "jit_compile"):
        value = settings.get(name, False)
        if not (isinstance(value, bool | np.bool_) or (name, value) == AUTO):
            raise _wrong(name, value, "True or False", TypeError)
    n_steps = settings.get("steps_per_execution", 1)
    _check_count("steps_per_execution", n_steps, 1, "an int of at least 1")
    return settings


def _only_one(name, value):
    """Return the setting of the only output, where it is given as a list or dict."""
    if not isinstance(value, list | tuple | dict):
        return value
    values = list(value.values() if isinstance(value, dict) else value)
    if len(values) != 1:
        raise ValueError(
            f"{name} must be that of the only output of the network, got {len(values)} "
            f"of them: {value!r}. Give one."
        )
    return values[0]


def _check_agreement(wrapper, compiled):
    """Refuse settings of a wrapper that a compiled model leaves without effect."""
    build = _build_function(wrapper)
    if _takes(build, "compile_kwargs") or _takes(build, "params"):
        return  # it compiles with these settings as it sees fit
    remedy = (
        "The model is compiled already, and trains with its own settings: give them "
        "there, or let the build function take compile_kwargs."
    )
    params = wrapper.get_params(deep=False)
    defaults = {
        **inspect.signature(KerasClassifier).parameters,
        **inspect.signature(type(wrapper)).parameters,
    }
    for name, value in params.items():
        prefix, _, rest = name.partition("__")
        if rest and prefix in ("compile", "optimizer", "loss", "metrics"):
            raise ValueError(
                f"{name}={value!r} of the KerasClassifier is not used. {remedy}"
            )
        if name not in ("loss", "metrics", "run_eagerly", "optimizer"):
            continue
        given = value is not None and value is not defaults[name].default
        if not given or _agree(name, value, compiled[name]):
            continue
        message = f"{name}={value!r} of the KerasClassifier is not used. {remedy}"
        if name != "optimizer":
            raise ValueError(message)
        # Every wrapper has an optimizer, for models that are not compiled.
        warnings.warn(message, UserWarning, stacklevel=2)


def _agree(name, value, compiled):
    """Whether a setting says what a model is compiled with, as far as it says."""
    if name == "optimizer":
        kind = value if isinstance(value, type) else type(keras.optimizers.get(value))
        return kind is type(compiled)
    if name == "loss":
        try:
            return loss_name(value) == loss_name(compiled)
        except (TypeError, ValueError):
            return value is compiled
    return value is compiled or value == compiled


def default_loss(units, from_logits):
    """Return the loss of a class head for which the user gives none."""
    if units == 1:
        return keras.losses.BinaryCrossentropy(from_logits=from_logits)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)


def takes_one_hot(loss):
    """Whether a loss compares with one-hot targets, not with class indices.

    A loss of Keras takes what its name says, and so does one that is derived from it.
    For any other, its attribute `one_hot` decides.
    """
    if isinstance(loss, str) and loss in ("crossentropy", "ce"):
        # Keras chooses by the shape of the targets.
        return False
    loss = keras.losses.get(loss)
    if hasattr(loss, "one_hot"):
        return bool(loss.one_hot)
    while isinstance(loss, partial):
        loss = loss.func
    if isinstance(loss, keras.losses.Loss):
        loss = next(filter(is_of_keras, type(loss).__mro__))
        if loss is keras.losses.Loss:
            return False
    elif not is_of_keras(loss):
        # scikeras goes by this name, too.
        return getattr(loss, "__name__", None) == "categorical_crossentropy"
    return not loss_name(loss).startswith("sparse_")


def fit_settings(wrapper):
    """Return the settings of a wrapper for training, fit__… ones first.

    Parameters
    ----------
    wrapper : KerasClassifier
        A wrapper of our own, initialized.

    Returns
    -------
    settings : dict
        Those of `FIT_SETTINGS`, but for class_weight; `verbose` only where it is given.

    Raises
    ------
    ValueError
        If a setting has a value that nothing can be trained with.
    TypeError
        If it has a type that nothing can be trained with.
    """
    params = wrapper.get_params(deep=False)
    defaults = {"validation_data": None, "validation_freq": 1, "validation_steps": None}
    settings = defaults | {
        name: params[key]
        for name in FIT_SETTINGS
        for key in (name, f"fit__{name}")
        if key in params
    }
    del settings["class_weight"]
    if settings["verbose"] == 1 and not hasattr(wrapper, "fit__verbose"):
        del settings["verbose"]  # the default of scikeras
    settings["callbacks"] = keras.tree.flatten(wrapper._fit_callbacks)
    _check_values(settings)
    return settings


def _check_values(settings):
    """Refuse values of settings that nothing can be trained with, and say which."""
    for name in ("batch_size", "validation_batch_size"):
        if settings[name] is not None and settings[name] != -1:
            _check_count(name, settings[name], 1, "an int of at least 1, None, or -1")
    for name, least in [("epochs", 0), ("validation_steps", 1)]:
        if settings[name] is not None:
            _check_count(
                name, settings[name], least, f"an int of at least {least}, or None"
            )
    frequency = settings["validation_freq"]
    if isinstance(frequency, list | tuple):
        settings["validation_freq"] = frequency = list(frequency)
    else:
        frequency = [frequency]
    for epoch in frequency:
        _check_count("validation_freq", epoch, 1, "an int of at least 1, or a list")
    if isinstance(settings["validation_freq"], Integral):
        settings["validation_freq"] = int(settings["validation_freq"])
    split = settings["validation_split"]
    if split is None:
        settings["validation_split"] = split = 0.0
    if isinstance(split, bool) or not isinstance(split, Real):
        raise _wrong("validation_split", split, "a number from 0 to below 1", TypeError)
    if not 0 <= split < 1:
        raise _wrong("validation_split", split, "a number from 0 to below 1")
    if not isinstance(settings["shuffle"], bool | np.bool_ | Integral):
        raise _wrong("shuffle", settings["shuffle"], "True or False", TypeError)
    verbose = settings.get("verbose", 0)
    if not isinstance(verbose, str | Integral) or verbose not in ("auto", 0, 1, 2):
        raise _wrong("verbose", verbose, "0, 1, 2 or 'auto'")
    data = settings["validation_data"]
    if data is not None and (
        not isinstance(data, list | tuple) or len(data) not in (2, 3)
    ):
        raise _wrong(
            "validation_data",
            type(data).__name__,
            "a tuple (X_val, y_val) or (X_val, y_val, sample_weight)",
            TypeError,
        )
    if data is not None and split:
        raise ValueError(
            f"validation_data and validation_split={split} of the KerasClassifier are "
            "both given: leave one out."
        )


def _check_count(name, value, least, expected):
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise _wrong(name, value, expected, TypeError)
    if value < least:
        raise _wrong(name, value, expected)


def _wrong(name, value, expected, kind=ValueError):
    return kind(f"{name} of the KerasClassifier must be {expected}, got {value!r}.")
