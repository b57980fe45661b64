"""Pretext tasks that ask which one of several fixed views an image is."""

from abc import abstractmethod

from ._base import PretextTask


class ViewClassification(PretextTask):
    """Base of tasks that make fixed views of each image and ask which one it is.

    A subclass writes `make_views` and gives `n_views` and `class_names`.
    """

    @abstractmethod
    def make_views(self, images):
        """Return all views, of shape (batch, n_views, height, width, channels)."""

    def make_batch(self, images, seed):
        """Return the views as one batch, and the index of each as its target."""
        from keras import ops

        views = self.make_views(images)
        inputs = ops.reshape(views, (-1, *views.shape[2:]))
        targets = ops.tile(ops.arange(self.n_views), [ops.shape(views)[0]])
        return inputs, targets

    def build_head(self, features, image_shape):
        """Hang a softmax layer with one unit a view on the backbone."""
        from keras import layers

        # float32, so that the softmax is exact under a mixed precision policy too.
        head = layers.Dense(
            self.n_views, activation="softmax", dtype="float32", name="pretext_head"
        )
        return head(features)

    def loss_and_metrics(self):
        """Return the cross entropy, and the accuracy."""
        return "sparse_categorical_crossentropy", ["accuracy"]


class GivenViews(ViewClassification):
    """Views that the user has made: class `k` is view `k`.

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
        """Return the views as they are."""
        return images
