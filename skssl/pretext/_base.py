"""What a pretext task must provide."""

import math
from abc import abstractmethod
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator

from .._docs import fill_docstrings


def check_number(value, name, low, high=math.inf, *, whole=False, remedy):
    """Refuse a parameter that is no number strictly between two others.

    Parameters
    ----------
    value, name : object, str
        The parameter.
    low, high : float, high default=inf
        The bounds, which are excluded.
    whole : bool, default=False
        Whether it must be an integer.
    remedy : str
        The last sentence of the message.

    Raises
    ------
    TypeError
        If it is no number of this kind.
    ValueError
        If it is out of bounds, or NaN.
    """
    kind, of = (Integral, "an integer") if whole else (Real, "a number")
    bounds = f"{of} above {low}" + (f" and below {high}" if high < math.inf else "")
    message = f"{name} must be {bounds}, got {value!r}. {remedy}"
    if not isinstance(value, kind) or isinstance(value, bool | np.bool_):
        raise TypeError(message)
    if not low < value < high:
        raise ValueError(message)


def side_by_side(left, right):
    """Return pictures of two images each, with a bright gap between them."""
    brightest = max(left.max(), right.max())
    gap = np.full((*left.shape[:2], 1, left.shape[3]), brightest, left.dtype)
    return np.concatenate([left, gap, right], axis=2)


@fill_docstrings
class PretextTask(BaseEstimator):
    """Base class of pretext tasks.

    A pretext task turns images without labels into a training problem. A subclass
    defines three methods, `make_batch`, `build_head` and `loss_and_metrics`; batching,
    shuffling and training are done by the estimators. Like any scikit-learn estimator
    it keeps its constructor's arguments unchanged and checks them in `fit`.

    Attributes
    ----------
    n_views : int
        How many network inputs `make_batch` makes of one image. Class attribute or
        property, 1 unless overridden.
    class_names : tuple of str or None
        Names of the classes where the targets are class indices and the head gives a
        score for each of them; None (the default) for every other task.
    loss_weights : list of float or None
        Weight of each loss where the head has several outputs, None (the default)
        otherwise.

    See Also
    --------
    skssl.RotationPretext : Pretext task that asks by which angle an image is turned.
    skssl.check_pretext_task : Tries whether a task keeps to this protocol.

    Examples
    --------
    Masked reconstruction: hide the left half of each image, and predict all pixels.

    >>> from skssl.pretext import PretextTask
    >>> class LeftHalf(PretextTask):
    ...     def make_batch(self, images, seed):
    ...         import keras
    ...         images = keras.ops.cast(images, "float32")
    ...         half = images.shape[2] // 2
    ...         hidden = keras.ops.zeros_like(images[:, :, :half])
    ...         return keras.ops.concatenate([hidden, images[:, :, half:]], 2), images
    ...     def build_head(self, features, image_shape):
    ...         import keras
    ...         n_values = image_shape[0] * image_shape[1] * image_shape[2]
    ...         values = keras.layers.Dense(n_values)(features)
    ...         return keras.layers.Reshape(image_shape)(values)
    ...     def loss_and_metrics(self):
    ...         return "mean_squared_error", []
    >>> LeftHalf().n_views
    1
    """

    n_views = 1
    class_names = None
    loss_weights = None

    def is_undone_by(self, layer):
        """Say whether an augmentation layer of the network makes the task unsolvable.

        Parameters
        ----------
        {layer_to_pretrain}

        Returns
        -------
        undone : bool
            Whether the output of the layer no longer shows what the targets are. False
            unless a task overrides this.
        """
        return False

    def fit(self, X, y=None):
        """Check the parameters against the images, and learn from these if necessary.

        Parameters
        ----------
        {training_images}
        {y_ignored}

        Returns
        -------
        {fitted_task}
        """
        return self

    @abstractmethod
    def make_batch(self, images, seed):
        """Turn a batch of images into network inputs and targets.

        It is called in a TensorFlow graph, before each training step and on the same
        device, so it may use graph operations only (those of `keras.ops` or of
        TensorFlow).

        Parameters
        ----------
        images : tensor of shape (batch, height, width, channels)
            Images in the dtype in which they are read: uint8, or else float32.
        {batch_seed}

        Returns
        -------
        {batch_inputs}
        targets : tensor of shape (batch * n_views, ...)
            What the loss compares the head's outputs with. A tuple of tensors where
            the head has several outputs.
        """

    def training_batch(self, images, seed):
        """Turn a batch of images into what the network is trained on.

        This is the batch of :meth:`make_batch`, unless a task overrides it to change
        images at random in training alone.

        Parameters
        ----------
        {image_batch}
        {batch_seed}

        Returns
        -------
        inputs, targets
            As of :meth:`make_batch`.
        """
        return self.make_batch(images, seed)

    @abstractmethod
    def build_head(self, features, image_shape):
        """Build the layers of this task's head on the backbone's output.

        Parameters
        ----------
        {features}
        {shape_of_images}

        Returns
        -------
        outputs : KerasTensor of shape (None, ...)
            The head's output, or a list of several.
        """

    @abstractmethod
    def loss_and_metrics(self):
        """Return the loss and the metrics.

        Returns
        -------
        loss : str, keras.losses.Loss or callable
            Loss as `keras.Model.compile` takes it. It sees the targets and outputs of
            a whole batch, so it may compare images with each other.
        metrics : list
            Metrics as `keras.Model.compile` takes them. The first one, greater being
            better, is the task's score; without any it is minus the loss.
        """

    def score_from(self, results):
        """Return the score from what was measured.

        Parameters
        ----------
        results : dict of float
            The loss, as "loss", and the metrics in their order.

        Returns
        -------
        score : float
            The first metric, or minus the loss where there is none.
        """
        metrics = (value for name, value in results.items() if name != "loss")
        return next(metrics, -results["loss"])

    def pictures(self, images, seed, predict):
        """Return what :class:`~skssl.PretextDisplay` draws.

        Parameters
        ----------
        {image_batch}
        {batch_seed}
        predict : callable
            Returns the outputs of the pretrained network for a tensor of inputs.

        Returns
        -------
        pictures : ndarray of shape (batch * n_views, height, width, channels)
            A picture of each input.
        y_true, y_pred : ndarray of shape (batch * n_views,) or None
            What is written above each picture; None for nothing.

        Raises
        ------
        TypeError
            If the task does not classify, and defines no pictures of its own.
        """
        if self.class_names is None:
            raise TypeError(
                f"{type(self).__name__} has no pictures. PretextDisplay draws "
                "estimators that were pretrained on a task that classifies, as "
                "RotationPretext does, or on one with a method `pictures`."
            )
        inputs, targets = self.make_batch(images, seed)
        names = np.asarray(self.class_names)
        y_pred = names[predict(inputs).argmax(axis=-1)]
        return np.asarray(inputs), names[np.asarray(targets)], y_pred
