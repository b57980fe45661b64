"""Whatever X is, made images: this module owns shape, dtype and scale.

Inside the package images are arrays of shape (n_samples, height, width,
channels), or (n_samples, n_views, height, width, channels) where the user hands
over ready views. They keep the dtype they came with; `load_batch` turns one
batch at a time into what a network reads.
"""

import math
import warnings

import numpy as np
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data


def validate_images(estimator, X, *, image_shape=None, reset, allow_views=False):
    """Check X and return it as images.

    Parameters
    ----------
    estimator : estimator
        Gets `n_features_in_`, `image_shape_` and, for a DataFrame,
        `feature_names_in_` where `reset` is true, and is checked against them
        where it is not.
    X : array-like
        Images of shape (n_samples, height, width, channels) or (n_samples,
        height, width), or flat rows of shape (n_samples, n_features).
    image_shape : tuple of int, default=None
        (height, width) or (height, width, channels) of the images in flat rows.
    reset : bool
        Whether this is a fit.
    allow_views : bool, default=False
        Whether X may have shape (n_samples, n_views, height, width, channels).

    Returns
    -------
    images : ndarray of shape (n_samples, [n_views,] height, width, channels)
        The dtype is that of X; where possible it is a view of X.
    """
    ndim = X.ndim if hasattr(X, "ndim") else np.ndim(X)
    if ndim <= 2:
        X = validate_data(estimator, X, reset=reset)
        shape = None if reset else estimator.image_shape_
        images = _images_from_rows(X, shape or _row_image_shape(X, image_shape))
    else:
        images = _images_from_array(estimator, X, ndim, allow_views)
        if reset:
            _check_image_shape(images, image_shape)
            estimator.n_features_in_ = math.prod(images.shape[-3:])
            if hasattr(estimator, "feature_names_in_"):
                del estimator.feature_names_in_
    if reset:
        estimator.image_shape_ = images.shape[-3:]
    elif images.shape[-3:] != estimator.image_shape_:
        raise ValueError(
            f"X has images of shape {images.shape[-3:]}, but "
            f"{type(estimator).__name__} was fitted on images of shape "
            f"{estimator.image_shape_}."
        )
    return images


def _images_from_array(estimator, X, ndim, allow_views):
    if ndim > (5 if allow_views else 4):
        views = " or (n_samples, n_views, height, width, channels)" * allow_views
        raise ValueError(
            "X must have shape (n_samples, height, width, channels)"
            f"{views}, got {np.shape(X)}."
        )
    X = check_array(X, allow_nd=True, input_name="X", estimator=estimator)
    if 0 in X.shape:
        raise ValueError(f"X must hold at least one pixel an image, got {X.shape}.")
    return X[..., np.newaxis] if ndim == 3 else X


def _row_image_shape(X, image_shape):
    """Return the (height, width, channels) that flat rows stand for."""
    n_features = X.shape[1]
    if image_shape is not None:
        height, width, channels = (*image_shape, 1)[:3]
        if height * width * channels != n_features:
            raise ValueError(
                f"image_shape={tuple(image_shape)} has {height * width * channels} "
                f"values an image, but X has {n_features} features. Give the "
                "(height, width) or (height, width, channels) of the rows of X."
            )
        return height, width, channels
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


def _images_from_rows(X, image_shape):
    missing = math.prod(image_shape) - X.shape[1]
    if missing > 0:
        X = np.pad(X, ((0, 0), (0, missing)))
    return X.reshape(len(X), *image_shape)


def _check_image_shape(images, image_shape):
    if image_shape is None:
        return
    expected = (*image_shape, 1)[:3]
    if images.shape[-3:] != expected:
        raise ValueError(
            f"image_shape={tuple(image_shape)} does not match the images in X, of "
            f"shape {images.shape[-3:]}. image_shape is needed for flat rows only."
        )


def load_batch(images):
    """Return images as a network reads them: bytes as they are, else float32."""
    return images if images.dtype == np.uint8 else images.astype(np.float32)


def pixel_statistics(images, chunk_values=2**22):
    """Return the mean and standard deviation of each channel, in one pass.

    Parameters
    ----------
    images : ndarray of shape (n_samples, ..., channels)
        Images, read a chunk at a time, so that a memory map stays on disk.
    chunk_values : int, default=2**22
        About how many values to read at once.

    Returns
    -------
    mean, scale : ndarray of shape (channels,), float64
        `scale` is 1 where a channel is constant.
    """
    channels = images.shape[-1]
    step = max(1, chunk_values // math.prod(images.shape[1:]))
    scaler = StandardScaler()
    for start in range(0, len(images), step):
        values = images[start : start + step].reshape(-1, channels)
        scaler.partial_fit(values.astype(np.float64))
    return scaler.mean_, scaler.scale_
