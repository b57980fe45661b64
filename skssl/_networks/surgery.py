"""Changes to a built network: head, standardisation, weights, freezing.

A network is split into a backbone and a class head, and the backbone is rebuilt with a
layer that standardises the images. Its weights come from pretraining. Its first layers
are frozen, and their output is computed once.
"""

import itertools
import math
import warnings

import keras
import numpy as np
from sklearn.preprocessing import StandardScaler

from .._data.images import load_batch
from .copies import LayerCopies, set_layer_weights
from .graph import (
    MOVES_AXES,
    all_layers,
    call_of,
    calls,
    is_graph,
    kinds,
    normalizations,
    operations_before_weights,
)
from .packing import is_of_keras

# Number of images that statistics are computed of at once.
BATCH_SIZE = 128

# The class head


def split_head(model):
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
    call, tail = call_of(model.outputs[0]), None
    if _is_tail(call.operation):
        tail, call = call.operation, call_of(call.input_tensors[0])
    head = call.operation
    if not isinstance(head, keras.layers.Dense):
        raise ValueError(
            "The network must end in a class head, a Dense layer with one unit per "
            f"class (and a softmax), but its last layer is {head!r}. Where the head is "
            "a convolution or lies inside a nested network, as in keras.applications, "
            "leave it out (as by include_top=False, pooling='avg') and put a Dense "
            "layer behind."
        )
    (embedding,) = call.input_tensors
    if len(embedding.shape) != 2:
        raise ValueError(
            "The class head must see one embedding per image, of shape (n_embedding,), "
            f"but it sees {embedding.shape[1:]}. Put a Flatten or a "
            "GlobalAveragePooling2D layer before it."
        )
    return embedding, head, tail


def _is_tail(operation):
    """Whether an operation may stand behind the class head."""
    is_layer = isinstance(operation, keras.layers.Softmax | keras.layers.Activation)
    name = type(operation).__name__
    is_operation = is_of_keras(type(operation)) and name in ("Softmax", "Sigmoid")
    return (is_layer or is_operation) and getattr(operation, "axis", -1) in (-1, 1)


def gives_logits(head, tail):
    """Whether a class head gives logits, for a softmax or sigmoid after it."""
    linear = keras.activations.linear
    is_linear_tail = tail is None or getattr(tail, "activation", None) is linear
    return head.activation is linear and is_linear_tail


def check_head(head, tail, n_classes):
    """Refuse a class head of other classes than those in y."""
    activation = getattr(tail, "activation", head.activation)
    name = getattr(activation, "__name__", activation)
    is_known = activation in (
        keras.activations.softmax,
        keras.activations.sigmoid,
        keras.activations.linear,
    )
    normalizes = tail is not None and not hasattr(tail, "activation")
    fits = head.units == n_classes or (head.units == 1 and n_classes == 2)
    if not (fits and (is_known or normalizes)):
        raise ValueError(
            f"The network must end in a class head, a Dense layer of {n_classes} units "
            f"with a softmax for the {n_classes} classes in y (for two classes also of "
            f"one unit with a sigmoid), but its last Dense layer has {head.units} "
            f"units and the activation {name!r}. A build function finds "
            "the number of classes in meta['n_classes_']."
        )


# Standardisation


def standardized(features, image_shape, standardize):
    """Return the network from images to the embedding, standardised as asked.

    The layers are those of the features. Where something is put between them, or the
    network takes images of any size, they are copies, so that `output` of each layer
    belongs to the new network, and no other network of the user's is touched.

    Parameters
    ----------
    features : keras.Model
        The network from images to the embedding, as the user built it.
    image_shape : tuple of int
        (height, width, channels) of the images.
    standardize : bool or "auto"
        Whether the images are standardised inside the network; "auto" is where it has
        no scaling of its own.

    Returns
    -------
    backbone : keras.Model
        The network on images of this shape.
    """
    leading = list(operations_before_weights(features))
    _check_axes(leading)
    if standardize == "auto":
        insert = not any("scaling" in kinds(x) for x in leading)
    else:
        has_own = any(isinstance(x, keras.layers.Normalization) for x in leading)
        insert = standardize and not has_own
    if not standardize and any(
        before is None and not _is_adapted(layer)
        for layer, before in normalizations(features)
    ):
        warnings.warn(
            "The network starts with a Normalization layer that was never adapted, so "
            "it passes the images unchanged. Call its adapt method, or set "
            "standardize=True.",
            UserWarning,
            stacklevel=2,
        )
    (features_input,) = features.inputs
    if not insert and tuple(features_input.shape) == (None, *image_shape):
        return features
    inputs = keras.Input(image_shape, dtype=features_input.dtype)
    normalization = None
    if insert:
        names = [layer.name for layer in features.layers]
        name = None if "standardize" in names else "standardize"
        normalization = keras.layers.Normalization(name=name)
    passed = {"augmentation", "scaling"} if standardize is True else {"augmentation"}
    copies = LayerCopies()
    outputs = _rebuilt(features, inputs, normalization, passed, copies)
    copies.take_weights()
    return keras.Model(inputs, outputs, name="backbone")


def _check_axes(leading):
    """Refuse a network that takes channels first, as far as it is known to do so."""
    axes_in_place = itertools.takewhile(
        lambda x: type(x).__name__ not in MOVES_AXES and "scaling" not in kinds(x),
        leading,
    )
    for operation in axes_in_place:
        if getattr(operation, "data_format", None) == "channels_first":
            raise ValueError(
                "skssl gives images of shape (height, width, channels), but the layer "
                f"{operation.name!r} of the network takes channels first. "
                "Build it with data_format='channels_last', or put "
                "keras.layers.Permute((3, 1, 2)) before it."
            )


def _rebuilt(model, image, normalization, passed, copies):
    """Call copies of the layers of a network on an image that is standardised inside.

    Parameters
    ----------
    model : keras.Model
        The network.
    image : keras.KerasTensor
        What takes the place of its input.
    normalization : keras.layers.Normalization or None
        Layer that is put in, if any. It stands behind leading operations of the kinds
        in `passed`, in front of all else that the image passes.
    passed : set of str
        These kinds.
    copies : LayerCopies
        Copies of the layers.

    Returns
    -------
    outputs : keras.KerasTensor
        The output, standardised at last.
    """
    start = id(model.inputs[0])
    new, standardized = {start: image}, {}  # by the id of the tensor of the model
    raw = {start} if normalization else set()  # ids of what is not standardised yet

    def as_it_is(tensor):
        return new.get(id(tensor), tensor)

    def at_last(tensor):
        key = id(tensor)
        if key in raw and key not in standardized:
            standardized[key] = normalization(new[key])
        return standardized.get(key, as_it_is(tensor))

    for call in calls(model):
        operation, given = call.operation, (call.arguments.args, call.arguments.kwargs)
        sees_raw = any(id(x) in raw for x in call.input_tensors)
        found = kinds(operation) - {"neutral"}
        if sees_raw and found and found <= passed:
            args, kwargs = keras.tree.map_structure(as_it_is, given)
            outputs = copies(operation)(*args, **kwargs)
            raw.update(map(id, call.outputs))
        elif sees_raw and _begins_with(operation, passed):
            image = as_it_is(call.input_tensors[0])
            outputs = _rebuilt(operation, image, normalization, passed, copies)
        else:
            args, kwargs = keras.tree.map_structure(at_last, given)
            outputs = copies(operation)(*args, **kwargs)
        outputs = keras.tree.flatten(outputs)
        new.update(zip(map(id, call.outputs), outputs, strict=True))
    return at_last(model.outputs[0])


def _begins_with(operation, passed):
    """Whether an operation is a nested network that begins with one of some kinds."""
    return is_graph(operation) and kinds(calls(operation)[0].operation) & passed


def _is_adapted(normalization):
    mean, variance = normalization.get_weights()[:2]
    return mean.any() or (variance != 1).any()


def set_statistics(network, data):
    """Adapt each Normalization layer of a network to what it sees of the images.

    A layer that the user has adapted already keeps its own statistics.

    Parameters
    ----------
    network : Network
        The network, changed in place.
    data : TrainingSet
        Images, the rows to look at, and the statistics of their pixels by channel.
    """
    if not network.standardize:
        return
    for layer, before in normalizations(network.backbone):
        if _is_adapted(layer):
            continue
        if before is None and layer.axis in ((-1,), (3,)):
            mean, scale = data.mean[None, None], data.scale[None, None]
        else:
            mean, scale = _statistics(before, data, layer.axis)
        # Of two images at mean - scale and mean + scale these are mean and deviation.
        layer.adapt(np.stack([mean - scale, mean + scale]))


def _statistics(before, data, axis):
    """Return mean and deviation of what a Normalization layer sees.

    Parameters
    ----------
    before : keras.Model or None
        Network from the images to what the layer sees; None where it sees the images.
    data : TrainingSet
        Images, read in batches, and the rows to look at.
    axis : tuple of int
        Axes that have statistics of their own, as in `keras.layers.Normalization`.

    Returns
    -------
    mean, scale : ndarray
        Of the shape of what is seen, without the axis of the batch, and 1 along each
        axis that is not in `axis`. The scale is 1 where float32 resolves none.
    """
    scaler = StandardScaler()
    for start in range(0, len(data.rows), BATCH_SIZE):
        batch = load_batch(data.images[data.rows[start : start + BATCH_SIZE]])
        seen = batch.reshape(-1, *data.images.shape[-3:])
        if before is not None:
            seen = keras.ops.convert_to_numpy(before(seen, training=False))
        # A column for each value that has statistics of its own.
        kept = sorted(x % seen.ndim for x in axis)
        values = np.moveaxis(seen.astype(np.float64), kept, range(-len(kept), 0))
        scaler.partial_fit(values.reshape(-1, math.prod(seen.shape[x] for x in kept)))
    shape = [n if x in kept else 1 for x, n in enumerate(seen.shape)][1:]
    mean, scale = scaler.mean_.reshape(shape), scaler.scale_.reshape(shape)
    resolved = scale > np.finfo(np.float32).eps * np.abs(mean)
    return mean, np.where(resolved, scale, 1.0)


# Weights


def copy_weights(source, target):
    """Give one model the weights of another of the same network."""
    target.set_weights(source.get_weights())
    for layer in all_layers(target):
        if isinstance(layer, keras.layers.Normalization):
            set_layer_weights(layer, layer.get_weights())


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
    network.trainable_before = [
        (layer, layer.trainable) for layer in all_layers(network.backbone)
    ]
    for layer in network.layers[:frozen_layers]:
        layer.trainable = False


def unfreeze(network):
    """Undo :func:`freeze`.

    Batch normalization that was frozen stays so, as in the transfer learning guide of
    Keras: few images give it poor statistics.
    """
    kept = keras.layers.BatchNormalization
    after = [
        (layer, before and (layer.trainable or not isinstance(layer, kept)))
        for layer, before in network.trainable_before
    ]
    for layer, trainable in after:  # a network comes before its layers
        layer.trainable = trainable


def split_frozen(network):
    """Split a network behind frozen layers, whose outputs never change.

    The split is at the last tensor that the rest of the network can be computed from.

    Returns
    -------
    parts : tuple of keras.Model or None
        From images to that tensor, and from there to what the class head gives; both
        share all weights with the network. None where no frozen layer lies before it.
    """
    layers, backbone = network.layers, network.backbone
    (start,), (end,) = backbone.inputs, backbone.outputs
    front, rest, constant = [], [], {id(start)}
    for call in calls(backbone):
        if _is_constant(call.operation) and _inputs_of([call]) <= constant:
            constant.update(map(id, call.outputs))
            front.append(call)
        else:
            rest.append(call)
    # Give calls back until the others need a single tensor.
    while any(x.operation in layers and x.operation.weights for x in front):
        made = {id(x): x for call in front for x in call.outputs}
        needed = (_inputs_of(rest) | {id(end)}) & {id(start), *made}
        if len(needed) == 1:
            break
        rest.append(front.pop())
    else:
        return None
    cut = made[needed.pop()]
    outputs = inputs = keras.Input(cut.shape[1:])
    if cut is not end:
        outputs = keras.Model(cut, end)(inputs)
    for layer in network.training_model.operations[2:]:  # behind images and backbone
        outputs = layer(outputs)
    return keras.Model(start, cut), keras.Model(inputs, outputs)


def _inputs_of(several):
    """Return the ids of the tensors that some calls take."""
    return {id(tensor) for call in several for tensor in call.input_tensors}


def _is_constant(layer):
    """Whether a layer or operation does the same at every step of training."""
    if not isinstance(layer, keras.layers.Layer):
        return is_of_keras(type(layer))
    if isinstance(layer, keras.Model):
        return is_graph(layer) and all(map(_is_constant, layer.layers))
    return (
        is_of_keras(type(layer))
        and not isinstance(layer, keras.layers.Lambda | keras.layers.Wrapper)
        and (
            not layer.weights
            or not layer.trainable
            or isinstance(layer, keras.layers.Normalization)
        )
        and len(layer.variables) == len(layer.weights)  # else the state of a generator
        and getattr(layer, "activity_regularizer", None) is None
    )
