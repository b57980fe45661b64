"""SelfSupervisedEncoder: pretrain a backbone, then embed images."""

import math
from dataclasses import replace
from numbers import Integral
from time import perf_counter

import numpy as np
from sklearn import config_context
from sklearn.base import clone
from sklearn.utils import check_scalar
from sklearn.utils.metaestimators import available_if

from ._base import (
    SelfSupervisedEstimator,
    all_or_nothing,
    check_history,
)
from ._data.images import warn_of_channels_first
from ._data.training_set import distinct_images
from ._docs import fill_docstrings
from ._storage.archive import require, without_memory
from .pretext import GivenViews, PretextTask, RotationPretext


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
    with config_context(assume_finite=True):  # the images are checked
        fitted = clone(pretext).fit(images)
    warn_of_channels_first(images)
    return fitted


@fill_docstrings
class SelfSupervisedEncoder(SelfSupervisedEstimator):
    """Transformer that learns an embedding of images without labels.

    `fit` trains a network on a pretext task, by default to tell by which angle an image
    was turned [1]_. `transform` returns an embedding of each image, which is the output
    of the network's backbone.

    Parameters
    ----------
    estimator : scikeras.wrappers.KerasClassifier, callable, keras.Model or None, \
            default=None
        Supplies the network: a wrapped Keras network, a function
        that builds one as scikeras takes it, or a Functional or Sequential model. The
        network's last Dense layer is the class head; all layers before it are the
        backbone. None is :func:`~skssl.build_cnn`.
    {pretext}
    {image_shape}
    {standardize}
    epochs : int or None, default=None
        Number of passes over the images; None is as many as give 600 steps.
    batch_size : int, default=64
        Number of inputs in one step; with four rotations, 64 inputs are 16 images.
    optimizer : str or keras.optimizers.Optimizer, default=None
        Optimizer; None is Adam with a learning rate that falls from 0.001 to 0 along a
        cosine. That of a KerasClassifier is for fine-tuning.
    {memory}
    {checkpoint_dir}
    {callbacks}
    {random_state}
    {verbose}

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
    {input_attributes}

    See Also
    --------
    SelfSupervisedClassifier : Pretrains in the same way, then learns classes.
    RotationPretext : The default pretext task.

    References
    ----------
    {rotation_paper}

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
        epochs=None,
        batch_size=64,
        optimizer=None,
        memory=None,
        checkpoint_dir=None,
        callbacks=None,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.pretext = pretext
        self.image_shape = image_shape
        self.standardize = standardize
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.memory = memory
        self.checkpoint_dir = checkpoint_dir
        self.callbacks = callbacks
        self.random_state = random_state
        self.verbose = verbose

    @all_or_nothing
    def fit(self, X, y=None):
        """Pretrain the backbone.

        Parameters
        ----------
        {X_images_or_views}
            Images of any scale, flat rows, or ready views of each image.
        {y_ignored}

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
        if self.epochs is not None:
            check_scalar(self.epochs, "epochs", Integral, min_val=1)
        check_scalar(self.batch_size, "batch_size", Integral, min_val=1)
        self._check_standardize()
        self._check_callbacks()
        images = self._fit_images(X, allow_views=True)
        start = perf_counter()
        stage = self._pretrain(distinct_images(images, np.arange(len(images))))
        self._seconds = (perf_counter() - start,)
        stage.remove_checkpoint()
        return self

    def _pretrain(self, data, initial_model=None):
        """Pretrain on a set of images, from fresh weights or those of a model.

        Returns the stage, whose checkpoint stays until it is removed.
        """
        self.image_shape_ = data.images.shape[-3:]
        self.n_features_in_ = getattr(
            self, "n_features_in_", math.prod(self.image_shape_)
        )
        self.pretext_ = fitted_pretext(self.pretext, data.images)

        from ._networks.network import build_network, check_pretraining
        from ._networks.surgery import copy_weights, set_statistics
        from ._training.loop import run
        from ._training.stages import pretraining

        network_seed, order_seed = self._draw_seeds(2, self.estimator)
        network = build_network(
            self.estimator,
            self.image_shape_,
            network_seed,
            standardize=self.standardize,
        )
        check_pretraining(network, self.pretext_)
        set_statistics(network, data)
        stage = pretraining(
            network,
            self.pretext_,
            data,
            optimizer=self.optimizer,
            epochs=self.epochs,
            batch_size=self.batch_size,
            seed=order_seed,
            verbose=self.verbose,
        )
        stage = replace(stage, callbacks=self.callbacks or [])
        if initial_model is not None:
            copy_weights(initial_model, stage.model)
        self.history_ = run(
            stage, memory=self.memory, checkpoint_dir=self.checkpoint_dir
        )
        self.pretext_model_, self.backbone_ = stage.model, network.backbone
        return stage

    def transform(self, X):
        """Embed images.

        Parameters
        ----------
        {X_to_embed}

        Returns
        -------
        {embedding}
        """
        from ._training.prediction import predict

        images = self._check_images(X, allow_views=True)
        return predict(self.backbone_, images[:, 0] if images.ndim == 5 else images)

    @available_if(_classifies)
    def predict_pretext(self, X):
        """Predict the pretext label of each view.

        Parameters
        ----------
        {X_to_view}

        Returns
        -------
        {pretext_labels}
        """
        from ._training.prediction import predict_views

        images = self._check_task_images(X)
        return predict_views(self.pretext_model_, self.pretext_, images)

    def score(self, X, y=None):
        """Return the score of the pretext task, such as its accuracy.

        With it, `cross_val_score` and `GridSearchCV` tune pretraining without labels.

        Parameters
        ----------
        {X_to_view}
        {y_ignored}

        Returns
        -------
        score : float
            First metric of the task, minus its loss where it has no metric, or the
            mean of several tasks.
        """
        from ._training.prediction import score_task

        images = self._check_task_images(X)
        return score_task(self.pretext_model_, self.pretext_, images, self.batch_size)

    def _check_task_images(self, X):
        images = self._check_images(X, allow_views=True)
        given = isinstance(self.pretext_, GivenViews)
        n_views = images.shape[1] if images.ndim == 5 else None
        if n_views != (self.pretext_.n_views if given else None):
            expected = f"{self.pretext_.n_views} ready views" if given else "one image"
            raise ValueError(
                f"The pretext task expects {expected} per sample, as in fit, but X "
                f"gives images of shape {images.shape}."
            )
        return images

    @property
    def _n_features_out(self):
        return self.backbone_.output_shape[-1]

    def _stage_histories(self):
        """Return the history of each stage of training."""
        return {"pretraining": self.history_}

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
        check_history(encoder.history_)
        model = encoder.pretext_model_
        encoder.backbone_ = model.get_layer("backbone")

        def head_shape():
            import keras

            features = keras.Input(encoder.backbone_.output_shape[1:])
            outputs = pretext.build_head(features, encoder.image_shape_)
            return keras.Model(features, outputs).output_shape

        expected = without_memory(head_shape)
        require(
            model.output_shape == expected,
            f"a network in it has outputs of shape {model.output_shape}, expected "
            f"{expected}",
        )
        return encoder
