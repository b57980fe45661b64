"""Checks X, in each of its forms, and returns it as images.

Inside the package images are arrays of shape (n_samples, height, width,
channels), or (n_samples, n_views, height, width, channels) where the user gives
ready views. They keep their dtype; `load_batch` turns one batch at a time into
what a network reads.
"""

import math
import os
import warnings
from numbers import Integral

import numpy as np
from scipy.sparse import issparse
from sklearn import get_config

from .source import (
    LazyImages,
    is_array_like,
    reshaped_rows,
    with_check,
    with_image_shape,
)

# Squares of pixels must fit float32 as well: networks standardise by the variance.
LARGEST_PIXEL = 1e19

# `float` accepts some values of these types, but none of them is a number.
NOT_NUMBERS = (
    str,
    bytes,
    bytearray,
    memoryview,
    complex,
    np.complexfloating,
    np.datetime64,
    np.timedelta64,
)


def as_images(X, *, image_shape=None, allow_views=False):
    """Return X as images.

    Parameters
    ----------
    X : array-like
        Images of shape (n_samples, height, width, channels) or (n_samples,
        height, width), or flat rows of shape (n_samples, n_features).
    image_shape : tuple of int, default=None
        (height, width) or (height, width, channels) of the images; None takes a
        square number of features in flat rows for a square grey image.
    allow_views : bool, default=False
        Whether X may have shape (n_samples, n_views, height, width, channels).

    Returns
    -------
    images : ndarray or LazyImages of shape (n_samples, [n_views,] height, width, \
channels)
        The dtype is that of X, for objects float64. Where possible it is a view of X.
        An array-like that is no array is not read as a whole.

    Raises
    ------
    ValueError
        If X is not of such a shape, if it holds text, complex numbers, times, NaN,
        infinity, masked pixels or numbers beyond 1e19, or if `image_shape` does not
        fit.
    TypeError
        If X is sparse, or if it holds objects that are no numbers.
    """
    return shape_images(check_pixels(X, image_shape, allow_views), image_shape)


def check_pixels(X, image_shape=None, allow_views=False):
    """Return X as an array of numbers, flat rows still flat; see :func:`as_images`."""
    if image_shape is not None:
        _check_image_shape(image_shape)
    values = _as_array(X)
    _refuse_paths(values)
    _check_shape(X, values.shape, allow_views)
    return _as_numbers(X, values)


def shape_images(pixels, image_shape=None):
    """Return an array of pixels as images; see :func:`as_images`."""
    if pixels.ndim == 2:
        return rows_to_images(pixels, _row_image_shape(pixels, image_shape))
    images = pixels
    if pixels.ndim == 3:
        images = rows_to_images(pixels, (*pixels.shape[1:], 1))
    if image_shape is not None and images.shape[-3:] != (*image_shape, 1)[:3]:
        raise ValueError(
            f"image_shape={image_shape} does not match X, got images of shape "
            f"{images.shape[-3:]}. Give image_shape for flat rows only, or correct it."
            f"{channels_first_hint(images.shape)}"
        )
    return images


def _check_image_shape(image_shape):
    """Refuse what is no tuple of two or three ints of at least 1."""
    if (
        not isinstance(image_shape, tuple | list)
        or len(image_shape) not in (2, 3)
        or any(isinstance(n, bool) or not isinstance(n, Integral) for n in image_shape)
        or min(image_shape) < 1
    ):
        raise ValueError(
            "image_shape must be (height, width) or (height, width, channels), ints "
            f"of at least 1, got {image_shape!r}. Give the shape of one image in X."
        )


def _as_array(X):
    """Return X as an array of whatever it holds, or as lazy images."""
    if issparse(X):
        raise TypeError(
            "Sparse data was passed for X, but images are dense arrays. Give "
            "X.toarray()."
        )
    _refuse_files_and_data_sets(X)
    try:
        if is_array_like(X):
            images = X if isinstance(X, LazyImages) else LazyImages(X)
            np.asarray(images[:1])  # it can be read
            return images
        return np.asarray(X)
    except ValueError as error:
        raise ValueError(
            "X must hold images, or flat rows, of one shape, but its parts do not make "
            f"an array ({error}). Resize or crop them to one shape."
        ) from error
    except (TypeError, RuntimeError) as error:
        raise TypeError(
            "X must be an array, a DataFrame or a list of images, but an object of "
            f"type {type(X).__name__} does not turn into an array ({error}). Give X as "
            "a NumPy array."
        ) from error


def _refuse_files_and_data_sets(X):
    """Refuse a folder, a `tf.data.Dataset` and pairs of image and label."""
    if isinstance(X, str | os.PathLike):
        raise TypeError(
            f"X must hold images, got {X!r}, an object of type {type(X).__name__}. If "
            "this is a folder of image files, data = load_image_files(X) reads it. "
            "Then call fit(data.images, data.target)."
        )
    if hasattr(X, "as_numpy_iterator"):
        raise TypeError(
            "X must hold images in an array, got a tf.data.Dataset. X, y = "
            "map(np.stack, zip(*dataset.as_numpy_iterator())) makes arrays of images "
            "with labels; give dataset.unbatch() there if it yields batches."
        )
    if _holds_pairs(X):
        raise TypeError(
            "X must hold images alone, got images with their labels in an object of "
            f"type {type(X).__name__}. X, y = map(np.stack, zip(*pairs)) makes arrays "
            "of pairs, and np.concatenate in place of np.stack of pairs of batches."
        )


def _holds_pairs(X):
    """Whether X is a sequence of (image, label), or of batches of these.

    Such are the data sets of PyTorch, and `keras.utils.PyDataset`.
    """
    if hasattr(X, "__array__") or not hasattr(X, "__getitem__"):
        return False
    try:
        image, label = X[0]
        return np.ndim(image) > np.ndim(label) + 1
    except Exception:  # whatever code of the user raises
        return False


def _refuse_paths(values):
    """Refuse an array of paths, with the way to read these files."""
    if not values.ndim or not len(values) or math.prod(values.shape[1:]) != 1:
        return
    first = values[:1].item() if values.dtype.kind in "OUS" else None
    if isinstance(first, str | bytes | os.PathLike):
        raise ValueError(
            f"X must hold pixels, got {first!r}. If X holds paths of image files, "
            "ImageReader reads them: make_pipeline(ImageReader((64, 64)), classifier)."
        )


def _check_shape(X, shape, allow_views):
    expected = (
        "(n_samples, height, width, channels), (n_samples, height, width)"
        f"{', (n_samples, n_views, height, width, channels)' * allow_views} or "
        "(n_samples, n_features)"
    )
    if not shape:
        raise ValueError(
            f"X must be an array, a DataFrame or a list of shape {expected}, got an "
            f"object of type {type(X).__name__}. Give the images in one of these; "
            "those of an iterator as list(X)."
        )
    if 0 in shape:
        raise ValueError(
            f"Found array with 0 {'feature' if shape[0] else 'sample'}(s) "
            f"(shape={shape}) while a minimum of 1 is required. X must hold at least "
            "one image of at least one pixel."
        )
    if not 2 <= len(shape) <= (5 if allow_views else 4):
        raise ValueError(
            f"X must have shape {expected}, got {shape}. Reshape your data: "
            "X.reshape(1, -1) is one flat row, X[np.newaxis] one image, np.stack(X) "
            "an array of the images in a list."
        )


def _as_numbers(X, values):
    """Return the values of X as real numbers that a network can read."""
    if values.dtype.kind not in "buifO":
        raise ValueError(
            f"{'Complex data not supported: ' * (values.dtype.kind == 'c')}X must hold "
            f"real numbers (bool, integers or floats), got {values.dtype}. Convert "
            "them first, as by X.astype(float), or np.abs(X) of complex numbers."
        )
    if np.ma.is_masked(X) or (
        isinstance(X, list | tuple) and any(map(np.ma.is_masked, X))
    ):
        raise ValueError(
            "X must hold a number for every pixel, got a masked array with masked "
            "pixels. Give X.filled(value), with the value that they shall have."
        )
    if values.dtype.kind == "O":
        values = _numbers_from_objects(values)
    # Of the integers only uint64 can exceed the limit. Others are not read here, so
    # that a memory map of bytes stays on disk.
    far = values.dtype.kind == "f" or values.dtype.newbyteorder("=") == np.uint64
    if far and not get_config()["assume_finite"]:
        if isinstance(values, LazyImages):
            return with_check(values, _check_range)
        _check_range(values)
    return values


def _numbers_from_objects(values):
    for kind in sorted(set(map(type, values.flat)), key=str):
        if issubclass(kind, NOT_NUMBERS):
            raise ValueError(
                f"X must hold real numbers, got objects of type {kind.__name__}. "
                "Convert them first, text as by X.astype(float)."
            )
    try:
        return values.astype(np.float64)
    except OverflowError as error:
        raise ValueError(
            f"X must hold numbers from {-LARGEST_PIXEL:g} to {LARGEST_PIXEL:g}, got "
            f"one that is larger ({error}). Divide them by their largest magnitude."
        ) from error
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"X must hold real numbers, got an object that is none ({error}). Convert "
            "it first; fill in a missing value."
        ) from error


def _check_range(values):
    """Refuse NaN, infinity and what is too large, without a copy of the values."""
    with np.errstate(invalid="ignore", over="ignore"):
        low, high = values.min(), values.max()  # NaN if there is one
        if -LARGEST_PIXEL <= float(low) and float(high) <= LARGEST_PIXEL:
            return
    if np.isnan(low):
        received, remedy = "NaN", "Fill in missing pixels, as by np.nan_to_num(X)"
    elif np.isinf(low) or np.isinf(high):
        received, remedy = "infinity", "Clip or leave out infinite pixels"
    else:
        received = f"numbers from {low!s} to {high!s}"
        remedy = "Divide them by their largest magnitude"
    raise ValueError(
        f"X must hold finite numbers from {-LARGEST_PIXEL:g} to {LARGEST_PIXEL:g}, "
        f"since networks compute in float32, got {received}. {remedy}."
    )


def _row_image_shape(X, image_shape):
    """Return the (height, width, channels) that flat rows stand for."""
    n_features = X.shape[1]
    if image_shape is not None:
        if math.prod(image_shape) != n_features:
            raise ValueError(
                f"image_shape={image_shape} has {math.prod(image_shape)} values per "
                f"image, but X has {n_features} features. Give the (height, width) or "
                "(height, width, channels) of the rows of X."
            )
        return (*image_shape, 1)[:3]
    side = math.isqrt(n_features - 1) + 1
    if side * side != n_features:
        warnings.warn(
            f"X has {n_features} features, which is no square image: rows are padded "
            f"with zeros to {side}x{side}. Give image_shape=(height, width) or "
            "(height, width, channels) if they are images of another shape.",
            UserWarning,
            stacklevel=2,
        )
    return side, side, 1


def rows_to_images(X, image_shape):
    """Return flat rows as images of a shape, padded with zeros where they are short."""
    if isinstance(X, LazyImages):
        return with_image_shape(X, image_shape)
    return reshaped_rows(X, image_shape)


def channels_first_hint(shape):
    """Return advice on images whose channels seem to come first, "" on others.

    Parameters
    ----------
    shape : tuple of int
        Shape of X as images.

    Returns
    -------
    hint : str
        A sentence to end a message with.
    """
    channels, height, width = shape[-3:]
    if channels not in (1, 3, 4) or min(height, width) <= 4:
        return ""
    axis = len(shape) - 3
    return (
        f" Images of shape {channels, height, width} look as if their channels came "
        f"first: move these to the end, as by np.moveaxis(X, {axis}, -1), of flat rows "
        f"after X.reshape(-1, {channels}, {height}, {width})."
    )


def warn_of_channels_first(images):
    """Warn of images whose channels seem to come first: no error would show it."""
    hint = channels_first_hint(images.shape)
    if hint:
        warnings.warn(
            f"X is read as images of shape {images.shape[-3:]} (height, width, "
            f"channels).{hint} If they do have {images.shape[-1]} channels, nothing is "
            "wrong: warnings.filterwarnings('ignore', message='X is read as') "
            "silences this.",
            UserWarning,
            stacklevel=2,
        )


def warn_of_volumes(views, n_rows=8):
    """Warn where the views of an image are not rearrangements of the first.

    Turned images hold the same pixel values, the slices of a volume do not.

    Parameters
    ----------
    views : ndarray of shape (n_samples, n_views, height, width, channels)
        Ready views.
    n_rows : int, default=8
        How many rows to look at.
    """
    n_views, height, width, channels = views.shape[1:]
    pixels = np.sort(
        np.asarray(views[:n_rows]).reshape(-1, n_views, height * width * channels)
    )
    if (pixels == pixels[:, :1]).all():
        return
    warnings.warn(
        f"X is read as {n_views} views of each image: pretraining tells them apart, "
        "and the first one alone is classified. But the others are not the first one "
        "turned or rearranged. If X holds volumes, move their slices to the channels, "
        f"as by np.moveaxis(X, 1, 3).reshape(-1, {height}, {width}, "
        f"{n_views * channels}). If these are views of your own, nothing is wrong: "
        "warnings.filterwarnings('ignore', message='X is read as') silences this.",
        UserWarning,
        stacklevel=6,
    )


def load_batch(images):
    """Return images as a network reads them: bytes as they are, else float32."""
    images = np.asarray(images)
    return images if images.dtype == np.uint8 else images.astype(np.float32)
