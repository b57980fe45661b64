"""Base of the tasks that compare two random views of each image."""

import numpy as np

from .._docs import fill_docstrings
from ._base import PretextTask, check_number, side_by_side


@fill_docstrings
class TwoViews(PretextTask):
    """Base of tasks that bring two random views of an image together.

    Rows `2i` and `2i + 1` of a batch are the views of image `i`. A subclass has the
    parameters `projection_units` and `augmentation`, and defines `loss_and_metrics`.
    """

    n_views = 2
    n_hidden_layers = 1

    def fit(self, X, y=None):
        """Check the parameters.

        Parameters
        ----------
        {training_images}
        {y_ignored}

        Returns
        -------
        {fitted_task}

        Raises
        ------
        ValueError
            If a parameter is out of bounds, or if `augmentation` is None or changes the
            shape of the images.
        TypeError
            If a parameter is of another type.
        """
        check_number(
            self.projection_units,
            "projection_units",
            0,
            whole=True,
            remedy="128 suits small images.",
        )
        if self.augmentation is None:
            raise ValueError(
                f"augmentation must make the two views that {type(self).__name__} "
                "compares differ, got None, which leaves them equal. Use 'auto', or "
                "layers of your own."
            )
        from ..augmentation import check_augmentation

        check_augmentation(self.augmentation, X.shape[1:])
        return self

    def make_batch(self, images, seed):
        """Return two views of each image, and as targets the number of the image.

        Parameters
        ----------
        {image_batch}
        {batch_seed}

        Returns
        -------
        {batch_inputs}
        targets : tensor of shape (batch * n_views,), int32
            Which image of the batch each view is of.
        """
        import tensorflow as tf
        from keras import ops

        from ..augmentation import augmented

        seeds = tf.random.experimental.stateless_split(seed, 2)
        views = [augmented(images, seeds[k], self.augmentation) for k in range(2)]
        inputs = ops.reshape(ops.stack(views, axis=1), (-1, *images.shape[1:]))
        return inputs, ops.repeat(ops.arange(ops.shape(images)[0]), 2)

    def build_head(self, features, image_shape):
        """Build the projection head: hidden ReLU layers and a linear one.

        Parameters
        ----------
        {features}
        {shape_of_images}

        Returns
        -------
        outputs : KerasTensor of shape (None, projection_units)
            The projections.
        """
        from keras import layers

        hidden = features
        for _ in range(self.n_hidden_layers):
            hidden = layers.Dense(features.shape[-1], activation="relu")(hidden)
        # float32, so that the views can be told apart under mixed precision, too.
        return layers.Dense(self.projection_units, dtype="float32")(hidden)

    def pictures(self, images, seed, predict):
        """Return each view beside the other one of the same image.

        Parameters
        ----------
        {image_batch}
        {batch_seed}
        predict : callable
            Returns the outputs of the pretrained network for a tensor of inputs.

        Returns
        -------
        pictures : ndarray of shape (batch * 2, height, 2 * width + 1, channels)
            Pairs of views.
        y_true, y_pred : ndarray of shape (batch * 2,)
            The number of the image, and that of the nearest other view.
        """
        inputs, targets = self.make_batch(images, seed)
        nearest = np.asarray(nearest_views(predict(inputs)))
        views, targets = np.asarray(inputs), np.asarray(targets)
        partners = np.arange(len(views)) ^ 1
        return side_by_side(views, views[partners]), targets, targets[nearest]


def similarities(projections):
    """Return the cosine of each two rows, and -1e9 for a row with itself."""
    from keras import ops

    norms = ops.sum(projections**2, axis=-1, keepdims=True)
    z = projections * ops.rsqrt(ops.maximum(norms, 1e-12))
    cosines = ops.matmul(z, ops.transpose(z))  # (batch * 2, batch * 2)
    return cosines - 1e9 * ops.eye(ops.shape(z)[0])


def nearest_views(projections):
    """Return for each row the most similar other one."""
    from keras import ops

    return ops.argmax(similarities(projections), axis=-1)


def partner_accuracy(targets, projections):
    """Return for each view whether the nearest other view is of the same image."""
    from keras import ops

    nearest = ops.take(targets, nearest_views(projections))
    return ops.cast(ops.equal(nearest, targets), "float32")
