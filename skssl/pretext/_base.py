"""What a pretext task must provide."""

from abc import abstractmethod

from sklearn.base import BaseEstimator

from .._docs import fill_docstrings


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

    See Also
    --------
    skssl.RotationPretext : Pretext task that asks by which angle an image is turned.

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
        X : ndarray of shape (n_samples, height, width, channels)
            Training images.
        {y_ignored}

        Returns
        -------
        self : object
            The task.
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
        seed : int32 tensor of shape (2,)
            A fresh seed for stateless random operations.

        Returns
        -------
        inputs : tensor of shape (batch * n_views, height, width, channels)
            Inputs of the backbone.
        targets : tensor of shape (batch * n_views, ...)
            What the loss compares the head's outputs with.
        """

    @abstractmethod
    def build_head(self, features, image_shape):
        """Build the layers of this task's head on the backbone's output.

        Parameters
        ----------
        {features}
        image_shape : tuple of int
            (height, width, channels) of the images.

        Returns
        -------
        outputs : KerasTensor of shape (None, ...)
            The head's output.
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
