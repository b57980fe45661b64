"""Operations between input and output of a network, read from the graph of Keras.

Keras has no public way to ask which operation made a tensor. This module is the only
one that reads `_keras_history`, `_inbound_nodes`, `_nodes_by_depth` and the graph of a
Sequential network in `_functional`. It knows augmentation by the package of Keras that
it comes from.
"""

import keras
from keras import layers
from keras.src.models.functional import Functional

from .packing import is_of_keras

GRAPH_CLASSES = keras.Sequential, Functional
# Layers of this package change images but not the meaning of their values. The image
# is standardised behind them, since some expect values from 0 to 255.
AUGMENTATION = "keras.src.layers.preprocessing.image_preprocessing."
SCALING_LAYERS = layers.Normalization, layers.Rescaling
# Layers and operations of Keras that leave the scale of an image as it is.
NEUTRAL = frozenset(
    """
    ActivityRegularization AlphaDropout Average AveragePooling2D Concatenate Cropping2D
    Dropout Flatten GaussianDropout GaussianNoise GlobalAveragePooling2D
    GlobalMaxPooling2D Identity InputLayer MaxPooling2D Maximum Minimum Permute
    RepeatVector Reshape SpatialDropout1D SpatialDropout2D SpatialDropout3D UpSampling2D
    ZeroPadding2D

    BroadcastTo Cast CropImages ExpandDims Flip GetItem Moveaxis Pad PadImages
    RGBToGrayscale Ravel Repeat Resize Roll Rot90 Squeeze Stack Swapaxes Tile Transpose
    """.split()
)
MOVES_AXES = frozenset("Permute Reshape Transpose Moveaxis Swapaxes".split())


def call_of(tensor):
    """Return the call that made a tensor: its operation, input and output tensors."""
    operation, index, _ = tensor._keras_history
    return operation._inbound_nodes[index]


def calls(model):
    """Return all calls between the inputs and the outputs of a network, in order."""
    by_depth = getattr(model, "_functional", model)._nodes_by_depth
    ordered = [call for depth in sorted(by_depth)[::-1] for call in by_depth[depth]]
    return [call for call in ordered if call.input_tensors]


def all_layers(model):
    """Yield the layers of a network, those of nested networks included."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from all_layers(layer)


def is_graph(operation):
    """Whether an operation is a network of one input and output, and nothing more."""
    return (
        isinstance(operation, GRAPH_CLASSES)
        and type(operation).call in [cls.call for cls in GRAPH_CLASSES]
        and operation.built
        and len(operation.inputs) == len(operation.outputs) == 1
    )


def kinds(operation):
    """Return what an operation, or each part of a network, does to an image's scale.

    Returns
    -------
    kinds : set of {"augmentation", "neutral", "scaling", "weights"}
        What is not known to leave the scale as it is counts as scaling.
    """
    if is_graph(operation):
        return {"neutral"}.union(*(kinds(call.operation) for call in calls(operation)))
    if isinstance(operation, SCALING_LAYERS):
        return {"scaling"}
    if getattr(operation, "weights", None):
        return {"scaling" if _scales_inside(operation) else "weights"}
    for cls in filter(is_of_keras, type(operation).__mro__):
        if cls.__module__.startswith(AUGMENTATION):
            return {"augmentation"}
        if cls.__name__ in NEUTRAL:
            return {"neutral"}
    return {"scaling"}


def _scales_inside(layer):
    """Whether a layer with weights is known to scale what it sees.

    So does one that keeps statistics alone, which are weights that never train, and
    one of the user's own that has a scaling layer among its attributes.
    """
    if is_of_keras(type(layer)):
        return False
    if layer.trainable and not layer.trainable_weights:
        return True
    parts = keras.tree.flatten(list(vars(layer).values()))
    return any(isinstance(part, SCALING_LAYERS) for part in parts)


def operations_before_weights(model):
    """Yield what an image passes up to the first operations with weights, in order.

    Nested networks are looked into.

    Returns
    -------
    passes : bool
        Whether the image reaches the output without having met weights.
    """
    without_weights = {id(model.inputs[0])}
    for call in calls(model):
        if any(id(tensor) not in without_weights for tensor in call.input_tensors):
            continue
        if is_graph(call.operation):
            passes = yield from operations_before_weights(call.operation)
        else:
            yield call.operation
            passes = "weights" not in kinds(call.operation)
        if passes:
            without_weights.update(map(id, call.outputs))
    return id(model.outputs[0]) in without_weights


def normalizations(model):
    """Yield each Normalization layer that keeps statistics, and what leads there.

    Yields
    ------
    layer : keras.layers.Normalization
        The layer, which may lie in a nested network.
    before : keras.Model or None
        Network from the input to what the layer sees; None where that is the input.
    """
    (start,) = model.inputs
    for call in calls(model):
        operation = call.operation
        if isinstance(operation, layers.Normalization) and operation.weights:
            found = [(operation, None)]
        else:
            found = normalizations(operation) if is_graph(operation) else ()
        (tensor, *_) = call.input_tensors
        for layer, inner in found:
            seen = tensor if inner is None else inner(tensor)
            yield layer, None if seen is start else keras.Model(start, seen)
