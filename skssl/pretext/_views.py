"""Pretext tasks that ask which one of several fixed views an image is."""

from abc import abstractmethod

from .._docs import fill_docstrings
from .._storage.archive import saved_by_parameters
from ._base import PretextTask


def class_head(features, n_classes):
    """Return the output of a softmax layer on the backbone's output."""
    from keras import layers

    # float32, so that the softmax is exact under a mixed precision policy too.
    head = layers.Dense(
        n_classes, activation="softmax", dtype="float32", name="pretext_head"
    )
    return head(features)


@fill_docstrings
class ViewClassification(PretextTask):
    """Base of tasks that make fixed views of each image and ask which one it is.

    A subclass defines `make_views`, `n_views` and `class_names`.
    """

    @abstractmethod
    def make_views(self, images):
        """Make all views of each image, as graph operations.

        Parameters
        ----------
        {image_batch}

        Returns
        -------
        views : tensor of shape (batch, n_views, height, width, channels)
            Views in the order of their class indices.
        """

    def make_batch(self, images, seed):
        """Return all views of a batch, and as targets the index of each.

        Parameters
        ----------
        {image_batch}
        seed : int32 tensor of shape (2,)
            Ignored: the views are fixed.

        Returns
        -------
        inputs : tensor of shape (batch * n_views, height, width, channels)
            The views of the first image, then those of the second, and so on.
        targets : tensor of shape (batch * n_views,)
            The index of each view.
        """
        from keras import ops

        views = self.make_views(images)
        inputs = ops.reshape(views, (-1, *views.shape[2:]))
        targets = ops.tile(ops.arange(self.n_views), [ops.shape(views)[0]])
        return inputs, targets

    def build_head(self, features, image_shape):
        """Build a softmax layer with one unit for each view.

        Parameters
        ----------
        {features}
        image_shape : tuple of int
            (height, width, channels) of the images; not needed here.

        Returns
        -------
        outputs : KerasTensor of shape (None, n_views)
            Probability of each view.
        """
        return class_head(features, self.n_views)

    def loss_and_metrics(self):
        """Return the cross entropy, and the accuracy.

        Returns
        -------
        loss : str
            "sparse_categorical_crossentropy".
        metrics : list of str
            "accuracy" alone.
        """
        return "sparse_categorical_crossentropy", ["accuracy"]


@saved_by_parameters
class GivenViews(ViewClassification):
    """Pretext task of ready views, which the user has made: class `k` is view `k`.

    Parameters
    ----------
    n_views : int
        Number of views of each image.
    """

    def __init__(self, n_views):
        self.n_views = n_views

    @property
    def class_names(self):
        """Name of each view."""
        return tuple(f"view {k}" for k in range(self.n_views))

    def make_views(self, images):
        """Return the views as they are.

        Parameters
        ----------
        images : tensor of shape (batch, n_views, height, width, channels)
            Ready views.

        Returns
        -------
        views : tensor of shape (batch, n_views, height, width, channels)
            The same.
        """
        return images
