"""Copies of networks for training, which compute the same in less time.

Three things are changed. For finite values, outputs and gradients stay the same apart
from rounding. The statistics of the images are spread over a whole image before a batch
is standardised. The lower and right edges of the images that convolutions and pooling
drop in the end are cut off at once. And ReLU follows max pooling, where it has less to
do.
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

    def compute_output_shape(self, input_shape):
        """Return the shape of what is standardised."""
        if self.size is None:
            return input_shape
        return input_shape[0], *self.size, input_shape[-1]

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
        A Functional or Sequential network, which is built, of layers of Keras.

    Returns
    -------
    copy : keras.Model
        It has the variables of the network in the same order, with other values.
    """
    followers = _followers(model)
    sizes = _cropped_size(model, followers)
    moved = _activated_before_pooling(model, followers)

    def copied(layer):
        if isinstance(layer, keras.Model):
            return training_copy(layer)
        cls, config = type(layer), layer.get_config()
        if layer in moved and cls is layers.Conv2D:
            config["activation"] = None
        elif layer in moved:
            cls = MaxPoolingReLU
        elif cls is layers.Normalization and layer.weights:
            cls = LiveNormalization
        copy = cls.from_config(config)
        if cls is LiveNormalization:
            copy.size = sizes.get(layer)
        return copy

    return keras.models.clone_model(model, clone_function=copied)


def _followers(model):
    """Return the call that alone reads a tensor, by the tensor's id.

    Layers that have more than one call are left out, since a copy is the same in each.
    """
    n_calls = _n_calls(model)
    reads = [(id(x), call) for call in calls(model) for x in call.input_tensors]
    n_reads = collections.Counter([x for x, _ in reads] + list(map(id, model.outputs)))
    return {x: call for x, call in reads if n_reads[x] == n_calls[call.operation] == 1}


def _n_calls(model):
    """Return the number of calls of each operation."""
    return collections.Counter(call.operation for call in calls(model))


def _activated_before_pooling(model, followers):
    """Return convolutions with ReLU that max pooling follows, and these poolings."""
    moved, n_calls = set(), _n_calls(model)
    for call in calls(model):
        layer, following = call.operation, followers.get(id(call.outputs[0]))
        if (
            type(layer) is layers.Conv2D
            and layer.activation is keras.activations.relu
            and layer.activity_regularizer is None
            and n_calls[layer] == 1
            and following
            and type(following.operation) is layers.MaxPooling2D
        ):
            moved |= {layer, following.operation}
    return moved


def _cropped_size(model, followers):
    """Return the first layer, with the height and width of what the network sees.

    Pooling of 2 by 2 drops the last row of an odd number of rows, and with it what the
    convolutions before it have computed there. The result is a dict of one item, or an
    empty one if the network does not begin with a layer that is known.
    """
    start = tensor = model.inputs[0]
    chain = []
    while (call := followers.get(id(tensor))) and _windows(call.operation):
        chain.append(call.operation)
        (tensor,) = call.outputs
    size = tensor.shape[1:3]
    if not chain or len(start.shape) != 4 or None in size:
        return {}
    for operation in chain[::-1]:
        size = tuple(
            (n - 1) * stride + extent
            for n, (extent, stride) in zip(size, _windows(operation), strict=True)
        )
    return {chain[0]: size}


def _windows(operation):
    """Return extent and stride of the window that an operation moves down and across.

    It is None for operations that pad, that see all of the image, or that are unknown.
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
