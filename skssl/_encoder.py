"""SelfSupervisedEncoder: pretrain a backbone, then embed images."""

import math
from copy import copy, deepcopy
from numbers import Integral

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    clone,
)
from sklearn.utils import check_random_state, check_scalar
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from ._base import SavableMixin, check_history, check_outputs
from ._data.images import validate_images, warn_of_channels_first
from ._data.training_set import distinct_images
from ._networks.identity import identity
from ._networks.packing import PacksNetworks
from ._runtime import check_backend
from ._storage.archive import require
from ._storage.checkpoint import Checkpoint, cached, key_of
from .pretext import GivenViews, PretextTask, RotationPretext

MAX_SEED = np.iinfo(np.int32).max


def check_standardize(standardize):
    """Refuse a `standardize` parameter that is neither a bool nor "auto"."""
    if not isinstance(standardize, bool | str) or standardize not in (
        True,
        False,
        "auto",
    ):
        raise ValueError(
            f"standardize must be True, False or 'auto', got {standardize!r}."
        )


def _classifies(encoder):
    """Whether the pretext task has classes to predict; unknown before fit."""
    pretext = getattr(encoder, "pretext_", None)
    if pretext is not None and pretext.class_names is None:
        raise AttributeError(
            f"{type(pretext).__name__} does not classify, so it predicts no labels."
        )
    return True


def fitted_pretext(pretext, images):
    """Return the task to pretrain on, checked against the images.

    Parameters
    ----------
    pretext : PretextTask or None
        The `pretext` parameter: rotation where it is None.
    images : ndarray of shape (n_samples, [n_views,] height, width, channels)
        Training images; with views, these are the task.

    Returns
    -------
    pretext : PretextTask
        A fitted copy.
    """
    if images.ndim == 5:
        if pretext is not None:
            raise ValueError(
                f"X of shape {images.shape} holds ready views, which are the pretext "
                "task themselves: set pretext=None, or give single images of shape "
                "(n_samples, height, width, channels)."
            )
        pretext = GivenViews(images.shape[1])
    elif pretext is None:
        pretext = RotationPretext()
    elif not isinstance(pretext, PretextTask):
        raise TypeError(
            "pretext must be a PretextTask, such as RotationPretext(), or None, got "
            f"{pretext!r}."
        )
    fitted = clone(pretext).fit(images)
    warn_of_channels_first(images)
    return fitted


def seed_source(random_state, estimator):
    """Return what to draw seeds from: a wrapper's own where there is nothing else."""
    if random_state is None:
        return deepcopy(getattr(estimator, "random_state", None))
    return random_state


class SelfSupervisedEncoder(
    SavableMixin,
    PacksNetworks,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseEstimator,
):
    """Transformer that learns an embedding of images without labels.

    `fit` trains a network on a pretext task: which way up is this image? [1]_
    `transform` returns what the network sees in an image, the output of its backbone.

    Parameters
    ----------
    estimator : scikeras.wrappers.KerasClassifier, callable, keras.Model or None, \
            default=None
        Supplies the network and the optimizer: a wrapped Keras network, a function
        that builds one as scikeras takes it, or a Functional or Sequential model. The
        network's last Dense layer is the class head; all before it is the backbone.
        None is :func:`~skssl.build_cnn` with the Adam optimizer.
    pretext : PretextTask, default=None
        The pretext task; None is :class:`~skssl.RotationPretext`, or with X of ready
        views the task to tell these apart.
    image_shape : tuple of int, default=None
        (height, width) or (height, width, channels) of the images in flat rows. None
        takes a square number of features for a square grey image.
    standardize : bool or "auto", default="auto"
        Whether the network standardises each channel of the images. "auto" does so
        unless the network scales them itself, by anything that an image passes before
        the first layer with weights, nested networks and operations such as ``x / 255``
        included; a `keras.Model` that is given with its weights is left as it is. True
        does so in any case, behind the scaling of the network. Standardisation stands
        behind leading augmentation layers. A `Normalization` layer of the network that
        was not adapted takes its place, and wherever one stands it is adapted to what
        it sees; False leaves these as they are, too.
    epochs : int, default=5
        Number of passes over the images.
    batch_size : int, default=64
        Number of images the network sees in one step: 64 are 16 images in their four
        rotations.
    memory : str, path-like or joblib.Memory, default=None
        Folder that keeps finished pretraining, so that the same images, network,
        parameters and seed are never pretrained twice, as in a grid search over
        fine-tuning. Needs an int as `random_state` to find anything again.
    checkpoint_dir : str or path-like, default=None
        Folder that keeps the state of a running `fit` by epoch. The same call, after
        the process was killed, goes on from there and ends with the same bits as
        without; needs an int as `random_state` for that. A finished fit removes its
        files. Both folders hold pickles: let nobody else write there.
    random_state : int, RandomState instance or None, default=None
        Seeds initial weights and the order of the images. With an int, repeated fits on
        the same machine with the same number of threads are bit-identical. None takes
        that of the KerasClassifier.
    verbose : int, default=0
        0 is silent, 1 shows the progress bar of Keras, which counts up to 32 steps as
        one, 2 a line an epoch.

    Attributes
    ----------
    backbone_ : keras.Model
        Network from images to embeddings, standardisation included.
    pretext_model_ : keras.Model
        Network from images to the outputs of the pretext head.
    pretext_ : PretextTask
        The fitted pretext task.
    history_ : dict of list
        Loss and metrics of each epoch.
    image_shape_ : tuple of int
        (height, width, channels) of the images seen in `fit`.
    n_features_in_ : int
        Number of values of one sample; of images height * width * channels.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, where X was a DataFrame.

    See Also
    --------
    SelfSupervisedClassifier : Pretrains in the same way, then learns classes.
    RotationPretext : The default pretext task.

    References
    ----------
    .. [1] Spyros Gidaris, Praveer Singh, Nikos Komodakis, "Unsupervised Representation
       Learning by Predicting Image Rotations", ICLR 2018, arXiv:1803.07728.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skssl import SelfSupervisedEncoder
    >>> X, _ = load_digits(return_X_y=True)
    >>> encoder = SelfSupervisedEncoder(epochs=1, random_state=0).fit(X[:200])
    >>> encoder.transform(X[:3]).shape
    (3, 128)
    """

    def __init__(
        self,
        estimator=None,
        *,
        pretext=None,
        image_shape=None,
        standardize="auto",
        epochs=5,
        batch_size=64,
        memory=None,
        checkpoint_dir=None,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.pretext = pretext
        self.image_shape = image_shape
        self.standardize = standardize
        self.epochs = epochs
        self.batch_size = batch_size
        self.memory = memory
        self.checkpoint_dir = checkpoint_dir
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y=None):
        """Pretrain the backbone.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width[, channels]), \
                (n_samples, n_features) or (n_samples, n_views, height, width, channels)
            Images of any scale, flat rows, or ready views of each image.
        y : None
            Ignored.

        Returns
        -------
        self : object
            The fitted encoder.

        Raises
        ------
        ValueError
            If X, `image_shape`, the pretext task and the network do not fit together.
        TypeError
            If `estimator` or `pretext` is of a type that is not supported.
        """
        check_backend()
        fitted = copy(self)
        fitted._fit(X)
        self.__dict__ = fitted.__dict__  # only now: a failed fit changes nothing
        return self

    def _fit(self, X):
        check_scalar(self.epochs, "epochs", Integral, min_val=1)
        check_scalar(self.batch_size, "batch_size", Integral, min_val=1)
        check_standardize(self.standardize)
        images = validate_images(
            self, X, image_shape=self.image_shape, reset=True, allow_views=True
        )
        checkpoint = self._pretrain(
            images, distinct_images(images, np.arange(len(images)))
        )
        if checkpoint:
            checkpoint.remove()

    def _pretrain(self, images, distinct, initial_model=None):
        """Pretrain on the distinct images, from fresh weights or those of a model.

        Returns the checkpoint, if there is one, which stays until it is removed.
        """
        self.image_shape_ = images.shape[-3:]
        self.n_features_in_ = getattr(
            self, "n_features_in_", math.prod(self.image_shape_)
        )
        self.pretext_ = fitted_pretext(self.pretext, images)

        from ._networks.network import (
            build_network,
            check_pretraining,
            copy_weights,
            describe,
            set_statistics,
        )
        from ._training.loop import build_pretext_model, pretrain

        random_state = seed_source(self.random_state, self.estimator)
        seeds = check_random_state(random_state).randint(MAX_SEED, size=2)
        network_seed, order_seed = map(int, seeds)
        network = build_network(
            self.estimator,
            self.image_shape_,
            network_seed,
            standardize=self.standardize,
        )
        check_pretraining(network, self.pretext_)
        set_statistics(network, images, distinct)
        model, compile_kwargs = build_pretext_model(
            network, self.pretext_, self.image_shape_, order_seed
        )
        if initial_model is not None:
            copy_weights(initial_model, model)
        key = checkpoint = None
        if self.memory is not None or self.checkpoint_dir is not None:
            key = key_of(
                "pretraining",
                lambda: [
                    distinct.digest,
                    identity(self.pretext_),
                    [self.epochs, self.batch_size, order_seed],
                    *describe(model, compile_kwargs),
                ],
            )
        if key is not None and self.checkpoint_dir is not None:
            checkpoint = Checkpoint(self.checkpoint_dir, "pretraining", key)

        def train():
            history = pretrain(
                model,
                compile_kwargs,
                self.pretext_,
                images,
                distinct.rows,
                epochs=self.epochs,
                batch_size=self.batch_size,
                seed=order_seed,
                verbose=self.verbose,
                checkpoint=checkpoint,
            )
            return model.get_weights(), history

        if key is None or self.memory is None:
            _, self.history_ = train()
        else:
            weights, self.history_ = cached(self.memory, key, train)
            model.set_weights(weights)
        self.pretext_model_ = model
        self.backbone_ = network.backbone
        return checkpoint

    def transform(self, X):
        """Embed images.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width[, channels]) or \
                (n_samples, n_features)
            Images of the shape seen in `fit`; of ready views the first is embedded.

        Returns
        -------
        embedding : ndarray of shape (n_samples, n_embedding), float32
            Output of the backbone.
        """
        from ._training.loop import predict

        images = self._check_images(X)
        return predict(self.backbone_, images[:, 0] if images.ndim == 5 else images)

    @available_if(_classifies)
    def predict_pretext(self, X):
        """Predict the label of each view, for rotation the index into `angles`.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width[, channels]) or \
                (n_samples, n_features)
            Images of the shape seen in `fit`, or ready views where these were given.

        Returns
        -------
        labels : ndarray of shape (n_samples, n_views), int64
            Predicted labels; a perfect row is ``0, 1, …, n_views - 1``.
        """
        from ._training.loop import predict_pretext

        images = self._check_task_images(X)
        return predict_pretext(self.pretext_model_, self.pretext_, images)

    def score(self, X, y=None):
        """Return the pretext accuracy.

        So `cross_val_score` and `GridSearchCV` tune pretraining without a label.

        Parameters
        ----------
        X : array-like of shape (n_samples, height, width[, channels]) or \
                (n_samples, n_features)
            Images of the shape seen in `fit`, or ready views where these were given.
        y : None
            Ignored.

        Returns
        -------
        score : float
            First metric of the task; minus its loss where it has no metric.
        """
        from ._training.loop import evaluate_pretext

        images = self._check_task_images(X)
        return evaluate_pretext(
            self.pretext_model_, self.pretext_, images, batch_size=self.batch_size
        )

    def _check_images(self, X):
        check_is_fitted(self)
        return validate_images(self, X, reset=False, allow_views=True)

    def _check_task_images(self, X):
        images = self._check_images(X)
        given = isinstance(self.pretext_, GivenViews)
        n_views = images.shape[1] if images.ndim == 5 else None
        if n_views != (self.pretext_.n_views if given else None):
            expected = f"{self.pretext_.n_views} ready views" if given else "one image"
            raise ValueError(
                f"The pretext task expects {expected} a sample, as in fit, but X gives "
                f"images of shape {images.shape}."
            )
        return images

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        # Embeddings are float32, whatever the images are.
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    @property
    def _n_features_out(self):
        return self.backbone_.output_shape[-1]

    _saved_network = "pretext_model_"
    _saved_attributes = "n_features_in_", "pretext_", "history_"

    @classmethod
    def _from_saved_state(cls, state):
        encoder = super()._from_saved_state(state)
        batch_size, pretext = encoder.batch_size, encoder.pretext_
        require(
            type(batch_size) is int and batch_size >= 1,  # it is used after `fit`, too
            f"its batch_size is {batch_size!r}",
        )
        # As in `fit`, which checks the images' shape; and bytes that take no memory.
        pretext.fit(np.broadcast_to(np.uint8(0), (1, *encoder.image_shape_)))
        require(type(pretext.n_views) is int, f"it has {pretext.n_views!r} views")
        check_outputs(encoder.pretext_model_, {pretext.n_views})
        check_history(encoder.history_)
        encoder.backbone_ = encoder.pretext_model_.get_layer("backbone")
        return encoder
