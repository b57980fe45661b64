"""What a wrapper says about training: every setting is used, or refused by name.

This is the only module that knows scikeras. It takes two things from there: the routing
of parameters (``optimizer__learning_rate``, ``model__filters``) and the network that a
wrapper builds. Everything else that a wrapper does, scikit-learn or Keras does better.
Two private names serve that: `_get_compile_kwargs` and `_fit_callbacks` of a wrapper.
"""

import inspect
import re
from collections import Counter
from functools import partial
from numbers import Integral, Real

import keras
import numpy as np
from scikeras.utils import loss_name
from scikeras.wrappers import KerasClassifier
from sklearn.utils import check_scalar

from .cnn import build_cnn
from .copies import compiled_with, copied_model, fresh_metric, fresh_optimizer
from .packing import is_of_keras

# Arguments of `keras.Model.fit` and `compile`, which are settings as fit__… and
# compile__…. A test holds them against the Keras that is installed.
FIT_SETTINGS = """
    batch_size callbacks class_weight epochs shuffle validation_batch_size
    validation_data validation_freq validation_split validation_steps verbose
    """.split()
REFUSED_FIT_SETTINGS = {
    "x": "Give the images as X to `fit`.",
    "y": "Give the labels as y to `fit`.",
    "sample_weight": "Give the weights as sample_weight to `fit`.",
    "initial_epoch": "Fine-tuning starts at its first epoch; to go on with a fitted "
    "classifier, set its warm_start=True or call partial_fit.",
    "steps_per_epoch": "An epoch is a pass over the labelled rows; set epochs and "
    "batch_size.",
}
COMPILE_SETTINGS = """
    auto_scale_loss jit_compile loss loss_weights metrics optimizer run_eagerly
    steps_per_execution weighted_metrics
    """.split()
# Parameters that pass their own on to a class, as optimizer__learning_rate.
ROUTED = ("optimizer", "loss", "metrics", "callbacks", "fit__callbacks")


class DefaultWrapper(KerasClassifier):
    """The wrapper of a network that the user gives without one."""

    def __init__(self, model=None, optimizer="adam", batch_size=64, epochs=None):
        super().__init__(
            model, optimizer=optimizer, batch_size=batch_size, epochs=epochs
        )


def wrap(estimator):
    """Return the `estimator` parameter as a KerasClassifier of our own.

    Its settings are checked as far as they can be without data. What it was given, such
    as callbacks, is not copied, apart from a model.
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
    kinds = list | dict | keras.callbacks.Callback
    for name in ("callbacks", "fit__callbacks"):
        value = params.get(name)
        kind = value if isinstance(value, type) else type(value)
        if value is not None and not issubclass(kind, kinds):
            expected = "a callback, or a list or dict of them"
            raise _wrong(name, value, expected, TypeError)
    for name in params:
        remedy = _remedy(name, params, build) if "__" in name else None
        if remedy:
            raise ValueError(f"{name} of the KerasClassifier is not used. {remedy}")


def _remedy(name, params, build):
    """Return what to do about a setting that nothing reads, None if it is read."""
    for target in ROUTED:
        if name.startswith(f"{target}__"):
            given = params.get(f"compile__{target}", params.get(target))
            if _reaches_class(given, name.removeprefix(f"{target}__")):
                return None
            return f"{target}={given!r} has no such part: correct it, or leave out."
    prefix, _, rest = name.partition("__")
    if prefix == "fit" and rest in REFUSED_FIT_SETTINGS:
        return REFUSED_FIT_SETTINGS[rest]
    if prefix in ("fit", "compile"):
        if rest in (FIT_SETTINGS if prefix == "fit" else COMPILE_SETTINGS):
            return None
        return f"It is no argument of keras.Model.{prefix}: correct it, or leave out."
    if prefix == "predict":
        return "Prediction needs no settings: leave it out."
    if prefix == "model" and isinstance(build, keras.Model):
        return "A keras.Model is built already: give a function that builds it."
    # A build function that takes params is shown all of them.
    if (prefix == "model" and "__" not in rest) or _takes(build, "params"):
        return None
    return "No part of the training has that name: correct it, or leave out."


def _reaches_class(items, name):
    """Whether scikeras looks at a routed parameter where it makes instances of items.

    It complains itself where an item is no class.
    """
    head, _, rest = name.partition("__")
    if isinstance(items, list | tuple):
        items = {str(k): item for k, item in enumerate(items)}
    if not isinstance(items, dict):
        return items is not None and not rest
    if rest:
        return head in items and _reaches_class(items[head], rest)
    return any(not isinstance(x, list | tuple | dict) for x in items.values())


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
        # There is one output, so a list or dict by output says no more than a list.
        given = [x for x in keras.tree.flatten(settings.get(name)) if x is not None]
        settings[name] = [fresh_metric(x) for x in given] or None
    places = ("metrics", "compile__metrics", "compile__weighted_metrics")
    of_user = keras.tree.flatten([getattr(wrapper, name, None) for name in places])
    if not model.compiled and not any(
        isinstance(metric, keras.metrics.Metric) for metric in of_user
    ):
        _name_afresh((settings["metrics"] or []) + (settings["weighted_metrics"] or []))
    if not settings["metrics"] and not settings["weighted_metrics"]:
        settings["metrics"] = ["accuracy"]
    for name in ("run_eagerly", "auto_scale_loss", "jit_compile"):
        value = settings.get(name, False)
        if (name, value) != ("jit_compile", "auto"):
            check_scalar(value, name, (bool, np.bool_))
    n_steps = settings.get("steps_per_execution", 1)
    check_scalar(n_steps, "steps_per_execution", Integral, min_val=1)
    return settings


def _name_afresh(metrics):
    """Name metrics that were given by name as in a new process: auc, then auc_1.

    Keras numbers them through the whole process, so the histories of two fits would
    have different keys, and a callback would monitor a name of the first alone.
    """
    counts = Counter()
    for metric in metrics:
        base = re.sub(r"_\d+$", "", getattr(metric, "name", ""))
        if base and base.replace("_", "") == type(metric).__name__.lower():
            metric.name = f"{base}_{counts[base]}" if counts[base] else base
            counts[base] += 1


def _only_one(name, value):
    """Return the setting of the only output, where it is given as a list or dict."""
    values = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(values, list | tuple):
        return value
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
    defaults = inspect.signature(KerasClassifier).parameters
    for name, value in wrapper.get_params(deep=False).items():
        prefix, is_routed, _ = name.partition("__")
        if is_routed:
            unused = prefix in ("compile", "optimizer", "loss", "metrics")
        elif name == "optimizer":
            unused = not isinstance(value, str | None)
        elif name in ("loss", "metrics", "run_eagerly"):
            unused = value not in (None, defaults[name].default, compiled[name])
        else:
            unused = False
        if unused:
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
        # Keras chooses by the shape of the targets.
        return False
    loss = keras.losses.get(loss)
    if hasattr(loss, "one_hot"):
        return bool(loss.one_hot)
    while isinstance(loss, partial):
        loss = loss.func
    if isinstance(loss, keras.losses.Loss):
        loss = next(filter(is_of_keras, type(loss).__mro__))
    if loss is keras.losses.Loss or not is_of_keras(loss):
        return False
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
    """
    params = wrapper.get_params(deep=False)
    settings = {"validation_data": None, "validation_freq": 1, "validation_steps": None}
    settings |= {
        name: params[key]
        for name in FIT_SETTINGS
        for key in (name, f"fit__{name}")
        if key in params
    }
    del settings["class_weight"]
    if settings["verbose"] == 1 and not hasattr(wrapper, "fit__verbose"):
        del settings["verbose"]  # the default of scikeras
    settings["callbacks"] = keras.tree.flatten(wrapper._fit_callbacks)
    settings["validation_split"] = settings["validation_split"] or 0.0
    if isinstance(settings["validation_freq"], tuple):
        settings["validation_freq"] = list(settings["validation_freq"])  # for Keras
    _check_values(settings)
    return settings


def _check_values(settings):
    """Refuse values of settings that nothing can be trained with, and say which."""
    for name in ("epochs", "batch_size", "validation_batch_size", "validation_steps"):
        value = settings[name]
        # As in scikeras, -1 is all rows in one batch.
        all_rows = name.endswith("batch_size") and value == -1
        if value is not None and not all_rows:
            check_scalar(value, name, Integral, min_val=int(name != "epochs"))
    for epoch in keras.tree.flatten(settings["validation_freq"]):
        check_scalar(epoch, "validation_freq", Integral, min_val=1)
    split, data = settings["validation_split"], settings["validation_data"]
    limits = {"min_val": 0, "max_val": 1, "include_boundaries": "left"}
    check_scalar(split, "validation_split", Real, **limits)
    check_scalar(settings["shuffle"], "shuffle", (bool, np.bool_, Integral))
    if settings.get("verbose", 0) not in ("auto", 0, 1, 2):
        raise _wrong("verbose", settings["verbose"], "0, 1, 2 or 'auto'")
    if data is not None and (
        not isinstance(data, list | tuple) or len(data) not in (2, 3)
    ):
        expected = "a tuple (X_val, y_val) or (X_val, y_val, sample_weight)"
        raise _wrong("validation_data", type(data).__name__, expected, TypeError)
    if data is not None and split:
        raise ValueError(
            f"validation_data and validation_split={split} of the KerasClassifier are "
            "both given: leave one out."
        )


def _wrong(name, value, expected, kind=ValueError):
    return kind(f"{name} of the KerasClassifier must be {expected}, got {value!r}.")
