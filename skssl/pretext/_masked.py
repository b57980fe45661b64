"""MaskedPretext: the pretext task of images with hidden patches."""

import math

import numpy as np

from .._docs import fill_docstrings
from .._storage.archive import saved_by_parameters
from ._base import PretextTask, check_number, side_by_side


@saved_by_parameters
@fill_docstrings
class MaskedPretext(PretextTask):
    """Pretext task that asks what is behind the hidden patches of an image.

    To fill in a patch, a network has to learn what the objects look like that it sees
    the rest of [1]_. Hidden patches show the mean of the image. A linear decoder goes
    from the embedding to the pixels; what it says of visible ones does not count. In
    the paper the network is a transformer, which leaves hidden patches out.

    Parameters
    ----------
    patch_size : int, default=4
        Height and width of a patch in pixels. Patches at the lower and right border
        are smaller where it does not divide the height or width of the image.
    mask_ratio : float, default=0.5
        Share of the patches that are hidden, rounded to at least one hidden and one
        visible patch.

    Attributes
    ----------
    n_views : int
        1.

    See Also
    --------
    JigsawPretext : Asks in which order the tiles of an image are.
    SelfSupervisedEncoder : Pretrains a network on a pretext task.

    References
    ----------
    .. [1] Kaiming He, Xinlei Chen, Saining Xie, Yanghao Li, Piotr Dollár, Ross
       Girshick, "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022,
       arXiv:2111.06377.

    Examples
    --------
    >>> from skssl import MaskedPretext, SelfSupervisedEncoder
    >>> encoder = SelfSupervisedEncoder(pretext=MaskedPretext(patch_size=2))
    >>> encoder.set_params(pretext__mask_ratio=0.75).pretext
    MaskedPretext(mask_ratio=0.75, patch_size=2)
    """

    def __init__(self, patch_size=4, mask_ratio=0.5):
        self.patch_size = patch_size
        self.mask_ratio = mask_ratio

    def fit(self, X, y=None):
        """Check the parameters against the shape of the images.

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
            If a parameter is out of bounds, or if an image is a single patch.
        TypeError
            If a parameter is no number.
        """
        largest = max(X.shape[1:3])
        remedy = f"The images have shape {X.shape[1:]} and need two patches at least."
        bounds = 0, largest
        check_number(self.patch_size, "patch_size", *bounds, whole=True, remedy=remedy)
        remedy = "The paper hides a share of 0.75."
        check_number(self.mask_ratio, "mask_ratio", 0, 1, remedy=remedy)
        return self

    def make_batch(self, images, seed):
        """Hide patches of each image, and return what was there.

        Parameters
        ----------
        {image_batch}
        {batch_seed}

        Returns
        -------
        {batch_inputs}
        targets : tensor of shape (batch, height, width, channels + 1), float32
            The normalised image; in the last channel 1 where it is hidden, else 0.
        """
        from keras import ops

        images = ops.cast(images, "float32")
        hidden = self._hidden(images, seed)
        mean = ops.mean(images, axis=(1, 2), keepdims=True)  # of each channel
        inputs = ops.where(hidden, mean, images)
        targets = [normalized(images), ops.cast(hidden, "float32")]
        return inputs, ops.concatenate(targets, axis=-1)

    def build_head(self, features, image_shape):
        """Build a linear decoder.

        Parameters
        ----------
        {features}
        {shape_of_images}

        Returns
        -------
        outputs : KerasTensor of shape (None, height, width, channels)
            The normalised image.
        """
        from keras import layers

        # float32, so that small errors count under a mixed precision policy, too.
        values = layers.Dense(math.prod(image_shape), dtype="float32")(features)
        return layers.Reshape(image_shape, dtype="float32")(values)

    def loss_and_metrics(self):
        """Return the error of hidden pixels, and the share that is explained of them.

        Returns
        -------
        {loss_of_outputs}
        metrics : list of callable
            1 minus the loss: about 0 for the mean of the image, 1 for its pixels.
        """
        return hidden_error, [explained_variance]

    def pictures(self, images, seed, predict):
        """Return each image with hidden patches, beside what the network puts there.

        Parameters
        ----------
        {image_batch}
        {batch_seed}
        predict : callable
            Returns the outputs of the pretrained network for a tensor of inputs.

        Returns
        -------
        pictures : ndarray of shape (batch, height, 2 * width + 1, channels)
            Pairs of images.
        y_true, y_pred : None
            Nothing is written above them.
        """
        inputs, targets = self.make_batch(images, seed)
        images, targets = np.asarray(images, dtype=float), np.asarray(targets)
        mean = images.mean(axis=(1, 2), keepdims=True)
        scale = (images - mean).std(axis=(1, 2, 3), keepdims=True)
        filled = np.clip(mean + scale * predict(inputs), images.min(), images.max())
        filled = np.where(targets[..., -1:] > 0, filled, images)
        return side_by_side(np.asarray(inputs, dtype=float), filled), None, None

    def _hidden(self, images, seed):
        """Return which pixels to hide, of shape (batch, height, width, 1)."""
        import tensorflow as tf

        height, width = images.shape[1:3]
        rows, columns = (math.ceil(n / self.patch_size) for n in (height, width))
        n_patches = rows * columns
        n_hidden = min(max(round(self.mask_ratio * n_patches), 1), n_patches - 1)
        noise = tf.random.stateless_uniform([tf.shape(images)[0], n_patches], seed)
        ranks = tf.argsort(tf.argsort(noise))
        hidden = tf.reshape(ranks < n_hidden, (-1, rows, columns, 1))
        for axis in (1, 2):
            hidden = tf.repeat(hidden, self.patch_size, axis=axis)
        return hidden[:, :height, :width]


def normalized(images):
    """Return images whose channels have mean 0, and all of whose values variance 1.

    One scale for all channels, so that noise in an empty one stays small.
    """
    import tensorflow as tf

    # Without overflow, and without noise of rounding in images of one colour.
    largest = tf.reduce_max(tf.abs(images), axis=(1, 2, 3), keepdims=True)
    images = tf.math.divide_no_nan(images, largest)
    images -= tf.reduce_mean(images, axis=(1, 2), keepdims=True)
    scale = tf.sqrt(tf.reduce_mean(images**2, axis=(1, 2, 3), keepdims=True))
    return images / tf.maximum(scale, 1e-5)


def hidden_error(targets, outputs):
    """Return the mean squared error of the hidden pixels of each image.

    It is the loss of He et al. (2022), section 3, with pixels normalised per image.

    Parameters
    ----------
    targets : tensor of shape (batch, height, width, channels + 1)
        Normalised images, and which pixels are hidden.
    outputs : tensor of shape (batch, height, width, channels)
        Reconstructed images.

    Returns
    -------
    error : tensor of shape (batch,)
        Mean over hidden pixels and channels.
    """
    from keras import ops

    images, hidden = targets[..., :-1], targets[..., -1]
    error = hidden * ops.mean((outputs - images) ** 2, axis=-1)
    return ops.sum(error, axis=(1, 2)) / ops.sum(hidden, axis=(1, 2))


def explained_variance(targets, outputs):
    """Return 1 minus the error of each image, whose variance is 1."""
    return 1 - hidden_error(targets, outputs)
