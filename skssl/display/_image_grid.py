"""Images on a grid, each with what is true and what was predicted."""

import math
from numbers import Integral

import numpy as np
from sklearn.utils import check_scalar

from .._docs import fill_docstrings
from ._placement import axes_on_grid


@fill_docstrings
class ImageGridDisplay:
    """Base of the displays of images with a true and a predicted label.

    Parameters
    ----------
    images : ndarray of shape (n_samples, height, width, channels)
        The images to draw; one, three or four channels.
    y_true, y_pred : array-like of shape (n_samples,) or None
        Labels, written above each image; None draws the images alone.

    Attributes
    ----------
    {axes_of_images}
    {figure}
    """

    def __init__(self, images, y_true, y_pred):
        self.images = images
        self.y_true = y_true
        self.y_pred = y_pred

    def plot(self, ax=None, *, n_columns=None, cmap="gray", title=None, im_kw=None):
        """Draw the images, wrong predictions framed and titled in red.

        Parameters
        ----------
        {ax_of_grid}
        n_columns : int, default=None
            Images in a row; None is up to 5 for few images and a square grid for many.
        cmap : str or matplotlib Colormap, default="gray"
            Colormap of grey images.
        title : str, default=None
            Title of the whole grid.
        im_kw : dict, default=None
            Further arguments of `matplotlib.axes.Axes.imshow`, such as `vmin` and
            `vmax`; without these, each grey image is scaled by its own range.

        Returns
        -------
        {plotted_display}

        Raises
        ------
        ValueError
            If the images have not one, three or four channels.
        """
        images = _drawable(self.images)
        n_images, height, width = images.shape[:3]
        columns = n_columns or min(n_images, max(5, math.ceil(math.sqrt(n_images))))
        rows = math.ceil(n_images / columns)
        row_height = min(1.5 * height / width, 3) + 0.4
        self.axes_ = axes_on_grid(
            ax,
            n_images,
            rows,
            columns,
            figsize=(1.5 * columns, row_height * rows + 0.4 * bool(title)),
            title=title,
            title_pad=34,
            hspace=0.6,
        )
        self.figure_ = self.axes_[0].figure
        labels = [(None, None)] * n_images
        if self.y_true is not None:
            labels = zip(self.y_true, self.y_pred, strict=True)
        for axes, image, (true, predicted) in zip(
            self.axes_, images, labels, strict=True
        ):
            wrong = {"color": "red"} if true != predicted else {}
            axes.imshow(image, **{"cmap": cmap, **(im_kw or {})})
            axes.set_anchor("N")  # near the title, where the cell is higher
            if self.y_true is not None:
                title = f"True: {true}\nPred: {predicted}"
                axes.set_title(title, fontsize=9, **wrong)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(linewidth=3 if wrong else 1, **wrong)
        return self


def _drawable(images):
    """Return images as `imshow` takes them: grey 2-D, or colour from 0 to 1."""
    images = np.asarray(images)
    if images.shape[-1] not in (1, 3, 4):
        raise ValueError(
            "Images to draw must have 1, 3 or 4 channels, got shape "
            f"{images.shape}. Choose some, as in X[..., :3]."
        )
    if images.shape[-1] == 1:
        return images[..., 0]
    if images.dtype == np.uint8:
        return images
    images = images.astype(float)
    low, high = images.min(), images.max()
    return (images - low) / (high - low if high > low else 1)


def chosen_rows(n_rows, n_samples, random_state):
    """Return the rows to draw, in random order; all of them if there are fewer."""
    check_scalar(n_samples, "n_samples", Integral, min_val=1)
    return random_state.permutation(n_rows)[:n_samples]
