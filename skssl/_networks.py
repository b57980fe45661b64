"""From a scikeras wrapper to a Keras network: one backbone, and a class head.

This is the only module that knows scikeras. It takes two things from there: the
routing of parameters (``optimizer__learning_rate``, ``model__filters``) and the network
that the wrapper builds. Everything else that a wrapper does, scikit-learn or Keras does
better.
"""

import contextlib
import functools
import itertools
import math
import os
import platform
from dataclasses import dataclass
from importlib.metadata import version

import keras
import numpy as np
import tensorflow as tf
from scikeras.utils import loss_name
from scikeras.wrappers import KerasClassifier
from sklearn.base import clone

from ._archive import reason
from ._cnn import build_cnn
from ._identity import Unidentifiable, own_code
from ._packing import named_functions
from ._trainers import architecture, seeded

# Few labels make few batches: with 100 labels in batches of 64, five epochs are ten
# steps, after which no network has learned anything. So the number of epochs follows
# from a number of steps, unless the wrapper gives it; and where a pass over the labels
# takes but a few steps, an epoch is several passes, since each epoch has a fixed cost.
MIN_FINETUNE_STEPS = 1000
MIN_FINETUNE_EPOCHS = 5
MIN_EPOCH_STEPS = 50


IMPORTING_PROCESS = os.getpid()


def _keep_to_share_of_cores():
    """Give TensorFlow as many threads as joblib allows a worker, in OMP_NUM_THREADS."""
    n_threads = os.environ.get("OMP_NUM_THREADS", "")
    threading = tf.config.threading
    if n_threads.isdigit() and not threading.get_intra_op_parallelism_threads():
        with contextlib.suppress(RuntimeError):  # TensorFlow runs already
            threading.set_intra_op_parallelism_threads(int(n_threads))
            threading.set_inter_op_parallelism_threads(int(n_threads))


_keep_to_share_of_cores()


def check_process():
    """Refuse to run TensorFlow in a forked process, where it waits forever."""
    if os.getpid() != IMPORTING_PROCESS:
        raise RuntimeError(
            "TensorFlow was imported before this process was forked, and would wait "
            "here forever. Use processes that start afresh: joblib's default backend "
            "'loky', or the start methods 'spawn' or 'forkserver' of multiprocessing."
        )


@dataclass
class Network:
    """A built network, and how its wrapper wants it trained."""

    backbone: keras.Model  # images to embedding, standardisation included
    layers: list  # the layers of the backbone that frozen_layers counts
    classifier: keras.Model  # images to whatever the class head gives, for training
    model: keras.Model  # images to class probabilities; shares all weights
    compile_kwargs: dict  # optimizer (a fresh one), loss, metrics, …
    one_hot: bool  # whether the loss takes one-hot targets
    fit_kwargs: dict  # epochs, batch_size, validation_split, callbacks, …
    class_weight: dict | str | None


def build_network(estimator, image_shape, seed, classes=None):
    """Build a fresh network from what the user gave as `estimator`.

    Parameters
    ----------
    estimator : KerasClassifier, callable, keras.Model or None
        The `estimator` parameter. It is cloned, never changed.
    image_shape : tuple of int
        (height, width, channels) of the images.
    seed : int
        Seed of the initial weights.
    classes : ndarray of shape (n_classes,), default=None
        Class labels; None where only the backbone is wanted.

    Returns
    -------
    network : Network
        The network in its initial state.

    Raises
    ------
    TypeError
        If `estimator` is none of the above, or no Functional or Sequential model.
    ValueError
        If the network does not take such images or does not end in a class head.
    """
    check_process()
    wrapper = _wrap(estimator)
    labels = np.arange(2) if classes is None else classes
    with seeded(seed):
        # scikeras looks at the shapes of X and at the classes in y only.
        wrapper.initialize(np.zeros((len(labels), *image_shape), np.float32), labels)
        inputs = keras.Input(image_shape, name="images")
        features, head, tail, layers = _split(wrapper.model_, image_shape)
        backbone = keras.Model(
            inputs, features(_standardized(features, inputs)), name="backbone"
        )
        if classes is not None:
            _check_head(head, tail, len(classes))
        outputs = head(backbone(inputs))
        from_logits = tail is None and head.activation is keras.activations.linear
        if tail is not None:
            outputs = tail(outputs)
        classifier = keras.Model(inputs, outputs, name="classifier")
        probabilities = outputs
        if from_logits:
            name = "sigmoid" if head.units == 1 else "softmax"
            probabilities = keras.layers.Activation(name)(outputs)
        # A model of its own, without the optimizer, which is as large as two networks.
        model = keras.Model(inputs, probabilities, name="classifier")
    compile_kwargs = _compile_kwargs(wrapper)
    if compile_kwargs["loss"] is None:
        compile_kwargs["loss"] = _default_loss(head.units, from_logits)
    return Network(
        backbone=backbone,
        layers=layers,
        classifier=classifier,
        model=model,
        compile_kwargs=compile_kwargs,
        one_hot=head.units > 1 and _takes_one_hot(compile_kwargs["loss"]),
        fit_kwargs=_fit_kwargs(wrapper),
        class_weight=wrapper.class_weight,
    )


def _wrap(estimator):
    """Return `estimator` as a KerasClassifier of our own."""
    if isinstance(estimator, KerasClassifier):
        return clone(estimator)
    if estimator is None:
        estimator = build_cnn
    if isinstance(estimator, keras.Model) or (
        callable(estimator) and not isinstance(estimator, type)
    ):
        return clone(
            KerasClassifier(estimator, optimizer="adam", batch_size=64, epochs=None)
        )
    raise TypeError(
        "estimator must be a scikeras KerasClassifier, a function that builds a "
        f"keras.Model, a keras.Model or None, got {estimator!r}."
    )


def _split(model, image_shape):
    """Part a model into its features, class head and what follows the head.

    Returns
    -------
    features : keras.Model
        All before the head, on the model's own input.
    head : keras.layers.Dense
        The last Dense layer.
    tail : keras.layers.Layer or None
        The softmax or sigmoid layer behind it, if any.
    layers : list of keras.layers.Layer
        The layers of `features`, input and standardisation left out.
    """
    if isinstance(model, keras.Sequential) and not model.built:
        model.build((None, *image_shape))
    try:
        (model_input,), (_,) = model.inputs, model.outputs
    except (AttributeError, TypeError, ValueError):
        raise TypeError(
            "The network must be a Functional or Sequential keras.Model with one input "
            f"and one output, got {model!r}."
        ) from None
    accepted = tuple(model_input.shape[1:])
    if len(accepted) != 3 or any(
        a not in (None, b) for a, b in zip(accepted, image_shape, strict=True)
    ):
        raise ValueError(
            f"The network takes inputs of shape {accepted}, but the images have shape "
            f"{image_shape} (height, width, channels)."
        )
    *body, head = model.layers or [None]
    tail = None
    if isinstance(head, keras.layers.Softmax | keras.layers.Activation) and body:
        head, tail = body[-1], head
    if not isinstance(head, keras.layers.Dense):
        raise ValueError(
            "The network must end in a class head, a Dense layer with one unit a class "
            f"(and a softmax), but its last layer is {head!r}."
        )
    features = keras.Model(model_input, head.input, name="features")
    if len(features.output_shape) != 2:
        raise ValueError(
            "The class head must see one embedding an image, of shape (n_embedding,), "
            f"but it sees {features.output_shape[1:]}. Put a Flatten or a "
            "GlobalAveragePooling2D layer before it."
        )
    uncounted = keras.layers.InputLayer | keras.layers.Normalization
    layers = [x for x in features.layers if not isinstance(x, uncounted)]
    return features, head, tail, layers


def _check_head(head, tail, n_classes):
    activation = getattr(tail, "activation", head.activation)
    known = (
        keras.activations.softmax,
        keras.activations.sigmoid,
        keras.activations.linear,
    )
    if isinstance(tail, keras.layers.Softmax) or activation in known:
        if head.units == n_classes or (head.units == 1 and n_classes == 2):
            return
    raise ValueError(
        f"The network must end in a class head, a Dense layer of {n_classes} units "
        f"with a softmax for the {n_classes} classes in y (for two classes also of "
        f"one unit with a sigmoid), but its last Dense layer has {head.units} units "
        f"and the activation {activation.__name__!r}. A build function finds the "
        "number of classes in meta['n_classes_']."
    )


def _standardized(features, inputs):
    """Standardise the inputs, unless the network starts by scaling them itself."""
    own = (keras.layers.Normalization, keras.layers.Rescaling)
    if any(isinstance(layer, own) for layer in features.layers[:2]):
        return inputs
    return keras.layers.Normalization(name="standardize")(inputs)


def set_statistics(backbone, mean, scale):
    """Standardise by this mean and deviation of each channel.

    A layer that the user has adapted already keeps its own statistics.
    """
    for layer in _normalizations(backbone):
        own_mean, own_variance = layer.get_weights()[:2]
        if own_mean.any() or (own_variance != 1).any():
            continue
        # Of two images at mean - scale and mean + scale these are mean and deviation.
        layer.adapt(np.stack([mean - scale, mean + scale])[:, None, None, :])


def copy_weights(source, target):
    """Give one model the weights of another of the same network."""
    target.set_weights(source.get_weights())
    for layer in _normalizations(target):
        layer.finalize_state()  # it derives tensors from its weights


def transfer_weights(source, network):
    """Give a network a pretrained backbone, but keep a last Dense layer fresh.

    What such a layer has learned is the pretext task, and its outputs have grown so
    large for it that the few steps of fine-tuning hardly change it any more. A frozen
    one keeps its pretrained weights, and so does an only layer with weights.
    """
    *others, last = [layer for layer in network.layers if layer.weights] or [None]
    fresh = isinstance(last, keras.layers.Dense) and last.trainable and others
    own_weights = last.get_weights() if fresh else None
    copy_weights(source, network.backbone)
    if fresh:
        last.set_weights(own_weights)


def _normalizations(model):
    """Return the layers that keep statistics of the training images as weights."""
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            found.append(layer)
        found += _normalizations(layer) if isinstance(layer, keras.Model) else []
    return found


def freeze(network, frozen_layers):
    """Freeze the first layers of the backbone, `frozen_layers` of them."""
    n_layers = len(network.layers)
    if frozen_layers == "all":
        frozen_layers = n_layers
    if not -n_layers <= frozen_layers <= n_layers:
        raise ValueError(
            f"frozen_layers={frozen_layers} is out of range: the backbone has "
            f"{n_layers} layers. Give 'all' or an int from {-n_layers} to {n_layers}."
        )
    for layer in network.layers[:frozen_layers]:
        layer.trainable = False


def split_frozen(network):
    """Part a network behind its frozen layers, where their outputs never change.

    Returns
    -------
    parts : tuple of keras.Model or None
        From images to the outputs of the last constant layer, and from there to what
        the class head gives; both share all weights with the network. None where no
        layer is frozen, or where the layers are not one chain.
    """
    _, *standardize, features = network.backbone.layers
    chain = features.layers
    constant = list(itertools.takewhile(_is_constant, chain))
    if not any(layer.weights for layer in constant if layer in network.layers):
        return None
    try:
        if any(b.input is not a.output for a, b in itertools.pairwise(chain)):
            return None
    except (AttributeError, ValueError):  # a layer that is used twice
        return None
    cut = constant[-1].output
    front = network.backbone.input
    for layer in [*standardize, keras.Model(features.input, cut)]:
        front = layer(front)
    rest = inputs = keras.Input(cut.shape[1:])
    if len(constant) < len(chain):
        rest = keras.Model(cut, features.output)(rest)
    for layer in network.classifier.layers[2:]:  # behind the images and the backbone
        rest = layer(rest)
    return keras.Model(network.backbone.input, front), keras.Model(inputs, rest)


def _is_constant(layer):
    """Whether a layer does the same to an image at every step of training."""
    if isinstance(layer, keras.Model):
        return all(map(_is_constant, layer.layers))
    return (
        type(layer).__module__.startswith("keras.")
        and not isinstance(layer, keras.layers.Lambda | keras.layers.Wrapper)
        and (
            not layer.weights
            or not layer.trainable
            or isinstance(layer, keras.layers.Normalization)
        )
        and len(layer.variables) == len(layer.weights)  # else the state of a generator
        and getattr(layer, "activity_regularizer", None) is None
    )


@functools.cache
def _versions():
    """Return the versions of Python, whose bytecode each has its own, and libraries."""
    names = "skssl keras tensorflow numpy scipy scikit-learn scikeras".split()
    return {"python": platform.python_version(), **{x: version(x) for x in names}}


def describe(model, compile_kwargs):
    """Return all that decides how a network trains, for its fingerprint.

    Returns
    -------
    parts : list of str, dict and ndarray
        Architecture and settings, code of the user's own, versions, precision, then
        every weight.

    Raises
    ------
    Unidentifiable
        If the network or what it depends on cannot be described.
    """
    code = own_code(model, compile_kwargs)
    try:
        with named_functions([model, compile_kwargs]) as ((_, settings), _):
            text = architecture(model, settings)
    except Exception as error:  # of a layer of the user's, which may raise anything
        raise Unidentifiable(
            f"a network that Keras cannot describe ({reason(error)})"
        ) from error
    precision = [keras.config.dtype_policy().name, keras.config.floatx()]
    weights = [variable.numpy() for variable in model.variables]
    return [text, code, _versions(), precision, *weights]


def _compile_kwargs(wrapper):
    model = wrapper.model_
    if model.compiled:
        kwargs = {
            "optimizer": model.optimizer,
            "loss": model.loss,
            "metrics": wrapper.metrics,
            "run_eagerly": model.run_eagerly,
        }
    else:
        kwargs = wrapper._get_compile_kwargs()
    optimizer = keras.optimizers.get(kwargs["optimizer"])
    kwargs["optimizer"] = type(optimizer).from_config(optimizer.get_config())
    kwargs["metrics"] = kwargs["metrics"] or ["accuracy"]
    return kwargs


def _default_loss(units, from_logits):
    if units == 1:
        return keras.losses.BinaryCrossentropy(from_logits=from_logits)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)


def _takes_one_hot(loss):
    """Whether a loss of Keras compares with one-hot targets, not class indices."""
    loss = keras.losses.get(loss)
    if not str(loss.__module__).startswith("keras."):
        return False  # the user's own: class indices, as scikeras gives them
    return not loss_name(loss).startswith("sparse_")


def _fit_kwargs(wrapper):
    """Return the wrapper's settings for training, fit__… ones first."""
    params = wrapper.get_params()
    names = (
        "epochs",
        "batch_size",
        "validation_split",
        "shuffle",
        "validation_freq",
    )
    settings = {
        name: params[key]
        for name in names
        for key in (name, f"fit__{name}")
        if key in params
    }
    return {**settings, "callbacks": wrapper._fit_callbacks}


def finetune_schedule(n_samples, batch_size):
    """Return how many epochs of how many passes give `n_samples` enough steps."""
    steps = math.ceil(n_samples / batch_size)
    passes = math.ceil(MIN_EPOCH_STEPS / steps)
    epochs = math.ceil(MIN_FINETUNE_STEPS / (passes * steps))
    return max(MIN_FINETUNE_EPOCHS, epochs), passes
