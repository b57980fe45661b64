"""Random changes of images, under which a class stays the same.

What is drawn follows from the seed of a batch, so an epoch can be repeated exactly.
Values are relative to the size of an image and to the spread of its pixels, so the
scale of the pixels does not matter.
"""

import math

import keras
import tensorflow as tf

from ._runtime import seeded_process

# Largest changes of "auto" at strength 1. Letters and digits stay what they are.
SHIFT = 0.1  # share of height and width
TURN = 10  # degrees
ZOOM = 0.1
SHEAR = 0.1
CONTRAST = 0.3
SATURATION = 0.3
BRIGHTNESS = 0.3  # in standard deviations of the image, as the next one
COLOR = 0.15  # of each channel


def check_augmentation(augmentation, image_shape):
    """Refuse what cannot change a batch of images.

    Parameters
    ----------
    augmentation : "auto", None, keras.layers.Layer, list of these, or callable
        The `augmentation` parameter.
    image_shape : tuple of int
        (height, width, channels) of the images.

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        If it is another text, or changes the shape of the images.
    """
    if isinstance(augmentation, str) and augmentation != "auto":
        raise ValueError(
            "augmentation must be 'auto', None, a Keras layer, a list of layers or a "
            f"function of a batch of images, got {augmentation!r}."
        )
    for step in _steps(augmentation):
        if not callable(step):
            raise TypeError(
                "augmentation must be 'auto', None, a Keras layer, a list of layers or "
                f"a function of a batch of images, got {step!r}."
            )
    before = tf.zeros((2, *image_shape))
    with seeded_process(0):  # a function of the user may draw from any generator
        after = augmented(before, tf.zeros(2, tf.int32), augmentation)
    if tuple(after.shape) != tuple(before.shape):
        raise ValueError(
            f"augmentation must keep the shape of the images, {image_shape}, but it "
            f"returned {tuple(after.shape[1:])}. Crop or resize the images before."
        )


def augmented(images, seed, augmentation="auto", strength=1.0):
    """Change each image of a batch at random, as graph operations.

    Parameters
    ----------
    images : tensor of shape (batch, height, width, channels)
        Images of any scale.
    seed : int32 tensor of shape (2,)
        Seed of what is drawn. The generators of layers get their state from it, and
        then the state back that they had. A function draws by itself.
    augmentation : "auto", None, keras.layers.Layer, list of these, or callable
        What to change. "auto" shifts, turns, zooms and shears, and changes brightness,
        contrast and colour of images with three channels.
    strength : float, default=1.0
        Factor of the largest changes of "auto".

    Returns
    -------
    images : float32 tensor of shape (batch, height, width, channels)
        The changed images.
    """
    images = tf.cast(images, tf.float32)
    if isinstance(augmentation, str):
        images = moved(images, seed, strength)
        return recolored(images, seed, strength) if images.shape[-1] == 3 else images
    for position, step in enumerate(_steps(augmentation)):
        if isinstance(step, keras.layers.Layer):
            images = _called(step, images, _fold_in(seed, position))
        else:
            images = tf.cast(step(images), tf.float32)
    return images


def _steps(augmentation):
    """Return the layers or functions that follow each other."""
    if augmentation is None or isinstance(augmentation, str):
        return []
    return augmentation if isinstance(augmentation, list | tuple) else [augmentation]


def _called(layer, images, seed):
    """Call a layer as in training, with its generators set by a seed."""
    weights = set(map(id, layer.weights))
    states = [x for x in layer.variables if id(x) not in weights]
    before = [tf.identity(state.value) for state in states]
    for position, state in enumerate(states):
        state.assign(tf.cast(_fold_in(seed, position), state.dtype))
    images = tf.cast(layer(images, training=True), tf.float32)
    with tf.control_dependencies([images]):
        for state, value in zip(states, before, strict=True):
            state.assign(value)
    return images


def _fold_in(seed, number):
    return tf.random.experimental.stateless_fold_in(seed, number)


def moved(images, seed, strength=1.0):
    """Shift, turn, zoom and shear each image, as one affine map.

    Pixels from outside the image are those of its nearest edge.
    """
    n, (height, width) = tf.shape(images)[0], images.shape[1:3]
    drawn = tf.random.stateless_uniform((6, n), _fold_in(seed, 101), -1.0, 1.0)
    shift_y, shift_x = drawn[0] * height, drawn[1] * width
    turn = drawn[2] * (strength * math.radians(TURN))
    zoom_y, zoom_x = (tf.exp(strength * ZOOM * x) for x in (drawn[3], drawn[4]))
    shear = strength * SHEAR * drawn[5]
    cos, sin = tf.cos(turn), tf.sin(turn)
    # From coordinates of the result, relative to the centre, to those of the image.
    xx, xy = zoom_x * cos, zoom_y * (shear * cos - sin)
    yx, yy = zoom_x * sin, zoom_y * (shear * sin + cos)
    center_y, center_x = (height - 1) / 2, (width - 1) / 2
    x0 = center_x - xx * center_x - xy * center_y + strength * SHIFT * shift_x
    y0 = center_y - yx * center_x - yy * center_y + strength * SHIFT * shift_y
    zeros = tf.zeros_like(turn)
    transform = tf.stack([xx, xy, x0, yx, yy, y0, zeros, zeros], axis=1)
    return keras.ops.image.affine_transform(
        images, transform, fill_mode="nearest", data_format="channels_last"
    )


def recolored(images, seed, strength=1.0):
    """Change contrast, saturation, brightness and colour of each image.

    All of them together are one matrix and one offset for the pixels of an image.
    """
    n, (height, width, channels) = tf.shape(images)[0], images.shape[1:]
    drawn = tf.random.stateless_uniform(
        (n, 1, 1, 3 + channels), _fold_in(seed, 102), -1.0, 1.0
    )[:, 0]
    contrast = tf.exp(strength * CONTRAST * drawn[..., :1])
    saturation = tf.exp(strength * SATURATION * drawn[..., 1:2])
    offset = BRIGHTNESS * drawn[..., 2:3] + COLOR * drawn[..., 3:]
    pixels = tf.reshape(images, (n, height * width, channels))
    mean = tf.reduce_mean(pixels, axis=(1, 2), keepdims=True)
    spread = tf.math.reduce_std(pixels, axis=(1, 2), keepdims=True)
    matrix = contrast * (saturation * tf.eye(channels) + (1 - saturation) / channels)
    offset = (1 - contrast) * mean + strength * spread * offset
    rows = tf.reshape(tf.matmul(pixels, matrix), (n, height, width * channels))
    return tf.reshape(rows + tf.tile(offset, (1, 1, width)), tf.shape(images))


def erased(images, seed, size=0.4):
    """Replace a random square of each image by the mean of the image.

    The square has up to `size` of the shorter side; its centre is anywhere.
    """
    n, (height, width, channels) = tf.shape(images)[0], images.shape[1:]
    drawn = tf.random.stateless_uniform((3, n, 1, 1), _fold_in(seed, 103))
    half = drawn[0] * (size * min(height, width) / 2)
    rows = tf.range(height, dtype=tf.float32)[None, :, None]
    columns = tf.range(width, dtype=tf.float32)[None, None, :]
    in_rows = tf.cast(tf.abs(rows + 0.5 - drawn[1] * height) < half, tf.float32)
    in_columns = tf.cast(tf.abs(columns + 0.5 - drawn[2] * width) < half, tf.float32)
    # Columns and channels in one axis: TensorFlow broadcasts along channels slowly.
    in_columns = tf.repeat(in_columns, channels, axis=2)
    mean = tf.reduce_mean(images, axis=(1, 2))[:, None]
    mean = in_rows * (in_columns * tf.tile(mean, (1, 1, width)))
    flat = tf.reshape(images, (n, height, width * channels))
    return tf.reshape(flat * (1 - in_rows * in_columns) + mean, tf.shape(images))
