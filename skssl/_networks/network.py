"""From a scikeras wrapper to a Keras network: one backbone, and a class head."""

import itertools
import math
import warnings
from dataclasses import dataclass

import keras
import numpy as np
from keras.src.models.functional import Functional

from .._data.images import channels_first_hint, load_batch
from .._runtime import check_process, seeded_process
from .graph import (
    GRAPH_CLASSES,
    LayerCopies,
    all_layers,
    call_of,
    calls,
    front_of,
    is_graph,
    kinds,
    normalizations,
    replay,
)
from .settings import (
    compile_settings,
    default_loss,
    fit_settings,
    takes_one_hot,
    wrap,
)

# Few labels make few batches: with 100 labels in batches of 64, five epochs are ten
# steps, after which no network has learned anything. So the number of epochs follows
# from a number of steps, unless the wrapper gives it; and where a pass over the labels
# takes but a few steps, an epoch is several passes, since each epoch has a fixed cost.
MIN_FINETUNE_STEPS = 1000
MIN_FINETUNE_EPOCHS = 5
MIN_EPOCH_STEPS = 50
# Methods in which a network of the user's own class may do what its graph does not say.
OVERRIDES = """
    __call__ call train_step test_step predict_step compute_loss compute_metrics
    get_metrics_result make_train_function make_test_function make_predict_function fit
    evaluate predict
""".split()


@dataclass
class Network:
    """A built network, and how its wrapper wants it trained."""

    backbone: keras.Model  # images to embedding, standardisation included
    standardize: bool  # whether its Normalization layers are to be adapted
    classifier: keras.Model  # images to whatever the class head gives, for training
    model: keras.Model  # images to class probabilities; shares all weights
    compile_kwargs: dict  # optimizer (a fresh one), loss, metrics, …
    one_hot: bool  # whether the loss takes one-hot targets
    fit_kwargs: dict  # epochs, batch_size, validation_split, callbacks, …

    @property
    def layers(self):
        """The layers of the backbone that `frozen_layers` counts."""
        uncounted = keras.layers.InputLayer | keras.layers.Normalization
        return [x for x in self.backbone.layers if not isinstance(x, uncounted)]


def build_network(estimator, image_shape, seed, classes=None, standardize="auto"):
    """Build a fresh network from what the user gave as `estimator`.

    Parameters
    ----------
    estimator : KerasClassifier, callable, keras.Model or None
        The `estimator` parameter. It is never changed.
    image_shape : tuple of int
        (height, width, channels) of the images.
    seed : int
        Seed of the initial weights.
    classes : ndarray of shape (n_classes,), default=None
        Class labels; None where only the backbone is wanted.
    standardize : bool or "auto", default="auto"
        Whether the images are standardised inside the network.

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
    labels = np.arange(2) if classes is None else classes
    with seeded_process(seed):
        wrapper = wrap(estimator)
        given = isinstance(wrapper.model, keras.Model) and bool(wrapper.model.weights)
        # scikeras looks at the shapes of X and at the classes in y only.
        wrapper.initialize(np.zeros((len(labels), *image_shape), np.float32), labels)
        model = wrapper.model_
        embedding, head, tail = _split(model, image_shape)
        _check_precision(model)
        if classes is not None:
            _check_head(head, tail, len(classes))
        if standardize == "auto" and given:
            standardize = False
        backbone = _backbone(model, embedding, image_shape, standardize)
        inputs = keras.Input(image_shape, name="images")
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
    compile_kwargs = compile_settings(wrapper)
    if compile_kwargs["loss"] is None:
        compile_kwargs["loss"] = default_loss(head.units, from_logits)
    return Network(
        backbone=backbone,
        standardize=standardize is not False,
        classifier=classifier,
        model=model,
        compile_kwargs=compile_kwargs,
        one_hot=head.units > 1 and takes_one_hot(compile_kwargs["loss"]),
        fit_kwargs=fit_settings(wrapper),
    )


def _split(model, image_shape):
    """Find the class head of a network by its graph.

    Returns
    -------
    embedding : keras.KerasTensor
        What the head sees, on the input of the model.
    head : keras.layers.Dense
        The Dense layer whose output, behind the tail, is that of the model.
    tail : keras.layers.Layer, keras.Operation or None
        The softmax or sigmoid behind the head, if any.
    """
    if isinstance(model, keras.Sequential) and not model.built:
        model.build((None, *image_shape))
    _check_class(model)
    (model_input,), (output,) = model.inputs, model.outputs
    accepted = tuple(model_input.shape[1:])
    if len(accepted) != 3 or any(
        a not in (None, b) for a, b in zip(accepted, image_shape, strict=True)
    ):
        raise ValueError(
            f"The network takes inputs of shape {accepted}, but the images have shape "
            f"{image_shape} (height, width, channels)."
            f"{channels_first_hint((1, *image_shape))}"
        )
    call, tail = call_of(output), None
    if _is_tail(call.operation):
        tail, call = call.operation, call_of(call.input_tensors[0])
    head = call.operation
    if not isinstance(head, keras.layers.Dense):
        raise ValueError(
            "The network must end in a class head, a Dense layer with one unit a class "
            f"(and a softmax), but its last layer is {head!r}. Where the head is a "
            "convolution or lies inside a nested network, as in keras.applications, "
            "leave it out (as by include_top=False, pooling='avg') and put a Dense "
            "layer behind."
        )
    (embedding,) = call.input_tensors
    if len(embedding.shape) != 2:
        raise ValueError(
            "The class head must see one embedding an image, of shape (n_embedding,), "
            f"but it sees {embedding.shape[1:]}. Put a Flatten or a "
            "GlobalAveragePooling2D layer before it."
        )
    return embedding, head, tail


def _check_class(model):
    """Refuse a network that does more than its graph says."""
    one_of_each = isinstance(model, GRAPH_CLASSES) and model.built
    if not (one_of_each and len(model.inputs) == len(model.outputs) == 1):
        raise TypeError(
            "The network must be a Functional or Sequential keras.Model with one input "
            f"and one output, got {model!r}."
        )
    plain = keras.Sequential if isinstance(model, keras.Sequential) else Functional
    own = [
        name
        for name in OVERRIDES
        if name in vars(model) or getattr(type(model), name) is not getattr(plain, name)
    ]
    if own:
        raise TypeError(
            f"The network {type(model).__name__} has its own {', '.join(own)}, which "
            "skssl would not call: it trains the layers in the graph of the network by "
            "steps of Keras. Write what they do as layers, as the loss or as callbacks."
        )


def _is_tail(operation):
    """Whether an operation may stand behind the class head."""
    is_layer = isinstance(operation, keras.layers.Softmax | keras.layers.Activation)
    is_operation = type(operation).__module__.startswith("keras.") and type(
        operation
    ).__name__ in ("Softmax", "Sigmoid")
    axis = getattr(operation, "axis", -1)
    return (is_layer or is_operation) and axis in (-1, 1)


def _check_head(head, tail, n_classes):
    activation = getattr(tail, "activation", head.activation)
    known = (
        keras.activations.softmax,
        keras.activations.sigmoid,
        keras.activations.linear,
    )
    normalizes = tail is not None and not hasattr(tail, "activation")
    if normalizes or activation in known:
        if head.units == n_classes or (head.units == 1 and n_classes == 2):
            return
    raise ValueError(
        f"The network must end in a class head, a Dense layer of {n_classes} units "
        f"with a softmax for the {n_classes} classes in y (for two classes also of "
        f"one unit with a sigmoid), but its last Dense layer has {head.units} units "
        f"and the activation {activation.__name__!r}. A build function finds the "
        "number of classes in meta['n_classes_']."
    )


def _check_precision(model):
    """Refuse weights of 16 bits, which small steps of an optimizer do not change."""
    kinds = {variable.dtype for variable in model.trainable_variables}
    kinds.add(keras.config.floatx())
    for kind in sorted(kinds & {"float16", "bfloat16"}):
        raise ValueError(
            f"Weights must have 32 or 64 bits to learn, got {kind}. Set "
            "keras.config.set_floatx('float32'); to compute faster, set "
            f"keras.config.set_dtype_policy('mixed_{kind}') as well, which keeps the "
            "weights in float32."
        )


def _backbone(model, embedding, image_shape, standardize):
    """Return the network from images to the embedding, standardised as asked.

    The layers are those of the model. Where something is put between them, or the
    model takes images of any size, they are copies, so that `output` of each layer
    belongs to this network, and no other network of the user's is touched.
    """
    (model_input,) = model.inputs
    features = keras.Model(model_input, embedding, name="backbone")
    front = front_of(features)
    if front.channels_first:
        raise ValueError(
            "skssl gives images of shape (height, width, channels), but the layer "
            f"{front.channels_first[0].name!r} of the network takes channels first. "
            "Build it with data_format='channels_last', or put "
            "keras.layers.Permute((3, 1, 2)) before it."
        )
    if standardize == "auto":
        insert = not front.scales
    else:
        insert = standardize and not front.normalizes
    if not standardize and any(
        seen is None and not _is_adapted(layer)
        for layer, seen in normalizations(features)
    ):
        warnings.warn(
            "The network starts with a Normalization layer that was never adapted, so "
            "it passes the images unchanged. Call its adapt method, or set "
            "standardize=True.",
            UserWarning,
            stacklevel=2,
        )
    if not insert and tuple(model_input.shape) == (None, *image_shape):
        return features
    inputs = keras.Input(image_shape, dtype=model_input.dtype)
    name = None
    if "standardize" not in [layer.name for layer in features.layers]:
        name = "standardize"
    call = _Rebuilding(inputs, name, insert, beyond_scaling=standardize is True)
    outputs = call.finish(replay(features, inputs, call))
    call.copies.take_weights()
    return keras.Model(inputs, outputs, name="backbone")


class _Rebuilding:
    """Calls copies of the layers of a network, with a Normalization layer put in.

    It stands behind the leading augmentation, in front of all else that the image
    passes.

    Parameters
    ----------
    image : keras.KerasTensor
        Input of the network.
    name : str or None
        Name of the layer.
    insert : bool
        Whether to put it in.
    beyond_scaling : bool
        Whether it stands behind scaling of the network's own, too.
    """

    def __init__(self, image, name, insert, beyond_scaling):
        self.layer = keras.layers.Normalization(name=name)
        self.copies = LayerCopies()
        self.passed = {"augmentation"} | ({"scaling"} if beyond_scaling else set())
        # Tensors that are not standardised yet, but shall be.
        self.open = {id(image): image} if insert else {}
        self.standardized = {}

    def __call__(self, operation, *args, **kwargs):
        """Call an operation, on standardised tensors unless it comes before."""
        tensors = [x for x in keras.tree.flatten((args, kwargs)) if id(x) in self.open]
        found = kinds(operation) - {"neutral"}
        if tensors and found and found <= self.passed:
            outputs = self.copies(operation)(*args, **kwargs)
            self.open.update((id(x), x) for x in keras.tree.flatten(outputs))
            return outputs
        if tensors and is_graph(operation) and self._enters(operation):
            return replay(operation, args[0], self)
        args, kwargs = keras.tree.map_structure(self.finish, (args, kwargs))
        return self.copies(operation)(*args, **kwargs)

    def _enters(self, nested):
        """Whether a nested network begins with something that comes before."""
        first = calls(nested)[0].operation
        return bool(kinds(first) & self.passed)

    def finish(self, x):
        """Return a tensor standardised, and anything else as it is."""
        if id(x) not in self.open:
            return x
        if id(x) not in self.standardized:
            self.standardized[id(x)] = self.layer(x)
        return self.standardized[id(x)]


def _is_adapted(normalization):
    mean, variance = normalization.get_weights()[:2]
    return mean.any() or (variance != 1).any()


def set_statistics(network, images, distinct):
    """Adapt each Normalization layer of a network to what it sees of the images.

    A layer that the user has adapted already keeps its own statistics.

    Parameters
    ----------
    network : Network
        The network, changed in place.
    images : ndarray of shape (n_samples, [n_views,] height, width, channels)
        Training images.
    distinct : DistinctImages
        Which rows to look at, and the statistics of their pixels by channel.
    """
    if not network.standardize:
        return
    for layer, before in normalizations(network.backbone):
        if _is_adapted(layer):
            continue
        if before is None and layer.axis in ((-1,), (3,)):
            mean, scale = distinct.mean[None, None], distinct.scale[None, None]
        else:
            mean, scale = _statistics(before, images, distinct.rows, layer.axis)
        # Of two images at mean - scale and mean + scale these are mean and deviation.
        layer.adapt(np.stack([mean - scale, mean + scale]))


def _statistics(before, images, rows, axis, batch_size=128):
    """Return mean and deviation of what a Normalization layer sees.

    Parameters
    ----------
    before : keras.Model or None
        Network from the images to what the layer sees; None where it sees the images.
    images : ndarray of shape (n_samples, [n_views,] height, width, channels)
        Images, read a batch at a time.
    rows : ndarray of shape (n_rows,)
        The rows to look at.
    axis : tuple of int
        Axes that have statistics of their own, as in `keras.layers.Normalization`.
    batch_size : int, default=128
        Number of rows in a batch.

    Returns
    -------
    mean, scale : ndarray
        Of the shape of what is seen, without the axis of the batch, and 1 along each
        axis that is not in `axis`. The scale is 1 where float32 resolves none.
    """
    n_values, mean, squares = 0, 0.0, 0.0
    for start in range(0, len(rows), batch_size):
        batch = load_batch(images[rows[start : start + batch_size]])
        seen = batch = batch.reshape(-1, *images.shape[-3:])
        if before is not None:
            seen = keras.ops.convert_to_numpy(before(batch, training=False))
        seen = seen.astype(np.float64)
        kept = {x % seen.ndim for x in axis}
        reduced = tuple(x for x in range(seen.ndim) if x not in kept)
        n_new = math.prod(seen.shape[x] for x in reduced)
        new_mean = seen.mean(axis=reduced, keepdims=True)
        # Chan, Golub and LeVeque (1979), equation 2.1: merge two sets of values.
        shift, share = new_mean - mean, n_new / (n_values + n_new)
        squares += ((seen - new_mean) ** 2).sum(axis=reduced, keepdims=True)
        squares += shift**2 * n_values * share
        mean, n_values = mean + shift * share, n_values + n_new
    scale = np.sqrt(squares / n_values)
    resolved = scale > np.finfo(np.float32).eps * np.abs(mean)
    return mean[0], np.where(resolved, scale, 1.0)[0]


def check_pretraining(network, pretext):
    """Warn where a network cannot learn from a pretext task.

    Parameters
    ----------
    network : Network
        The network that is to be pretrained.
    pretext : PretextTask
        The fitted task.
    """
    task = type(pretext).__name__
    undoing = [x for x in all_layers(network.backbone) if pretext.is_undone_by(x)]
    if undoing:
        names = ", ".join(f"{type(x).__name__} {x.name!r}" for x in undoing)
        warnings.warn(
            f"Augmentation in the network makes {task} unsolvable: {names}. Narrow it "
            "or leave it out, choose another pretext task or other angles, or set "
            "pretrain_epochs=0.",
            UserWarning,
            stacklevel=2,
        )
    if not network.backbone.trainable_weights:
        warnings.warn(
            "All of the network before its class head is frozen or without weights, so "
            f"{task} trains nothing that is kept. Set trainable=True on the layers "
            "that it is to train, or pretrain_epochs=0.",
            UserWarning,
            stacklevel=2,
        )


def copy_weights(source, target):
    """Give one model the weights of another of the same network."""
    target.set_weights(source.get_weights())
    for layer in all_layers(target):
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
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
    """Split a network after its leading frozen layers, whose outputs never change.

    Returns
    -------
    parts : tuple of keras.Model or None
        From images to the outputs of the last constant layer, and from there to what
        the class head gives; both share all weights with the network. None where no
        layer is frozen, or where the layers are not one chain.
    """
    backbone = network.backbone
    chain = calls(backbone)
    outputs = [backbone.inputs[0], *(call.outputs[0] for call in chain)]
    for call, seen in zip(chain, outputs, strict=False):
        if len(call.outputs) > 1 or [id(x) for x in call.input_tensors] != [id(seen)]:
            return None
    operations = [call.operation for call in chain]
    constant = list(itertools.takewhile(_is_constant, operations))
    is_used_twice = len(set(map(id, operations))) < len(operations)
    if is_used_twice or not any(x.weights for x in constant if x in network.layers):
        return None
    cut = outputs[len(constant)]
    rest = inputs = keras.Input(cut.shape[1:])
    if len(constant) < len(chain):
        rest = keras.Model(cut, outputs[-1])(rest)
    for layer in network.classifier.operations[2:]:  # behind images and backbone
        rest = layer(rest)
    return keras.Model(outputs[0], cut), keras.Model(inputs, rest)


def _is_constant(layer):
    """Whether a layer or operation does the same at every step of training."""
    if not isinstance(layer, keras.layers.Layer):
        return type(layer).__module__.startswith("keras.")
    if isinstance(layer, keras.Model):
        return is_graph(layer) and all(map(_is_constant, layer.layers))
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


def finetune_schedule(n_samples, batch_size):
    """Return how many epochs of how many passes give `n_samples` enough steps."""
    steps = math.ceil(n_samples / batch_size)
    passes = math.ceil(MIN_EPOCH_STEPS / steps)
    epochs = math.ceil(MIN_FINETUNE_STEPS / (passes * steps))
    return max(MIN_FINETUNE_EPOCHS, epochs), passes
