"""Settings of a scikeras wrapper: each one is used, or refused by name.

This is the only module that knows scikeras. It takes two things from there: the routing
of parameters (``optimizer__learning_rate``, ``model__filters``) and the network that a
wrapper builds.
Two private names serve that: `_get_compile_kwargs` and `_fit_callbacks` of a wrapper.
"""

import inspect
from functools import partial
from numbers import Integral, Real

import keras
import numpy as np
from scikeras.wrappers import KerasClassifier
from sklearn.utils import check_scalar

from .cnn import build_cnn
from .copies import compiled_with, copied_model, fresh_metric, fresh_optimizer
from .packing import is_of_keras

# Arguments of `keras.Model.fit` that the training reads. A test holds them against the
# Keras that is installed.
FIT_SETTINGS = """
    batch_size callbacks class_weight epochs shuffle validation_batch_size
    validation_data validation_freq validation_split validation_steps verbose
    """.split()
# All arguments of `keras.Model.compile` are passed on to Keras.
COMPILE_SETTINGS = [*inspect.signature(keras.Model.compile).parameters][1:]
# Parameters that pass their own on to a class, as optimizer__learning_rate.
ROUTED = ("optimizer", "loss", "metrics", "callbacks", "fit__callbacks")
# What to do about settings that nothing reads, by name or by what stands before `__`.
REMEDIES = {
    "warm_start": "Set warm_start=True of the SelfSupervisedClassifier.",
    "fit__x": "Give the images as X to `fit`.",
    "fit__y": "Give the labels as y to `fit`.",
    "fit__sample_weight": "Give the weights as sample_weight to `fit`.",
    "fit__initial_epoch": "Fine-tuning starts at its first epoch; to go on with a "
    "fitted classifier, set its warm_start=True or call partial_fit.",
    "fit__steps_per_epoch": "An epoch is a pass over the labelled rows; set epochs and "
    "batch_size.",
    "fit": "It is no argument of keras.Model.fit: correct it, or leave out.",
    "compile": "It is no argument of keras.Model.compile: correct it, or leave out.",
    "predict": "Prediction needs no settings: leave it out.",
    "model": "Only a function that builds a keras.Model takes it, as model__name.",
}


def wrap(estimator):
    """Return the `estimator` parameter as a KerasClassifier of our own.

    Its settings are checked as far as they can be without data. What it was given, such
    as callbacks, is not copied, apart from a model.
    """
    if isinstance(estimator, KerasClassifier):
        wrapper = type(estimator)(**estimator.get_params(deep=False))
        name, others = "model of the KerasClassifier", ""
    else:
        model = build_cnn if estimator is None else estimator
        wrapper = KerasClassifier(model, optimizer="adam", batch_size=64, epochs=None)
        name, others = "estimator", "a scikeras KerasClassifier, None, "
    build = _build_function(wrapper)
    if not callable(build) or inspect.isclass(build):
        raise TypeError(
            f"{name} must be {others}a function that builds a keras.Model, or a "
            f"keras.Model, got {build!r}."
        )
    _check_names(wrapper.get_params(deep=False), build)
    wrapper.random_state = None  # the classifier seeds the network
    if isinstance(wrapper.model, keras.Model):
        wrapper.model = copied_model(wrapper.model)
    return wrapper


def _check_names(params, build):
    """Refuse parameters of a wrapper by name that nothing would read."""
    read = {f"fit__{name}" for name in FIT_SETTINGS}
    read |= {f"compile__{name}" for name in COMPILE_SETTINGS}
    if _takes(build, "params"):  # it is shown all of them
        routed = ("fit", "compile", "predict", *ROUTED)
        read |= {x for x in params if x.partition("__")[0] not in routed}
    given = {x: params.get(f"compile__{x}", params.get(x)) for x in ROUTED}
    prefixes = set().union(*(_prefixes(target, given[target]) for target in ROUTED))
    if not isinstance(build, keras.Model):
        prefixes.add("model")
    for name, value in params.items():
        prefix, is_routed, _ = name.rpartition("__")
        unread = is_routed and name not in read and prefix not in prefixes
        if unread or (name == "warm_start" and value):
            kind = name.partition("__")[0]
            found = "No part of the training has that name"
            if kind in given:
                found = f"{kind}={given[kind]!r} has no such part"
            remedy = REMEDIES.get(kind, f"{found}: correct it, or leave out.")
            remedy = REMEDIES.get(name, remedy)
            raise ValueError(f"{name} of the KerasClassifier is not used. {remedy}")


def _prefixes(target, items):
    """Yield the prefixes of parameters that scikeras passes on to items of a target.

    It passes them on to one item, as metrics__0__name, and to all items of a list or
    dict, as metrics__name. It complains itself where such an item is no class, but not
    by name where callbacks are none, so these are refused here.
    """
    for path, item in keras.tree.flatten_with_path(items):
        if item is None:
            continue
        kind = item if inspect.isclass(item) else type(item)
        if "callbacks" in target and not issubclass(kind, keras.callbacks.Callback):
            expected = "a callback, or a list or dict of them"
            raise _wrong(target, item, expected, TypeError)
        yield "__".join([target, *map(str, path)])
        yield "__".join([target, *map(str, path[:-1])])


def _build_function(wrapper):
    model = wrapper.model if wrapper.model is not None else wrapper.build_fn
    return getattr(wrapper, "_keras_build_fn", None) if model is None else model


def _takes(build, *arguments):
    """Whether scikeras hands a build function an argument of such a name."""
    if isinstance(build, keras.Model):
        return False
    parameters = inspect.signature(build).parameters.values()
    return any(x.name in arguments or x.kind is x.VAR_KEYWORD for x in parameters)


def compile_settings(wrapper):
    """Return how a wrapper wants its network compiled.

    The settings of a model that is compiled in the build function win. Every wrapper
    has an optimizer, so one that is given by its name, as optimizer="adam", is then
    passed over; any other setting beside those of the model is refused.

    Parameters
    ----------
    wrapper : KerasClassifier
        A wrapper of our own, initialized.

    Returns
    -------
    settings : dict
        Arguments of `keras.Model.compile`; optimizer and metrics are fresh ones.
    """
    given = wrapper.get_params(deep=False)
    if wrapper.model_.compiled:
        settings = compiled_with(wrapper.model_)
        if not _takes(_build_function(wrapper), "compile_kwargs", "params"):
            _check_agreement(given, settings)
        given = settings
    else:
        settings = wrapper._get_compile_kwargs()

    # What the user holds is copied. What scikeras has made is fresh, and its class may
    # have no configuration to copy it by.
    of_user = {id(x) for x in keras.tree.flatten(given)}
    optimizer = keras.optimizers.get(settings["optimizer"])
    is_of_user = id(optimizer) in of_user
    settings["optimizer"] = fresh_optimizer(optimizer) if is_of_user else optimizer

    # There is one output, so a list or dict by output holds one loss, and metrics in
    # any form are a list.
    for name in ("loss", "loss_weights"):
        values = keras.tree.flatten(settings.get(name))
        if len(values) != 1:
            raise ValueError(
                f"{name} must be that of the only output of the network, got "
                f"{len(values)} of them: {settings[name]!r}. Give one."
            )
        settings[name] = values[0]
    for name in ("metrics", "weighted_metrics"):
        metrics = [x for x in keras.tree.flatten(settings.get(name)) if x is not None]
        settings[name] = [
            fresh_metric(x) if id(x) in of_user else _named_afresh(x) for x in metrics
        ] or None
    if not settings["metrics"] and not settings["weighted_metrics"]:
        settings["metrics"] = ["accuracy"]

    _check(settings, "run_eagerly auto_scale_loss", (bool, np.bool_))
    _check(settings, "jit_compile", (bool, np.bool_), "auto")
    _check(settings, "steps_per_execution", Integral, min_val=1)
    return settings


def _named_afresh(metric):
    """Return a metric that scikeras has made, without the number in its name.

    Keras numbers metrics through the whole process: the second AUC is auc_1. So the
    histories of two fits would have different keys, and a callback would monitor a name
    of the first alone. Keras numbers equal names within a network once more.
    """
    base, _, number = getattr(metric, "name", "").rpartition("_")
    if number.isdigit() and base.replace("_", "") == type(metric).__name__.lower():
        metric.name = base
    return metric


def _check_agreement(params, compiled):
    """Refuse parameters of a wrapper that a compiled model leaves without effect."""
    for name, value in params.items():
        target, is_routed, _ = name.partition("__")
        if target not in ("compile", *COMPILE_SETTINGS):
            continue
        named = name == "optimizer" and isinstance(value, str)
        if is_routed or not (named or value in (None, False, compiled.get(name))):
            raise ValueError(
                f"{name}={value!r} of the KerasClassifier is not used. The model is "
                "compiled already, and trains with its own settings: give them there, "
                "or let the build function take compile_kwargs."
            )


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
        return False  # Keras chooses by the shape of the targets
    loss = keras.losses.get(loss)
    if hasattr(loss, "one_hot"):
        return bool(loss.one_hot)
    while isinstance(loss, partial):
        loss = loss.func
    kinds = type(loss).__mro__ if isinstance(loss, keras.losses.Loss) else [loss]
    of_keras = next(filter(is_of_keras, kinds), keras.losses.Loss)
    takes_indices = of_keras.__name__.lower().startswith("sparse")
    return of_keras is not keras.losses.Loss and not takes_indices


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
    """
    params = wrapper.get_params(deep=False)
    settings = {"validation_data": None, "validation_freq": 1, "validation_steps": None}
    for prefix in ("", "fit__"):
        given = {x: params[prefix + x] for x in FIT_SETTINGS if prefix + x in params}
        settings |= given
    del settings["class_weight"]  # the classifier reads it from the wrapper
    if settings["verbose"] == 1 and "fit__verbose" not in params:
        del settings["verbose"]  # the default of scikeras
    settings["callbacks"] = keras.tree.flatten(wrapper._fit_callbacks)
    if isinstance(settings["validation_freq"], tuple):
        settings["validation_freq"] = list(settings["validation_freq"])  # for Keras

    _check(settings, "epochs", Integral, None, min_val=0)
    # As in scikeras, -1 is all rows in one batch.
    _check(settings, "batch_size validation_batch_size", Integral, None, -1, min_val=1)
    _check(settings, "validation_steps", Integral, None, min_val=1)
    for epoch in keras.tree.flatten(settings["validation_freq"]):
        check_scalar(epoch, "validation_freq", Integral, min_val=1)
    settings["validation_split"] = split = settings["validation_split"] or 0.0
    limits = {"min_val": 0, "max_val": 1, "include_boundaries": "left"}
    check_scalar(split, "validation_split", Real, **limits)
    _check(settings, "shuffle", (bool, np.bool_, Integral))
    if settings.get("verbose", 0) not in ("auto", 0, 1, 2):
        raise _wrong("verbose", settings["verbose"], "0, 1, 2 or 'auto'")
    if (data := settings["validation_data"]) is not None:
        if not isinstance(data, list | tuple) or len(data) not in (2, 3):
            expected = "a tuple (X_val, y_val) or (X_val, y_val, sample_weight)"
            raise _wrong("validation_data", type(data).__name__, expected, TypeError)
        if split:
            raise ValueError(
                f"validation_data and validation_split={split} of the KerasClassifier "
                "are both given: leave one out."
            )
    return settings


def _check(settings, names, kinds, *others, **limits):
    """Refuse settings that are neither numbers within limits nor one of some others."""
    for name in names.split():
        if name in settings and settings[name] not in others:
            check_scalar(settings[name], name, kinds, **limits)


def _wrong(name, value, expected, kind=ValueError):
    return kind(f"{name} of the KerasClassifier must be {expected}, got {value!r}.")
