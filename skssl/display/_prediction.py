"""PredictionDisplay: images with their true and predicted class."""

import numpy as np
from sklearn.utils import check_consistent_length, check_random_state

from .._base import validate_images
from .._data.images import as_images
from .._docs import fill_docstrings
from ._image_grid import ImageGridDisplay, chosen_rows


@fill_docstrings
class PredictionDisplay(ImageGridDisplay):
    """Images with their true and predicted class, wrong ones marked in red.

    Use :meth:`from_estimator` or :meth:`from_predictions`; they draw at once.

    Parameters
    ----------
    images : ndarray of shape (n_samples, height, width, channels)
        The images to draw.
    y_true, y_pred : array-like of shape (n_samples,)
        Class labels.

    Attributes
    ----------
    {axes_of_images}
    {figure}

    See Also
    --------
    PretextDisplay : Views with their true and predicted pretext label.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn.datasets import load_digits
    >>> from skssl import PredictionDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> display = PredictionDisplay.from_predictions(X, y, y, random_state=0)
    >>> len(display.axes_)
    5
    >>> plt.close()
    """

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y,
        *,
        image_shape=None,
        n_samples=5,
        random_state=None,
        ax=None,
        **plot_params,
    ):
        """Predict and draw randomly chosen images.

        Parameters
        ----------
        estimator : classifier
            A fitted classifier, in a Pipeline or not.
        {X_images}
            Images as the estimator takes them.
        y : array-like of shape (n_samples,)
            True labels.
        image_shape : tuple of int, default=None
            Shape of the images in flat rows; None takes that of the estimator or, for
            one that has none, such as a Pipeline, square grey images.
        {n_samples_to_draw}
        {random_choice}
        {ax_of_grid}
        {plot_params}

        Returns
        -------
        {drawn_display}
        """
        y_pred = estimator.predict(X)
        if image_shape is None and hasattr(estimator, "image_shape_"):
            X = validate_images(estimator, X, reset=False, allow_views=True)
        return cls.from_predictions(
            X,
            y,
            y_pred,
            image_shape=image_shape,
            n_samples=n_samples,
            random_state=random_state,
            ax=ax,
            **plot_params,
        )

    @classmethod
    def from_predictions(
        cls,
        X,
        y_true,
        y_pred,
        *,
        image_shape=None,
        n_samples=5,
        random_state=None,
        ax=None,
        **plot_params,
    ):
        """Draw randomly chosen images with given predictions.

        Parameters
        ----------
        {X_images}
            Images.
        y_true, y_pred : array-like of shape (n_samples,)
            True and predicted labels.
        image_shape : tuple of int, default=None
            Shape of the images in flat rows; None takes square grey ones.
        {n_samples_to_draw}
        {random_choice}
        {ax_of_grid}
        {plot_params}

        Returns
        -------
        {drawn_display}
        """
        check_consistent_length(X, y_true, y_pred)
        images = _images(X, image_shape)
        rows = chosen_rows(len(images), n_samples, check_random_state(random_state))
        return cls(
            np.asarray(images[rows]), np.asarray(y_true)[rows], np.asarray(y_pred)[rows]
        ).plot(ax=ax, **plot_params)


def _images(X, image_shape):
    """Return X as images to draw; of ready views the first."""
    images = as_images(X, image_shape=image_shape, allow_views=True)
    return images[:, 0] if images.ndim == 5 else images
