"""What the estimators share: their input, a fit that can fail, pickles and copies."""

import functools
import math
from copy import deepcopy

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ._data.images import (
    channels_first_hint,
    check_pixels,
    rows_to_images,
    shape_images,
)
from ._networks.packing import PacksNetworks
from ._storage.persistence import SaveMixin


def all_or_nothing(fit):
    """Decorate a fit method: it works on a copy, so a failed fit changes nothing."""

    @functools.wraps(fit)
    def fit_copy(self, *args, **kwargs):
        copied = object.__new__(type(self))
        vars(copied).update(vars(self))
        fit(copied, *args, **kwargs)
        self.__dict__ = vars(copied)
        return self

    return fit_copy


class ImageEstimator(BaseEstimator):
    """Base of the estimators that take images as X."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _fit_images(self, X, allow_views=False):
        """Return X as images, and set what is known of the input."""
        return validate_images(
            self, X, image_shape=self.image_shape, reset=True, allow_views=allow_views
        )

    def _check_images(self, X, allow_views=False):
        """Return X as images of the shape seen in `fit`."""
        check_is_fitted(self)
        return validate_images(self, X, reset=False, allow_views=allow_views)


def validate_images(estimator, X, *, image_shape=None, reset, allow_views=False):
    """Return X as images, and set or check what an estimator knows of its input.

    Parameters
    ----------
    estimator : estimator
        Gets `n_features_in_`, `image_shape_` and, for a DataFrame,
        `feature_names_in_` where `reset` is true, and is checked against them
        where it is not.
    X, image_shape, allow_views
        As in :func:`~skssl._data.images.as_images`, errors included.
    reset : bool
        Whether this is a fit.

    Returns
    -------
    images : ndarray of shape (n_samples, [n_views,] height, width, channels)
        The images.
    """
    pixels = check_pixels(X, image_shape, allow_views)
    if pixels.ndim == 2:
        table = X if hasattr(X, "columns") else pixels  # a DataFrame has names
        validate_data(estimator, table, reset=reset, skip_check_array=True)
    if pixels.ndim == 2 and not reset:
        images = rows_to_images(pixels, estimator.image_shape_)
    else:
        images = shape_images(pixels, image_shape)
    if reset:
        estimator.image_shape_ = images.shape[-3:]
        if pixels.ndim > 2:
            estimator.n_features_in_ = math.prod(estimator.image_shape_)
            vars(estimator).pop("feature_names_in_", None)
    elif images.shape[-3:] != estimator.image_shape_:
        raise ValueError(
            f"X has images of shape {images.shape[-3:]}, but "
            f"{type(estimator).__name__} was fitted on images of shape "
            f"{estimator.image_shape_}. Resize or crop them; give a single image as "
            f"X[np.newaxis].{channels_first_hint(images.shape)}"
        )
    return images


class SelfSupervisedEstimator(
    SaveMixin,
    PacksNetworks,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    ImageEstimator,
):
    """Base of the estimators that hold a pretrained network."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # Embeddings are float32, whatever the images are.
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _check_standardize(self):
        choices = True, False, "auto"
        if (
            not isinstance(self.standardize, bool | str)
            or self.standardize not in choices
        ):
            raise ValueError(
                f"standardize must be True, False or 'auto', got {self.standardize!r}."
            )

    def _draw_seeds(self, n_seeds, wrapper):
        """Return seeds; without a random_state from that of the user's wrapper."""
        random_state = check_random_state(self._random_source(wrapper))
        return random_state.randint(np.iinfo(np.int32).max, size=n_seeds).tolist()

    def _random_source(self, wrapper):
        if self.random_state is None:
            return deepcopy(getattr(wrapper, "random_state", None))
        return self.random_state


def joined(history, more):
    """Return one history of both, NaN where an epoch has no value.

    The first is None where nothing came before.
    """
    if not history:
        return more
    empty, no_more = (
        [math.nan] * len(next(iter(x.values()), ())) for x in (history, more)
    )
    return {
        key: [*history.get(key, empty), *more.get(key, no_more)]
        for key in {**history, **more}
    }
