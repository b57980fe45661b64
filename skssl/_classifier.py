"""SelfSupervisedClassifier: pretrain on all images, fine-tune on the labelled ones."""

import warnings
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from numbers import Integral, Real
from time import perf_counter

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_consistent_length, check_scalar
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _check_sample_weight

from ._base import (
    SelfSupervisedEstimator,
    all_or_nothing,
    check_history,
    check_outputs,
    joined_histories,
)
from ._data.images import channels_first_hint, warn_of_volumes
from ._data.labels import encode_labels, known_labels, label_array
from ._data.training_set import TrainingSet, distinct_images
from ._docs import fill_docstrings
from ._encoder import SelfSupervisedEncoder, fitted_pretext
from ._storage.archive import require
from .self_training import Learner, as_strategies


def _pretrained(classifier):
    """Whether there is pretraining to ask about; unknown before fit."""
    if getattr(classifier, "encoder_", ...) is None:
        raise AttributeError("Nothing was pretrained: pretrain_epochs is 0.")
    return True


@fill_docstrings
class SelfSupervisedClassifier(ClassifierMixin, SelfSupervisedEstimator):
    """Image classifier that first learns from images without labels.

    `fit` trains a network on a pretext task with *all* images, by default to tell by
    which angle an image was turned [1]_, then fine-tunes it on the labelled ones.

    Parameters
    ----------
    estimator : scikeras.wrappers.KerasClassifier, callable, keras.Model or None, \
            default=None
        The network and how it is fine-tuned. A KerasClassifier carries the arguments
        of `keras.Model.compile` and `fit` (as ``loss``, ``compile__jit_compile``,
        ``fit__validation_data``) and the parameters of its build function, all
        reachable as ``estimator__…``. Each of its settings is used, or refused by name
        before anything is trained; see Notes. A function that builds a network, a
        Functional or Sequential model, or None for :func:`~skssl.build_cnn` are
        wrapped with the Adam optimizer, batches of 64 and ``epochs=None``, which is as
        many epochs as give 1000 steps, and at least 5; an epoch then is as many passes
        over the labelled rows as give 50 steps. The last Dense layer (with a softmax
        after it, if any) is the class head; all layers before it are the backbone. The
        estimator is never changed, apart from its callbacks, which are used as given,
        not copied; a model starts from its own weights.
    {pretext}
    encoder : SelfSupervisedEncoder, default=None
        A fitted encoder with the same network to start from instead of pretraining, in
        :class:`~sklearn.frozen.FrozenEstimator` where it must survive `clone`. With
        ``estimator=None`` the encoder's estimator is used. `pretrain_epochs`,
        `pretrain_batch_size` and `memory` then have no effect, and a warning says so
        where one of them was set.
    {image_shape}
    {standardize}
        "auto" is the setting of `encoder` where one is given.
    pretrain_epochs : int or None, default=None
        Number of passes over all images; None is as many as give 600 steps, and 0
        leaves pretraining out.
    pretrain_batch_size : int, default=64
        Number of inputs in one step of pretraining; with four rotations, 64 inputs are
        16 images.
    pretrain_optimizer : str or keras.optimizers.Optimizer, default=None
        Optimizer of pretraining, which is not that of the KerasClassifier: so a search
        over the latter pretrains once. None is Adam with a learning rate that falls
        from 0.001 to 0 along a cosine.
    augmentation : "auto", None, keras.layers.Layer, list of these or callable, \
            default="auto"
        How images are changed at random in fine-tuning and self-training, a batch at a
        time. "auto" shifts, turns, zooms and shears them a little, mirrors nothing, so
        that letters and digits stay what they are, and changes brightness, contrast and
        colour of images with three channels. Layers are called as in training and draw
        from the seeds of `random_state`. A function gets a batch of images, a tensor of
        shape (batch, height, width, channels), and returns them changed; what it draws
        from `keras.random` follows from `random_state`, too.
    self_training : "auto", None, SelfTraining or list of SelfTraining, default="auto"
        How the fine-tuned network learns on from the images without a label, where
        there are any: strategies of `skssl.self_training`, one after the other. "auto"
        is :class:`~skssl.self_training.LabelSpread`, then
        :class:`~skssl.self_training.FixMatch`. None ends after fine-tuning.
    frozen_layers : int or "all", default=0
        How many layers of the backbone keep their pretrained weights, counted from the
        input as in slicing (a negative number is the number of layers to train, counted
        from the end); "all" makes a linear probe. Input and standardisation layers are
        not counted. All other layers start from their pretrained weights, except a
        Dense layer at the end of the backbone. That starts from fresh weights, because
        what it has learned is specific to the pretext task.
    unfreeze_epochs : int, default=0
        Number of further epochs of fine-tuning, in which no layer is frozen any more,
        apart from batch normalization. The optimizer starts afresh. `partial_fit`
        leaves them out, and freezes the layers again.
    unfreeze_learning_rate : float, default=1e-5
        Learning rate of these epochs, in place of that of the optimizer.
    {unlabeled_label}
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, as elsewhere in scikit-learn. "balanced" needs all
        labels at once, so `partial_fit` refuses it. None takes those of the
        KerasClassifier: its `class_weight`, or its `fit__class_weight`, whose keys are
        class indices as in Keras, and which is refused where the labels are others.
    {memory}
    {checkpoint_dir}
    {callbacks}
        Those of a KerasClassifier are called in fine-tuning only.
    warm_start : bool, default=False
        Whether a further `fit` starts from the weights of the last one: pretraining
        from those of `encoder_`, fine-tuning from those of `model_`. Shape of the
        images and classes have to be the same.
    {random_state}
        Workers of ``n_jobs`` have fewer threads each than a single process.
    {verbose}
        A `verbose` of the KerasClassifier other than its default of 1, or a
        `fit__verbose`, is for fine-tuning.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    model_ : keras.Model
        Network from images to class probabilities. The layers of the given network are
        in its layer "backbone": ``model_.get_layer("backbone").get_layer("conv2d")``.
    encoder_ : SelfSupervisedEncoder or None
        The encoder as it was when pretraining ended; None if nothing was pretrained.
    pretrain_history_ : dict of list or None
        Loss and metrics of each epoch of pretraining.
    self_training_history_ : dict of list or None
        Loss of each epoch of all parts of self-training, and metrics, NaN where an
        epoch has none; None if there was none.
    transduction_ : ndarray of shape (n_samples,) or None
        Label of each row of X in `fit`, given or predicted; None without self-training.
    label_distributions_ : ndarray of shape (n_samples, n_classes), float32, or None
        Its probabilities, which are 1 and 0 for a given label.
    finetune_history_ : dict of list
        Loss and metrics of each epoch of fine-tuning, NaN where an epoch has none:
        `partial_fit` after a fit with `validation_split` measures no ``val_loss``.
    {input_attributes}

    See Also
    --------
    SelfSupervisedEncoder : Pretraining alone, as a transformer.
    RotationPretext : The default pretext task.
    sklearn.semi_supervised.SelfTrainingClassifier : Learns from its own predictions.

    Notes
    -----
    Settings of a KerasClassifier as `estimator`:

    - A setting with the prefix ``fit__`` or ``compile__`` comes before the same one
      without. A model that the build function compiles keeps all settings of that: an
      optimizer that the wrapper names, as ``optimizer="adam"``, is then ignored, and
      other settings of `compile` that differ are refused. Pretraining uses the settings
      of `compile` on how to run a step, such as `jit_compile`, and an optimizer of its
      own. Self-training uses the optimizer of fine-tuning, with a learning rate that
      falls along a cosine.
    - Its callbacks are called in fine-tuning only. After `fit` they hold what they have
      recorded, but not the network. Classes are made callbacks as scikeras does it,
      with parameters such as ``callbacks__patience``.
    - ``fit__validation_data`` is ``(X, y)`` or ``(X, y, sample_weight)``, as for `fit`.
      `validation_split` holds out the same share of each class; the only image of a
      class stays in training.
    - A loss of Keras gets the targets that it takes, one-hot or class indices, and so
      does a loss of a class derived from it. Any other loss gets class indices, of
      shape (n_batch,), unless it has an attribute ``one_hot`` that is true: then they
      are one-hot, of shape (n_batch, n_classes).
    - Optimizers, schedules and metrics may be of classes that Keras does not know.
      Optimizers and metrics are copied for each training, so their `get_config` has to
      return every argument of the constructor.
    - Not used, and refused, are: `warm_start=True`, ``predict__…``, and of ``fit__…``
      `x`, `y`, `sample_weight`, `initial_epoch` and `steps_per_epoch`.

    Loss and metrics are tried on a small batch before pretraining starts. If
    fine-tuning fails all the same, a note at the error says whether the pretraining is
    kept.

    References
    ----------
    {rotation_paper}

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skssl import SelfSupervisedClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> y_few = np.where(np.arange(len(y)) < 100, y, -1)  # -1: no label
    >>> clf = SelfSupervisedClassifier(pretrain_epochs=2, random_state=0)
    >>> clf.fit(X, y_few).predict(X[:5]).shape
    (5,)
    """

    def __init__(
        self,
        estimator=None,
        *,
        pretext=None,
        encoder=None,
        image_shape=None,
        standardize="auto",
        pretrain_epochs=None,
        pretrain_batch_size=64,
        pretrain_optimizer=None,
        augmentation="auto",
        self_training="auto",
        frozen_layers=0,
        unfreeze_epochs=0,
        unfreeze_learning_rate=1e-5,
        unlabeled_label=-1,
        class_weight=None,
        memory=None,
        checkpoint_dir=None,
        callbacks=None,
        warm_start=False,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.pretext = pretext
        self.encoder = encoder
        self.image_shape = image_shape
        self.standardize = standardize
        self.pretrain_epochs = pretrain_epochs
        self.pretrain_batch_size = pretrain_batch_size
        self.pretrain_optimizer = pretrain_optimizer
        self.augmentation = augmentation
        self.self_training = self_training
        self.frozen_layers = frozen_layers
        self.unfreeze_epochs = unfreeze_epochs
        self.unfreeze_learning_rate = unfreeze_learning_rate
        self.unlabeled_label = unlabeled_label
        self.class_weight = class_weight
        self.memory = memory
        self.checkpoint_dir = checkpoint_dir
        self.callbacks = callbacks
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    @all_or_nothing
    def fit(self, X, y, sample_weight=None):
        """Pretrain on all images, fine-tune on the labelled ones, and self-train.

        Parameters
        ----------
        {X_images_or_views}
            Images of any scale, flat rows, or ready views of each image, the first of
            which is the image itself.
        y : array-like of shape (n_samples,)
            Labels; rows marked by `unlabeled_label` take part in pretraining and
            self-training.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the labelled rows in fine-tuning, which are scaled to a mean of
            1. Equal rows count as one row with the sum of their weights. A row of
            weight 0 is left out altogether.

        Returns
        -------
        self : object
            The fitted classifier.

        Raises
        ------
        ValueError
            If X, y, the network, the parameters and the settings of `estimator` do not
            fit together, or if a label is missing or looks like the mark without being
            it, as "-1" does.
        TypeError
            If `estimator`, one of its settings, `pretext`, `encoder` or the labels are
            of a type that is not supported.
        NotFittedError
            If `encoder` is not fitted.
        """
        self._fit(X, y, sample_weight)
        return self

    @all_or_nothing
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Fine-tune for one more epoch on new rows.

        After `fit` it continues from the fitted weights. The first call on an unfitted
        classifier pretrains, on these rows. Callbacks and validation are for
        `fit` alone.

        Calls on the same rows are the epochs of one `fit`, if these rows differ from
        each other and have no weights. With weights, `fit` scales them to a mean of 1,
        while `partial_fit` takes them as they are, so that all calls are on one scale.

        Parameters
        ----------
        {X_images_or_views}
            Images as in `fit`.
        y : array-like of shape (n_samples,)
            Labels; rows marked by `unlabeled_label` pretrain in the first call, and are
            ignored in later ones.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever come; needed in the first call on an unfitted
            classifier. `unlabeled_label` among them is ignored.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the labelled rows, used as they are; without any, each row has
            weight 1. `class_weight` multiplies them. Equal rows of one call count as
            one row with the sum of their weights.

        Returns
        -------
        self : object
            The classifier.

        Raises
        ------
        ValueError
            As in `fit`, if y holds labels that are not among the classes, and if
            `class_weight` is "balanced".
        """
        if not hasattr(self, "model_"):
            if classes is None:
                raise ValueError(
                    "The first call of partial_fit needs classes=, all labels that "
                    "will ever come."
                )
            self._fit(X, y, sample_weight, classes, epoch=0)
            return self
        self._check_same_classes(classes)

        from ._training.loop import run
        from ._training.reuse import restored_on_failure

        images = self._check_images(X)
        _, _, data = self._training_sets(
            images, y, sample_weight, self.classes_, scale_weights=False
        )
        _, network_seed, seed = self._seeds()
        network = getattr(self, "_network", None)
        if network is None:
            network = self._build_network(network_seed, self)
        n_epochs = len(next(iter(self.finetune_history_.values()), ()))
        stage = self._finetuning(network, data, seed, epoch=n_epochs)
        with restored_on_failure(network.training_model):
            history = run(stage)
        network.training_model = stage.model
        self._network, self.model_ = network, network.prediction_model
        self.finetune_history_ = joined_histories(self.finetune_history_, history)
        vars(self).pop("_seconds", None)
        return self

    def _fit(self, X, y, sample_weight, classes=None, epoch=None):
        """Pretrain and fine-tune; for `partial_fit` the first epoch alone."""
        self._check_parameters()

        from ._training.loop import run

        # Check everything before training.
        previous = copy(self) if self.warm_start and hasattr(self, "model_") else None
        images = self._fit_images(X, allow_views=True)
        self.classes_, data, labelled = self._training_sets(
            images, y, sample_weight, classes, scale_weights=epoch is None
        )
        self._check_same_start(previous, images)
        encoder_seed, network_seed, seed = self._seeds()
        network = self._build_network(network_seed, previous)
        finetuning = self._finetuning(network, labelled, seed, epoch)
        strategies = [] if epoch is not None else self._strategies(data, labelled)

        # Pretrain on all images. Fine-tuning starts from the pretrained weights.
        times = [perf_counter()]
        pretraining = self._pretrain(data, encoder_seed, previous)
        times.append(perf_counter())
        if previous is None:
            self._set_initial_weights(network, data)
        learner = None
        if strategies:
            learner = self._learner(network, data, finetuning, seed)

        # Fine-tune on the labelled images, then learn on from those without a label.
        with self._note_on_failure():
            history = run(finetuning, checkpoint_dir=self.checkpoint_dir)
            unfrozen = None
            if self.unfreeze_epochs and epoch is None:
                unfrozen = self._unfrozen(network, labelled, seed, finetuning)
                more = run(unfrozen, checkpoint_dir=self.checkpoint_dir)
                history = joined_histories(history, more)
            times.append(perf_counter())
            for strategy in strategies:
                strategy.learn(learner)
        self._seconds = tuple(np.diff([*times, perf_counter()]))  # of each stage
        self.model_ = network.prediction_model
        self._set_histories(previous, history, learner.history if learner else None)
        self._set_transduction(images, y, strategies)
        network.training_model = finetuning.model
        vars(self).pop("_network", None)
        if epoch is not None:
            self._network = network
        stages = [pretraining, finetuning, unfrozen]
        stages += learner.stages if learner else []
        for stage in filter(None, stages):
            stage.remove_checkpoint()

    def _set_histories(self, previous, finetuned, self_trained):
        """Set the histories of the stages behind pretraining."""
        results = {
            "finetune_history_": finetuned,
            "self_training_history_": self_trained,
        }
        for name, history in results.items():
            before = previous and getattr(previous, name)
            setattr(self, name, joined_histories(before, history))

    def _strategies(self, data, labelled):
        """Return how to learn from the images without a label, if there are any."""
        strategies = as_strategies(self.self_training)
        return strategies if len(set(labelled.rows)) < len(data) else []

    def _learner(self, network, data, finetuning, seed):
        """Return what the strategies of self-training work with."""
        if data.images.ndim == 5:
            data = replace(data, images=data.images[:, 0])
        batches = finetuning.batches
        return Learner(
            network,
            data,
            batches.data,
            self.augmentation,
            len(self.classes_),
            max(1, finetuning.epochs * batches.n_steps),
            seed,
            finetuning.verbose,
            self.checkpoint_dir,
            self.callbacks or [],
        )

    def _set_transduction(self, images, y, strategies):
        """Set the label of every training row, where self-training has run."""
        self.label_distributions_ = self.transduction_ = None
        if strategies:
            _, rows, targets = encode_labels(y, self.unlabeled_label, self.classes_)
            distributions = self._probabilities(images)
            distributions[rows] = np.eye(len(self.classes_), dtype=np.float32)[targets]
            self.label_distributions_ = distributions
            self.transduction_ = self.classes_[distributions.argmax(axis=1)]

    def _training_sets(self, images, y, sample_weight, classes, scale_weights):
        """Return classes, the set of all images and that of the labelled ones.

        Weights of `partial_fit` are not scaled: those of later calls are not known.
        """
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None. SelfSupervisedEncoder learns without y."
            )
        check_consistent_length(images, y)
        weighted = np.arange(len(images))
        if sample_weight is not None:
            sample_weight = _check_sample_weight(
                sample_weight, images, ensure_non_negative=True
            )
            # Rows of weight 0 are left out, of pretraining too.
            weighted = np.flatnonzero(sample_weight)
            if not len(weighted):
                raise ValueError(
                    "sample_weight must hold a weight above zero, got zeros alone: "
                    "rows of weight 0 are left out. Without weights every row counts."
                )
            y, sample_weight = label_array(y)[weighted], sample_weight[weighted]
        classes, rows, targets = encode_labels(y, self.unlabeled_label, classes)
        weights = None if sample_weight is None else sample_weight[rows]
        class_weight = self._chosen_class_weight(classes)
        is_balanced = isinstance(class_weight, str) and class_weight == "balanced"
        if is_balanced and not scale_weights:
            raise ValueError(
                "class_weight='balanced' needs the labels of all rows, but partial_fit "
                "sees those of one call. Give class_weight as a dict, with weights as "
                "compute_class_weight('balanced', classes=classes, y=y) of "
                "sklearn.utils.class_weight returns them for a large sample of y."
            )
        if class_weight is not None:
            of_class = compute_sample_weight(class_weight, classes[targets])
            weights = of_class if weights is None else weights * of_class
        data = distinct_images(images, weighted)
        labelled = data.labelled(rows, targets, weights, scale_weights=scale_weights)
        if images.ndim == 5:
            labelled = replace(labelled, images=images[:, 0])
        return classes, data, labelled

    def _check_same_start(self, previous, images):
        """Refuse a warm start on other data, and warn of volumes read as views."""
        if previous and not (
            np.array_equal(previous.classes_, self.classes_)
            and previous.image_shape_ == self.image_shape_
        ):
            raise ValueError(
                "warm_start=True goes on with the same classes and shape of images: "
                f"expected {previous.classes_.tolist()} and {previous.image_shape_}, "
                f"got {self.classes_.tolist()} and {self.image_shape_}. Fit a clone "
                "instead."
            )
        if images.ndim == 5 and self.pretext is None:
            warn_of_volumes(images)

    def _chosen_class_weight(self, classes):
        """Return the weights of the classes by label, wherever they are given."""
        source = self._network_source()
        of_keras = getattr(source, "fit__class_weight", None)  # by index
        if isinstance(of_keras, dict) and not np.array_equal(
            classes, np.arange(len(classes))
        ):
            raise ValueError(
                "fit__class_weight of the KerasClassifier has class indices as its "
                f"keys, which are not the labels {classes.tolist()}. Give class_weight "
                "of the SelfSupervisedClassifier, by label."
            )
        given = [self.class_weight, getattr(source, "class_weight", None), of_keras]
        first, *others = [x for x in given if x is not None] or [None]
        if any(other != first for other in others):
            raise ValueError(
                "class_weight is given more than once, by the SelfSupervisedClassifier "
                f"and its KerasClassifier: {first!r} and {others!r}. Leave one."
            )
        return first

    def _seeds(self):
        """Return the seeds of pretraining, of the network and of fine-tuning."""
        return self._draw_seeds(3, self._network_source())

    def _check_same_classes(self, classes):
        """Refuse classes that are not those of the first call of `partial_fit`."""
        if classes is None:
            return
        given = known_labels(classes, self.unlabeled_label, "classes")[1]
        if not np.array_equal(np.unique(given), self.classes_):
            raise ValueError(
                f"classes={given.tolist()} are not those of the first call, "
                f"{self.classes_.tolist()}."
            )

    def _check_parameters(self):
        if self.pretrain_epochs is not None:
            check_scalar(self.pretrain_epochs, "pretrain_epochs", Integral, min_val=0)
        check_scalar(
            self.pretrain_batch_size, "pretrain_batch_size", Integral, min_val=1
        )
        check_scalar(self.unfreeze_epochs, "unfreeze_epochs", Integral, min_val=0)
        check_scalar(
            self.unfreeze_learning_rate,
            "unfreeze_learning_rate",
            Real,
            min_val=0,
            include_boundaries="neither",
        )
        self._check_standardize()
        self._check_callbacks()
        as_strategies(self.self_training)
        frozen = self.frozen_layers
        if frozen != "all" and (
            isinstance(frozen, bool) or not isinstance(frozen, Integral)
        ):
            raise TypeError(f"frozen_layers must be an int or 'all', got {frozen!r}.")
        if self.encoder is not None and self.pretext is not None:
            raise ValueError(
                "encoder= starts from an encoder that is pretrained already, so "
                "pretext= has nothing to do: give one of them."
            )
        if self.encoder is not None:
            defaults = SelfSupervisedClassifier().get_params(deep=False)
            unused = [
                f"{name}={getattr(self, name)!r}"
                for name in ("pretrain_epochs", "pretrain_batch_size", "memory")
                if getattr(self, name) != defaults[name]
            ]
            if unused:
                warnings.warn(
                    "encoder= starts from an encoder that is pretrained already, so "
                    f"{', '.join(unused)} has no effect: give it to the encoder before "
                    "its fit, as epochs, batch_size or memory, and leave it out here.",
                    UserWarning,
                    stacklevel=5,
                )

    def _finetuning(self, network, labelled, seed, epoch=None):
        """Return the stage of fine-tuning, with the validation data of the user."""
        from ._training.stages import finetuning
        from .augmentation import check_augmentation

        check_augmentation(self.augmentation, self.image_shape_)
        validation = network.fit_kwargs["validation_data"] if epoch is None else None
        stage = finetuning(
            network,
            labelled,
            augmentation=self.augmentation,
            seed=seed,
            verbose=self.verbose,
            epoch=epoch,
            validation=validation and self._validation_set(*validation),
            classes=self.classes_,
        )
        if epoch is None:
            stage.callbacks = [*stage.callbacks, *(self.callbacks or [])]
        return stage

    def _unfrozen(self, network, labelled, seed, finetuning):
        """Return the stage that goes on with fine-tuning, with all layers."""
        from ._networks.copies import fresh_optimizer
        from ._networks.surgery import unfreeze

        unfreeze(network)
        optimizer = fresh_optimizer(
            network.compile_kwargs["optimizer"],
            learning_rate=self.unfreeze_learning_rate,
        )
        slower = replace(
            network,
            compile_kwargs={**network.compile_kwargs, "optimizer": optimizer},
            fit_kwargs={**network.fit_kwargs, "epochs": self.unfreeze_epochs},
        )
        stage = self._finetuning(slower, labelled, seed)
        batches = replace(
            stage.batches,
            passes=finetuning.batches.passes,
            first_epoch=finetuning.epochs,
        )
        return replace(stage, name="fine-tuning of all layers", batches=batches)

    def _validation_set(self, X, y, sample_weight=None):
        """Return the user's validation data as a set of labelled images."""
        try:
            images = self._check_images(X)
            check_consistent_length(images, y, sample_weight)
            _, rows, targets = encode_labels(y, self.unlabeled_label, self.classes_)
            if sample_weight is not None:
                sample_weight = _check_sample_weight(
                    sample_weight, images, ensure_non_negative=True
                )[rows]
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            message = f"validation_data of the KerasClassifier: {error}"
            raise kind(message) from error
        return TrainingSet(images, rows, targets, sample_weight)

    def _set_initial_weights(self, network, data):
        """Start fine-tuning from the pretrained backbone, or adapt fresh layers."""
        from ._networks.surgery import set_statistics, transfer_weights

        if self.encoder_ is None:
            set_statistics(network, data)
            return
        try:
            transfer_weights(self.encoder_.backbone_, network)
        except ValueError as error:
            raise ValueError(
                "The encoder's network has other layers than the classifier's: "
                "give both the same estimator, or the classifier none."
            ) from error

    @contextmanager
    def _note_on_failure(self):
        """Add a note on the pretraining to an error of fine-tuning."""
        try:
            yield
        except Exception as error:
            if self.encoder is None and self.pretrain_epochs != 0:
                error.add_note(self._pretraining_note())
            raise

    def _pretraining_note(self):
        places = {"memory": self.memory, "checkpoint_dir": self.checkpoint_dir}
        kept = [f"{k}={v!r}" for k, v in places.items() if v is not None]
        source = self._random_source(self._network_source())
        if kept and isinstance(source, Integral):
            return (
                f"Pretraining was finished and is kept in {' and '.join(kept)}: the "
                "next fit on the same images goes on from there."
            )
        remedy = "To" if kept else "memory= or checkpoint_dir= keeps it; to"
        return (
            f"Pretraining was finished and is lost. {remedy} find it again, "
            "random_state has to be an int."
        )

    def _build_network(self, seed, previous=None):
        """Return the network, with fresh weights or those of a fitted classifier."""
        from ._networks.network import build_network
        from ._networks.surgery import copy_weights, freeze

        standardize = self.standardize
        if standardize == "auto" and self.encoder is not None:
            standardize = self._given_encoder().standardize
        network = build_network(
            self._network_source(),
            self.image_shape_,
            seed,
            self.classes_,
            standardize,
        )
        freeze(network, self.frozen_layers)
        if previous is not None:
            try:
                copy_weights(previous.model_, network.prediction_model)
            except ValueError as error:
                raise ValueError(
                    "The estimator builds another network than the one fitted before: "
                    "leave its parameters as they were, or fit a clone."
                ) from error
        return network

    def _network_source(self):
        """Return what to build the network from."""
        if self.estimator is None and self.encoder is not None:
            return self._given_encoder().estimator
        return self.estimator

    def _given_encoder(self):
        encoder = self.encoder
        if isinstance(encoder, FrozenEstimator):
            encoder = encoder.estimator
        if not isinstance(encoder, SelfSupervisedEncoder):
            raise TypeError(
                f"encoder must be a fitted SelfSupervisedEncoder, got {encoder!r}."
            )
        if not hasattr(encoder, "backbone_"):
            raise NotFittedError(
                "encoder is not fitted. Fit it first; where the classifier is cloned, "
                "as in a grid search, wrap it as FrozenEstimator(encoder)."
            )
        return encoder

    def _pretrain(self, data, seed, previous):
        """Set the encoder to start from; return the stage that trained it, if any."""
        stage = None
        if self.encoder is not None:
            self.encoder_ = self._given_encoder()
            if self.encoder_.image_shape_ != self.image_shape_:
                raise ValueError(
                    "The encoder was fitted on images of shape "
                    f"{self.encoder_.image_shape_}, but X has images of shape "
                    f"{self.image_shape_}.{channels_first_hint(data.images.shape)}"
                )
        elif self.pretrain_epochs == 0:
            fitted_pretext(self.pretext, data.images)  # refuse an invalid one here, too
            self.encoder_ = previous and previous.encoder_
        else:
            self.encoder_ = SelfSupervisedEncoder(
                self.estimator,
                pretext=self.pretext,
                standardize=self.standardize,
                epochs=self.pretrain_epochs,
                batch_size=self.pretrain_batch_size,
                optimizer=self.pretrain_optimizer,
                memory=self.memory,
                checkpoint_dir=self.checkpoint_dir,
                callbacks=self.callbacks,
                random_state=seed,
                verbose=self.verbose,
            )
            before = previous and previous.encoder_
            stage = self.encoder_._pretrain(data, before and before.pretext_model_)
            if before:
                history = joined_histories(before.history_, self.encoder_.history_)
                self.encoder_.history_ = history
        self.pretrain_history_ = self.encoder_ and self.encoder_.history_
        return stage

    def predict_proba(self, X):
        """Return class probabilities.

        Parameters
        ----------
        {X_to_embed}

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes), float32
            Columns in the order of `classes_`.
        """
        return self._probabilities(self._check_images(X))

    def _probabilities(self, images):
        from ._training.prediction import predict_probabilities

        if images.ndim == 5:
            images = images[:, 0]
        return predict_probabilities(self.model_, images)

    def predict(self, X):
        """Return the most probable class.

        Parameters
        ----------
        {X_to_embed}

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            Labels from `classes_`.
        """
        most_probable = self.predict_proba(X).argmax(axis=1)
        return self.classes_[most_probable]

    def score(self, X, y, sample_weight=None):
        """Return the accuracy of the predicted classes.

        Parameters
        ----------
        {X_to_embed}
        y : array-like of shape (n_samples,)
            True labels. A row without one counts as wrong, and a warning says so.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        score : float
            Share of the rows whose class is predicted rightly.
        """
        n_unlabelled = len(y) - len(known_labels(y, self.unlabeled_label)[0])
        if n_unlabelled:
            warnings.warn(
                f"{n_unlabelled} of {len(y)} rows to score on have no label, and count "
                "as wrong. Score labelled rows alone; SemiSupervisedKFold makes folds "
                "that test on no others.",
                UserWarning,
                stacklevel=2,
            )
        return super().score(X, y, sample_weight)

    def transform(self, X):
        """Embed images with the fine-tuned backbone.

        Parameters
        ----------
        {X_to_embed}

        Returns
        -------
        {embedding}
        """
        from ._training.prediction import predict

        images = self._check_images(X)
        return predict(self.model_.get_layer("backbone"), images)

    @available_if(_pretrained)
    def predict_pretext(self, X):
        """Predict the label of each view with the pretrained network.

        Parameters
        ----------
        {X_to_view}

        Returns
        -------
        {pretext_labels}
        """
        images = self._check_images(X, keep_views=True)
        return self.encoder_.predict_pretext(images)

    @available_if(_pretrained)
    def score_pretext(self, X):
        """Return the pretext accuracy of the pretrained network.

        Parameters
        ----------
        {X_to_view}

        Returns
        -------
        score : float
            As of :meth:`SelfSupervisedEncoder.score`.
        """
        images = self._check_images(X, keep_views=True)
        return self.encoder_.score(images)

    @property
    def _n_features_out(self):
        return self.model_.get_layer("backbone").output_shape[-1]

    def _check_images(self, X, keep_views=False):
        images = super()._check_images(X, allow_views=True)
        return images[:, 0] if images.ndim == 5 and not keep_views else images

    def _stage_histories(self):
        """Return the history of each stage of training, None where it was not run."""
        return {
            "pretraining": self.pretrain_history_,
            "fine-tuning": self.finetune_history_,
            "self-training": self.self_training_history_,
        }

    _saved_network = "model_"
    _saved_attributes = (
        "n_features_in_",
        "classes_",
        "finetune_history_",
        "self_training_history_",
        "transduction_",
        "label_distributions_",
    )

    def _saved_state(self):
        encoder = self.encoder_
        state = None if encoder is None else encoder._saved_state()
        return {**super()._saved_state(), "encoder_": state}

    @classmethod
    def _from_saved_state(cls, state):
        own_state = dict(state)
        encoder = own_state.pop("encoder_")
        classifier = super()._from_saved_state(own_state)
        classes = classifier.classes_
        require(
            isinstance(classes, np.ndarray)
            and len(classes) >= 2
            and np.array_equal(np.unique(classes), classes),
            "its classes are no sorted array of distinct labels",
        )
        n_classes = len(classes)
        check_outputs(
            classifier.model_, {n_classes, 1 if n_classes == 2 else n_classes}
        )
        check_history(classifier.finetune_history_)
        classifier._check_saved_self_training()
        if encoder is not None:
            encoder = SelfSupervisedEncoder._from_saved_state(encoder)
            require(
                encoder.image_shape_ == classifier.image_shape_,
                "its encoder takes images of another shape",
            )
        classifier.encoder_ = encoder
        classifier.pretrain_history_ = None if encoder is None else encoder.history_
        return classifier

    def _check_saved_self_training(self):
        """Refuse what self-training has not left, from a file."""
        if self.self_training_history_ is not None:
            check_history(self.self_training_history_)
        labels, distributions = self.transduction_, self.label_distributions_
        if labels is None and distributions is None:
            return
        require(
            isinstance(labels, np.ndarray)
            and labels.ndim == 1
            and np.isin(labels, self.classes_).all()
            and isinstance(distributions, np.ndarray)
            and distributions.dtype == np.float32
            and distributions.shape == (len(labels), len(self.classes_)),
            "its transduction_ and label_distributions_ are none of its classes",
        )
