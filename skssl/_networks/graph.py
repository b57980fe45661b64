"""What an image passes on its way through a network, read from the graph of Keras.

Keras has no public way to ask which operation made a tensor. This module is the only
one that reads `_keras_history` and `_inbound_nodes`.
"""

from dataclasses import dataclass, field

import keras
from keras import layers
from keras.src.models.functional import Functional

GRAPH_CLASSES = keras.Sequential, Functional

# Layers that change images but not the meaning of their values. The image is
# standardised behind them, since some expect values from 0 to 255.
AUGMENTATIONS = tuple(
    getattr(layers, name)
    for name in """
    AugMix AutoContrast CenterCrop CLAHE CutMix Equalization MixUp RandAugment
    RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop
    RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale
    RandomHue RandomInvert RandomPerspective RandomPosterization RandomRotation
    RandomSaturation RandomSharpness RandomShear RandomTranslation RandomZoom Resizing
    Solarization
    """.split()
    if hasattr(layers, name)  # some are younger than the oldest Keras admitted
)
SCALING_LAYERS = layers.Normalization, layers.Rescaling
# Layers and operations that leave the scale of an image as it is.
NEUTRAL_LAYERS = tuple(
    getattr(layers, name)
    for name in """
    ActivityRegularization AlphaDropout Average AveragePooling2D Concatenate Cropping2D
    Dropout Flatten GaussianDropout GaussianNoise GlobalAveragePooling2D
    GlobalMaxPooling2D Identity InputLayer MaxPooling2D Maximum Minimum Permute
    RepeatVector Reshape SpatialDropout1D SpatialDropout2D SpatialDropout3D UpSampling2D
    ZeroPadding2D
    """.split()
)
NEUTRAL_OPERATIONS = set(
    """
    BroadcastTo Cast Concatenate CropImages ExpandDims Flip GetItem Moveaxis Pad
    PadImages RGBToGrayscale Ravel Repeat Reshape Resize Roll Rot90 Squeeze Stack
    Swapaxes Tile Transpose
    """.split()
)
MOVES_AXES = {"Permute", "Reshape", "Transpose", "Moveaxis", "Swapaxes"}


def call_of(tensor):
    """Return the call that made a tensor: its operation, input and output tensors."""
    operation, index, _ = tensor._keras_history
    return operation._inbound_nodes[index]


def calls(model):
    """Return all calls between the inputs and the outputs of a network, in order."""
    ordered, done = [], {id(tensor) for tensor in model.inputs}
    pending = list(model.outputs)
    while pending:
        tensor = pending[-1]
        missing = []
        if id(tensor) not in done:
            call = call_of(tensor)
            missing = [x for x in call.input_tensors if id(x) not in done]
        if missing:
            pending += missing
            continue
        pending.pop()
        if id(tensor) not in done:
            done.update(map(id, call.outputs))
            ordered.append(call)
    return ordered


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
    """Return what an operation is for the scale of an image, a nested one each part.

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
    if isinstance(operation, AUGMENTATIONS):
        return {"augmentation"}
    name, module = type(operation).__name__, type(operation).__module__
    neutral = isinstance(operation, NEUTRAL_LAYERS) or (
        module.startswith("keras.") and name in NEUTRAL_OPERATIONS
    )
    return {"neutral" if neutral else "scaling"}


def _scales_inside(layer):
    """Whether a layer with weights is known to scale what it sees.

    So does one that keeps statistics alone, which are weights that never train, and
    one of the user's own that has a scaling layer among its attributes.
    """
    if type(layer).__module__.startswith("keras."):
        return False
    if layer.trainable and not layer.trainable_weights:
        return True
    return any(
        isinstance(part, SCALING_LAYERS)
        for value in vars(layer).values()
        for part in (value if isinstance(value, list | tuple) else [value])
    )


@dataclass
class Front:
    """What an image passes before the first layer with weights."""

    scales: bool = False  # whether anything there may change its scale
    normalizes: bool = False  # whether that is a Normalization layer
    channels_first: list = field(default_factory=list)  # layers that take it so


def front_of(model):
    """Look at all that an image passes before the first layer with weights.

    Parameters
    ----------
    model : keras.Model
        A Functional or Sequential network of one input and one output. Nested ones
        are looked into.

    Returns
    -------
    front : Front
        What was found.
    """
    front = Front()
    _pass(model, front, True)
    return front


def _pass(model, front, axes_in_place):
    """Follow the image through a network; return whether it passes unweighted."""
    unweighted = {id(model.inputs[0])}
    for call in calls(model):
        operation = call.operation
        sees_image = call.input_tensors and all(
            id(tensor) in unweighted for tensor in call.input_tensors
        )
        if not sees_image:
            continue
        name = type(operation).__name__
        axes_in_place = axes_in_place and name not in MOVES_AXES
        if is_graph(operation):
            passes = _pass(operation, front, axes_in_place)
        else:
            found = kinds(operation)
            passes = "weights" not in found
            front.scales |= "scaling" in found
            front.normalizes |= isinstance(operation, layers.Normalization)
            axes_in_place = axes_in_place and "scaling" not in found
            order = getattr(operation, "data_format", None)
            if axes_in_place and order == "channels_first":
                front.channels_first.append(operation)
        if passes:
            unweighted.update(map(id, call.outputs))
    return id(model.outputs[0]) in unweighted


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
        elif is_graph(operation):
            found = normalizations(operation)
        else:
            continue
        (tensor,) = call.input_tensors
        for layer, inner in found:
            seen = tensor if inner is None else inner(tensor)
            yield layer, None if seen is start else keras.Model(start, seen)


class LayerCopies:
    """Copies of layers, one for each, which leave the graphs of the originals alone.

    A layer may belong to a model that the user goes on with. A layer of the user's own,
    and one that its configuration does not say whole, stands for itself.
    """

    def __init__(self):
        self.pairs = {}  # id of a layer: the layer and its copy

    def __call__(self, operation):
        """Return the copy of a layer; an operation that is no layer as it is."""
        if id(operation) not in self.pairs:
            self.pairs[id(operation)] = operation, self._copy(operation)
        return self.pairs[id(operation)][1]

    def _copy(self, operation):
        own = not type(operation).__module__.startswith("keras.")
        if own or not isinstance(operation, layers.Layer):
            return operation
        if isinstance(operation, layers.Lambda):  # Keras takes its code for unsafe
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
            if copied is original or is_graph(original) or not original.weights:
                continue
            copied.set_weights(original.get_weights())
            if isinstance(copied, layers.Normalization):
                copied.finalize_state()  # it derives tensors from its weights


def replay(model, inputs, call):
    """Call the operations of a network anew, each through a function.

    Parameters
    ----------
    model : keras.Model
        A network of one input.
    inputs : keras.KerasTensor
        What takes the place of its input.
    call : callable
        What to do in place of ``operation(*args, **kwargs)``, as ``call(operation,
        *args, **kwargs)``.

    Returns
    -------
    outputs : keras.KerasTensor
        Its output.
    """
    replayed = keras.models.clone_model(
        keras.Model(model.inputs[0], model.outputs[0]),  # it takes Functional ones only
        input_tensors=inputs,
        clone_function=lambda operation: operation,
        call_function=call,
    )
    return replayed.outputs[0]
