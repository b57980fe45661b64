"""What a pretext task must provide."""

from abc import abstractmethod

from sklearn.base import BaseEstimator


class PretextTask(BaseEstimator):
    """Base class of pretext tasks.

    A pretext task turns images without labels into a training problem. It writes
    three methods, `make_batch`, `build_head` and `loss_and_metrics`; batching,
    shuffling and training are not its business. Like any scikit-learn estimator it
    keeps its constructor's arguments unchanged and checks them in `fit`.

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
    skssl.RotationPretext : The pretext task of turned images.

    Examples
    --------
    Masked reconstruction: hide the left half, draw the whole.

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
        layer : keras.layers.Layer
            A layer of the network that is to be pretrained.

        Returns
        -------
        undone : bool
            Whether targets can no longer be told from what comes out of the layer.
            False unless a task overrides this.
        """
        return False

    def fit(self, X, y=None):
        """Check the parameters against the images, learn from them if need be.

        Parameters
        ----------
        X : ndarray of shape (n_samples, height, width, channels)
            Training images.
        y : None
            Ignored.

        Returns
        -------
        self : object
            The task.
        """
        return self

    @abstractmethod
    def make_batch(self, images, seed):
        """Turn a batch of images into network inputs and targets.

        Runs in TensorFlow's graph, before each training step on the same device, so it
        uses graph operations only (those of `keras.ops`, or of TensorFlow).

        Parameters
        ----------
        images : tensor of shape (batch, height, width, channels)
            Images in the dtype in which they are read: uint8, or else float32.
        seed : int32 tensor of shape (2,)
            A fresh seed for stateless random operations.

        Returns
        -------
        inputs : tensor of shape (batch * n_views, height, width, channels)
            What the backbone sees.
        targets : tensor of shape (batch * n_views, ...)
            What the head's outputs are compared with.
        """

    @abstractmethod
    def build_head(self, features, image_shape):
        """Hang this task's head on the backbone.

        Parameters
        ----------
        features : KerasTensor of shape (None, n_embedding)
            The backbone's output.
        image_shape : tuple of int
            (height, width, channels) of the images.

        Returns
        -------
        outputs : KerasTensor of shape (None, ...)
            The head's output.
        """

    @abstractmethod
    def loss_and_metrics(self):
        """Name the loss and the metrics.

        Returns
        -------
        loss : str, keras.losses.Loss or callable
            Loss as `keras.Model.compile` takes it. It sees the targets and outputs of
            a whole batch, so it may compare images with each other.
        metrics : list
            Metrics as `keras.Model.compile` takes them. The first one, greater being
            better, is the task's score; without any it is minus the loss.
        """
