"""Copies of what the user gives, whose classes Keras need not know.

Keras copies by a configuration and the name of a class, which fails for a class that is
not registered. Here the class is at hand. Two private names serve that:
`_compile_config` of a compiled model, which holds what it was compiled with, and
`_learning_rate` of an optimizer, which is its schedule where it has one.
"""

import inspect
from numbers import Real

import keras

from .graph import all_layers, is_graph
from .packing import error_summary, is_of_keras, packed


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
        why = str(error) if unknown else error_summary(error.__cause__ or error)[:100]
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
    return is_of_keras(cls) or keras.saving.get_registered_object(registered) is cls


def compiled_with(model):
    """Return the arguments that a model was compiled with."""
    settings = dict(model._compile_config.config)
    scaled = keras.optimizers.LossScaleOptimizer
    settings["auto_scale_loss"] = (
        model.dtype_policy.name != "mixed_float16" or type(model.optimizer) is scaled
    )
    return settings


class LayerCopies:
    """Copies of layers, one for each, which leave the graphs of the originals alone.

    A layer may belong to a model that the user goes on with. A layer of the user's own,
    and one that its configuration does not fully describe, is used itself.
    """

    def __init__(self):
        self.pairs = {}  # id of a layer: the layer and its copy

    def __call__(self, operation):
        """Return the copy of a layer; an operation that is no layer as it is."""
        if id(operation) not in self.pairs:
            self.pairs[id(operation)] = operation, self._copy(operation)
        return self.pairs[id(operation)][1]

    def _copy(self, operation):
        # A Lambda is a layer of Keras with code of the user's own.
        is_layer = isinstance(operation, keras.layers.Layer)
        if isinstance(operation, keras.layers.Lambda) or not (
            is_layer and is_of_keras(type(operation))
        ):
            return operation
        if is_graph(operation):
            return keras.models.clone_model(operation, clone_function=self)
        try:
            return type(operation).from_config(operation.get_config())
        except Exception:  # it holds a function or an object of the user's own
            return operation

    def take_weights(self):
        """Give the copies the weights of the originals, once they are built."""
        for original, copied in self.pairs.values():
            # A nested network has the weights of its layers.
            if copied is not original and not is_graph(original):
                set_layer_weights(copied, original.get_weights())


def set_layer_weights(layer, weights):
    """Set the weights of a layer, and what it derives from them."""
    layer.set_weights(weights)
    if weights and isinstance(layer, keras.layers.Normalization):
        layer.finalize_state()


def fresh_optimizer(optimizer, cls=None, **settings):
    """Return an optimizer equal to a given one, which has not trained anything.

    The given one stays as it is. A schedule as its learning rate is taken over. The
    fresh one is of another class if `cls` says so, and differs in some settings if
    these are given.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        inner = fresh_optimizer(optimizer.inner_optimizer, **settings)
        return type(optimizer)(**{**optimizer.get_config(), "inner_optimizer": inner})
    rate = optimizer._learning_rate
    if isinstance(rate, keras.Variable):
        return _rebuilt(optimizer, cls, **settings)
    # The schedule need not have a configuration: ask an optimizer without it for its.
    without_rate = object.__new__(type(optimizer))
    vars(without_rate).update(vars(optimizer), _learning_rate=None)
    return _rebuilt(without_rate, cls, **{"learning_rate": rate, **settings})


def fresh_metric(metric):
    """Return a new metric equal to a given one; anything else as it is."""
    return _rebuilt(metric) if isinstance(metric, keras.metrics.Metric) else metric


def _rebuilt(original, cls=None, **arguments):
    """Return a new optimizer or metric, equal to a given one.

    Its configuration is completed by arguments. What it leaves out besides is refused
    where it makes a difference.
    """

    def refusal(why):
        return TypeError(
            f"An instance of {type(original).__name__} cannot be built from its "
            f"get_config() ({why}). Let get_config return every argument of the "
            "constructor."
        )

    attributes = vars(original)
    functions = {x.__name__: x for x in attributes.values() if inspect.isfunction(x)}
    try:
        with keras.saving.custom_object_scope(functions):
            config = {**original.get_config(), **arguments}
            rebuilt = (cls or type(original)).from_config(config)
    except Exception as error:
        raise refusal(error_summary(error)[:200]) from error
    if is_of_keras(type(original)):
        return rebuilt
    # What the classes of Keras set is in the configuration, or changes in training.
    by_keras = {*vars(keras.optimizers.Optimizer(0.0)), *vars(keras.metrics.Metric())}
    for name, value in attributes.items():
        parts = keras.tree.flatten(value)
        simple = all(isinstance(x, bool | Real | str | None) for x in parts)
        if simple and name not in by_keras and vars(rebuilt).get(name) != value:
            raise refusal(f"{name}={value!r} is not in it")
    return rebuilt
