"""Copies of networks for training, which compute the same in less time.

Three things are changed, of which neither the outputs nor the gradients take notice,
apart from rounding. Statistics of the images are spread over the rows of an image
before a batch is standardised. The edges of images that pooling drops in the end are
cut off at once. And ReLU follows max pooling, where it has a quarter of the work.
"""

import collections

import keras
import tensorflow as tf
from keras import layers

from .graph import calls


class LiveNormalization(layers.Normalization):
    """Normalization by the statistics it has, not by those it was traced with.

    Attributes
    ----------
    size : tuple of int or None
        Height and width of the part of the images that is standardised, from the upper
        left corner on; None for all of it.
    """

    size = None

    def call(self, inputs):
        """Standardise the inputs."""
        self.finalize_state()
        if self.size is not None:
            height, width = self.size
            inputs = inputs[:, :height, :width]
        if None not in inputs.shape[1:]:
            # TensorFlow broadcasts slowly along channels, and fast along the batch.
            shape = (1, *inputs.shape[1:])
            self.mean = tf.broadcast_to(self.mean, shape)
            self.variance = tf.broadcast_to(self.variance, shape)
        return super().call(inputs)


class MaxPoolingReLU(layers.MaxPooling2D):
    """Max pooling, then ReLU."""

    def call(self, inputs):
        """Pool the inputs."""
        return keras.ops.relu(super().call(inputs))


def training_copy(model):
    """Return a copy of a network that trains as it does, in less time.

    Parameters
    ----------
    model : keras.Model
        A network of layers of Keras.

    Returns
    -------
    copy : keras.Model
        It has the variables of the network in the same order, with other values.
    """
    readers = _readers(model)
    first, size = _seen_size(model, readers)
    convolutions, poolings = _activated_before_pooling(model, readers)

    def copied(layer):
        if isinstance(layer, keras.Model):
            return training_copy(layer)
        config = layer.get_config()
        if layer in convolutions:
            return layers.Conv2D.from_config({**config, "activation": None})
        if layer in poolings:
            return MaxPoolingReLU.from_config(config)
        if type(layer) is layers.Normalization and layer.weights:
            normalization = LiveNormalization.from_config(config)
            normalization.size = size if layer is first else None
            return normalization
        return type(layer).from_config(config)

    return keras.models.clone_model(model, clone_function=copied)


def _readers(model):
    """Return what reads each tensor of a network: calls, and None for an output."""
    readers = collections.defaultdict(list)
    for call in calls(model):
        for tensor in call.input_tensors:
            readers[id(tensor)].append(call)
    for tensor in model.outputs:
        readers[id(tensor)].append(None)
    return readers


def _activated_before_pooling(model, readers):
    """Return convolutions with ReLU that max pooling follows, and these poolings."""
    convolutions, poolings = [], []
    n_calls = collections.Counter(call.operation for call in calls(model))
    for call in calls(model):
        layer, following = call.operation, readers[id(call.outputs[0])]
        if (
            type(layer) is layers.Conv2D
            and layer.activation is keras.activations.relu
            and layer.activity_regularizer is None
            and len(following) == 1
            and following[0] is not None
            and type(following[0].operation) is layers.MaxPooling2D
            and n_calls[layer] == n_calls[following[0].operation] == 1
        ):
            convolutions.append(layer)
            poolings.append(following[0].operation)
    return convolutions, poolings


def _seen_size(model, readers):
    """Return the first layer, and the height and width that the network sees.

    Pooling drops the last row of an odd number of rows, and with it what the
    convolutions before it have computed there.
    """
    start = tensor = model.inputs[0]
    chain = []
    while len(readers[id(tensor)]) == 1:
        (call,) = readers[id(tensor)]
        if call is None or _windows(call.operation) is None:
            break
        chain.append(call.operation)
        (tensor,) = call.outputs
    size = tensor.shape[1:3]
    if not chain or len(start.shape) != 4 or None in size:
        return None, None
    for operation in chain[::-1]:
        size = tuple(
            (n - 1) * stride + extent
            for n, (extent, stride) in zip(size, _windows(operation), strict=True)
        )
    return chain[0], size


def _windows(operation):
    """Return extent and stride of the window that an operation moves down and across.

    It is None where all of the image counts, or what lies beyond its edges.
    """
    if getattr(operation, "activity_regularizer", None) is not None:
        return None
    if type(operation) is layers.Normalization and {*operation.axis} <= {-1, 3}:
        return [(1, 1)] * 2
    if type(operation) is layers.Conv2D:
        extents, dilations = operation.kernel_size, operation.dilation_rate
    elif type(operation) in (layers.MaxPooling2D, layers.AveragePooling2D):
        extents, dilations = operation.pool_size, (1, 1)
    else:
        return None
    if operation.padding != "valid" or operation.data_format != "channels_last":
        return None
    extents = [(n - 1) * k + 1 for n, k in zip(extents, dilations, strict=True)]
    return list(zip(extents, operation.strides, strict=True))
