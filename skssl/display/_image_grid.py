"""Images on a grid, each with what is true and what was predicted."""

import math

import numpy as np


class ImageGridDisplay:
    """Base of the displays of images with a true and a predicted label.

    Parameters
    ----------
    images : ndarray of shape (n_samples, height, width, channels)
        The images to draw; one, three or four channels.
    y_true, y_pred : array-like of shape (n_samples,)
        Labels, written above each image.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (n_samples,)
        One an image.
    figure_ : matplotlib Figure
        The figure they are in.
    """

    def __init__(self, images, y_true, y_pred):
        self.images = images
        self.y_true = y_true
        self.y_pred = y_pred

    def plot(self, ax=None, *, n_columns=None, cmap="gray", title=None):
        """Draw the images, wrong predictions framed and titled in red.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes in whose place to draw the grid; None makes a new figure.
        n_columns : int, default=None
            Images in a row; None is up to 5 for few images and a square grid for many.
        cmap : str or matplotlib Colormap, default="gray"
            Colormap of grey images.
        title : str, default=None
            Title of the whole grid.

        Returns
        -------
        display : object
            The display itself, with `axes_` and `figure_`.
        """
        import matplotlib.pyplot as plt
        from matplotlib.gridspec import GridSpec, GridSpecFromSubplotSpec

        n_images = len(self.images)
        columns = n_columns or min(n_images, max(5, math.ceil(math.sqrt(n_images))))
        rows = math.ceil(n_images / columns)
        if ax is None:
            self.figure_ = plt.figure(
                figsize=(1.5 * columns, 1.9 * rows + 0.4 * bool(title)),
                layout="constrained",
            )
            grid = GridSpec(rows, columns, figure=self.figure_)
            if title:
                self.figure_.suptitle(title)
        else:
            self.figure_ = ax.figure
            grid = GridSpecFromSubplotSpec(rows, columns, ax.get_subplotspec())
            ax.set_axis_off()
            if title:
                ax.set_title(title, pad=28)
        self.axes_ = np.array(
            [self.figure_.add_subplot(grid[i]) for i in range(n_images)]
        )
        for axes, image, true, predicted in zip(
            self.axes_, _drawable(self.images), self.y_true, self.y_pred, strict=True
        ):
            color = "black" if true == predicted else "red"
            axes.imshow(image, cmap=cmap)
            axes.set_title(f"True: {true}\nPred: {predicted}", color=color, fontsize=9)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(color=color, linewidth=1 if color == "black" else 3)
        return self


def _drawable(images):
    """Return images as `imshow` takes them: grey 2-D, or colour from 0 to 1."""
    images = np.asarray(images)
    if images.shape[-1] == 1:
        return images[..., 0]
    if images.dtype == np.uint8:
        return images
    low, high = images.min(), images.max()
    return (images - low) / (high - low if high > low else 1)


def chosen_rows(n_rows, n_samples, random_state):
    """Return the rows to draw, in random order; all of them if there are fewer."""
    return random_state.permutation(n_rows)[:n_samples]
