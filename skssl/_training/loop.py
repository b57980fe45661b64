"""Training and prediction: Keras `fit` on a tf.data input.

Who owns what: `_Batches` owns the order of the rows and hands out raw images, a block
of batches at a time; the pretext task turns a batch into inputs and targets, as a part
of the step; Keras owns the steps, the metrics and the callbacks; `_Progress` watches a
training and keeps its state. All randomness of the input comes from (seed, epoch), so
that an epoch can be repeated exactly.
"""

import contextlib
import functools
import itertools
import math
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from sklearn.model_selection import train_test_split

from .._data.images import load_batch
from .._networks.network import finetune_schedule
from .._networks.surgery import split_frozen
from .._runtime import LOCK, check_process, seeded, seeded_process, shared_seeds
from .._storage.checkpoint import callback_state
from .callbacks import used
from .reuse import BlockTrainer, shell, trainer

# So many steps are one call of TensorFlow, if their images are not larger than this.
STEPS_PER_BLOCK = 32
MAX_BLOCK_BYTES = 2**24
# Fast on two cores, and keeps the activations of a prediction small.
PREDICTION_BATCH_SIZE = 128
# The outputs of frozen layers are kept up to this size, else computed at every step.
MAX_FROZEN_BYTES = 2**30
# Callbacks of Keras that do as well with blocks of steps, with a copy of a network, and
# with the part of it that is behind its frozen layers.
INDIFFERENT_CALLBACKS = (
    keras.callbacks.EarlyStopping,
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.ReduceLROnPlateau,
    keras.callbacks.TerminateOnNaN,
)


class _Batches:
    """Rows of images in batches, epoch by epoch, as tf.data sets.

    Batches differ by at most one row in size, so none is left tiny at the end.

    Parameters
    ----------
    images : ndarray of shape (n_samples, ..., height, width, channels)
        Images, read a block of batches at a time.
    rows : ndarray of shape (n_rows,)
        The rows to read.
    batch_size, seed : int
        Largest size of a batch, and what the order of each epoch follows from.
    labels : sequence of ndarray of shape (n_rows, ...)
        What is handed out along with the images.
    shuffle : bool, default=True
        Whether to draw a new order in each pass.
    passes : int, default=1
        How often an epoch reads every row.
    first_epoch : int, default=0
        Number of the first epoch, from which the order follows, too.
    """

    def __init__(
        self,
        images,
        rows,
        batch_size,
        seed,
        labels=(),
        *,
        shuffle=True,
        passes=1,
        first_epoch=0,
    ):
        self.images, self.rows, self.labels = images, rows, labels
        self.seed, self.shuffle, self.passes = seed, shuffle, passes
        self.first_epoch = first_epoch
        self.n_batches = math.ceil(len(rows) / batch_size)

    def blocks(self, n_done, n_epochs):
        """Return a set of all blocks of a training, as a BlockTrainer takes them.

        Parameters
        ----------
        n_done, n_epochs : int
            Number of epochs to pass over, and of epochs with these.

        Returns
        -------
        dataset : tf.data.Dataset of (images, seeds, bounds, *labels)
            The images of a block, a seed for each batch, and where in the images each
            batch begins and the last one ends.
        n_blocks : int
            Number of blocks of an epoch.
        """
        largest = math.ceil(len(self.rows) / self.n_batches)
        batch_bytes = load_batch(self.images[:1]).nbytes * largest
        n_steps = max(1, min(STEPS_PER_BLOCK, MAX_BLOCK_BYTES // batch_bytes))

        def blocks():
            for epoch in range(n_done, n_epochs):
                yield from self._epoch(self.first_epoch + epoch, n_steps)

        n_blocks = math.ceil(self.passes * self.n_batches / n_steps)
        return self._dataset(blocks).prefetch(1), n_blocks

    def separate(self, prepare, n_done=0):
        """Return a set of single, prepared batches; a run through it is an epoch."""
        epochs = itertools.count(self.first_epoch + n_done)
        dataset = self._dataset(lambda: self._epoch(next(epochs), 1))
        n_batches = self.passes * self.n_batches
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(n_batches))

        # As a plain function: AutoGraph would rewrite a task's code, and its errors.
        @tf.autograph.experimental.do_not_convert
        def prepared(images, seeds, bounds, *labels):
            return prepare(images, seeds[0], *labels)

        return dataset.map(prepared).prefetch(1)

    def _epoch(self, epoch, n_steps):
        rng, n_rows = np.random.default_rng([self.seed, epoch]), len(self.rows)
        batches = []
        for _ in range(self.passes):
            order = rng.permutation(n_rows) if self.shuffle else np.arange(n_rows)
            batches += np.array_split(order, self.n_batches)
        seeds = rng.integers(2**31 - 1, size=(len(batches), 2), dtype=np.int32)
        for start in range(0, len(batches), n_steps):
            block = batches[start : start + n_steps]
            order = np.concatenate(block)
            yield (
                load_batch(self.images[self.rows[order]]),
                seeds[start : start + n_steps],
                np.cumsum([0, *map(len, block)], dtype=np.int32),
                *(label[order] for label in self.labels),
            )

    def _dataset(self, blocks):
        image = load_batch(self.images[:1])
        signature = (
            tf.TensorSpec((None, *image.shape[1:]), image.dtype),
            tf.TensorSpec((None, 2), tf.int32),
            tf.TensorSpec((None,), tf.int32),
            *(tf.TensorSpec((None, *x.shape[1:]), x.dtype) for x in self.labels),
        )
        dataset = tf.data.Dataset.from_generator(blocks, output_signature=signature)
        options = tf.data.Options()
        # Nothing to tune, and its thread can take a second to end.
        options.autotune.enabled = False
        return dataset.with_options(options)


def _pretext_batches(pretext, images, rows, batch_size, seed, **order):
    """Return batches of images that a pretext task makes `batch_size` inputs of."""
    images_per_batch = max(1, batch_size // pretext.n_views)
    return _Batches(images, rows, images_per_batch, seed, **order)


def _labelled(image, seed, *labels):
    """Prepare a batch of labelled images, which is to leave it as it is."""
    return image, *labels


class _Progress(keras.callbacks.Callback):
    """Watches a training: keeps its state by epoch, and stops one that diverges.

    Parameters
    ----------
    stage : str
        Name of the stage, for messages.
    checkpoint : Checkpoint or None
        Where to keep the state, and from where to go on.
    callbacks : list of keras.callbacks.Callback
        The other callbacks, whose state is part of that of the training.
    """

    def __init__(self, stage, checkpoint, callbacks):
        super().__init__()
        self.stage = stage
        self.checkpoint = checkpoint
        self.callbacks = callbacks
        self.state = checkpoint.read() if checkpoint else None
        self.history = self.state["history"] if self.state else {}

    def on_train_begin(self, logs=None):
        """Put everything back to where the checkpoint was written."""
        if self.state is None:
            return
        for variable, value in zip(
            self._variables(), self.state["values"], strict=True
        ):
            variable.assign(value)
        # The last of all callbacks, so after `on_train_begin` of the others.
        for callback, attributes in zip(
            self.callbacks, self.state["callbacks"], strict=True
        ):
            vars(callback).update(attributes)

    def on_epoch_end(self, epoch, logs=None):
        """Keep the state of the training."""
        logs = {key: float(value) for key, value in (logs or {}).items()}
        if not math.isfinite(logs.get("loss", 0)):
            raise _diverged(self.stage, f"the loss is {logs['loss']}", epoch + 1)
        for key in {**self.history, **logs}:  # some are not measured in each epoch
            values = self.history.setdefault(key, [math.nan] * epoch)
            values.append(logs.get(key, math.nan))
        if self.checkpoint:
            state = {
                "epoch": epoch + 1,
                "stopped": self.model.stop_training,
                "history": self.history,
                "values": [variable.numpy() for variable in self._variables()],
                "callbacks": [callback_state(callback) for callback in self.callbacks],
            }
            self.checkpoint.write(state)

    def _variables(self):
        seeds = shared_seeds(self.model, 0, restart=False).state
        return [*self.model.variables, *self.model.optimizer.variables, seeds]


def _diverged(stage, what, epoch):
    return FloatingPointError(
        f"{stage.capitalize()} diverged: {what} in epoch {epoch}. Lower the learning "
        "rate (optimizer__learning_rate of the KerasClassifier), or clip the gradients "
        "(optimizer__clipnorm=1)."
    )


def _run(
    model,
    compile_kwargs,
    batches,
    prepare,
    stage,
    *,
    epochs,
    checkpoint,
    callbacks=(),
    **settings,
):
    """Fit a model, from its checkpoint if there is one.

    Parameters
    ----------
    model : keras.Model
        The network to train.
    compile_kwargs : dict
        Arguments of `keras.Model.compile`.
    batches : _Batches
        What to train on.
    prepare : callable
        Turns (images, seed, *labels) of a batch into what the network is trained on.
    stage : str
        Name of the stage, for messages.
    epochs : int
        Number of epochs in all.
    checkpoint : Checkpoint or None
        Where to keep the state.
    callbacks : sequence of keras.callbacks.Callback
        The user's.
    **settings : dict
        Further arguments of `keras.Model.fit`.

    Returns
    -------
    history : dict of list
        Loss and metrics of each epoch, those before the checkpoint included.
    """
    progress = _Progress(stage, checkpoint, list(callbacks))
    n_done = progress.state["epoch"] if progress.state else 0
    if progress.state and progress.state["stopped"]:
        epochs = n_done
    watched = not _are_indifferent(callbacks)
    with contextlib.ExitStack() as stack:
        stack.enter_context(used(callbacks, checkpoint))
        trained = stack.enter_context(trainer(model, compile_kwargs, prepare, watched))
        # A model that trains on goes on with its generator, too.
        shared = shared_seeds(trained, batches.seed, restart=trained is not model)
        stack.enter_context(seeded(batches.seed, shared))
        if isinstance(trained, BlockTrainer):
            dataset, settings["steps_per_epoch"] = batches.blocks(n_done, epochs)
        else:
            dataset = batches.separate(prepare, n_done)
        trained.fit(
            dataset,
            initial_epoch=n_done,
            epochs=epochs,
            callbacks=[*callbacks, progress],
            shuffle=False,  # `_Batches` does it
            **settings,
        )
    if not all(np.isfinite(weight).all() for weight in model.get_weights()):
        raise _diverged(stage, "weights became infinite", epochs)
    return progress.history


def _are_indifferent(callbacks):
    return all(type(x) in INDIFFERENT_CALLBACKS for x in callbacks)


def build_pretext_model(network, pretext, image_shape, seed):
    """Hang the head of a pretext task on a backbone.

    Returns
    -------
    pretext_model : keras.Model
        Images to the outputs of the pretext head; shares the backbone.
    compile_kwargs : dict
        How it is to be trained: the task's loss and metrics, the network's optimizer.
    """
    with seeded_process(seed):
        inputs = keras.Input(image_shape, name="images")
        outputs = pretext.build_head(network.backbone(inputs), image_shape)
        model = keras.Model(inputs, outputs, name="pretext_model")
    loss, metrics = pretext.loss_and_metrics()
    own = {"loss": loss, "metrics": metrics, "loss_weights": None}
    return model, {**network.compile_kwargs, "weighted_metrics": None, **own}


def pretrain(
    model,
    compile_kwargs,
    pretext,
    images,
    rows,
    *,
    epochs,
    batch_size,
    seed,
    verbose,
    checkpoint,
):
    """Train a network on a pretext task, in place.

    Parameters
    ----------
    model, compile_kwargs : keras.Model, dict
        As :func:`build_pretext_model` returns them.
    pretext : PretextTask
        The fitted task.
    images : ndarray of shape (n_samples, [n_views,] height, width, channels)
        Images.
    rows : ndarray of shape (n_rows,)
        The rows to train on.
    epochs, batch_size, seed, verbose : int
        As in Keras; the batch size counts what the network sees.
    checkpoint : Checkpoint or None
        Where to keep the state of the training.

    Returns
    -------
    history : dict of list
        Loss and metrics of each epoch.
    """
    if verbose:
        print(f"Pretraining: {type(pretext).__name__} on {len(rows)} images")
    return _run(
        model,
        compile_kwargs,
        _pretext_batches(pretext, images, rows, batch_size, seed),
        pretext.make_batch,
        "pretraining",
        epochs=epochs,
        checkpoint=checkpoint,
        verbose=verbose,
    )


def evaluate_pretext(pretext_model, pretext, images, *, batch_size):
    """Return the first metric of a pretext task, or minus its loss."""
    loss, metrics = pretext.loss_and_metrics()
    model = keras.Model(pretext_model.input, pretext_model.output)
    model.compile(loss=loss, metrics=metrics)
    rows = np.arange(len(images))
    batches = _pretext_batches(pretext, images, rows, batch_size, 0, shuffle=False)
    # TensorFlow warns where one function is traced often, and takes functions with the
    # same code for one, as those of `evaluate` are. A partial function is its own.
    with seeded(0):
        dataset = batches.separate(pretext.make_batch)
        step = tf.function(
            functools.partial(model.test_step), input_signature=[dataset.element_spec]
        )
        for batch in dataset:
            results = step(batch)
    loss = results.pop("loss")
    return float(next(iter(results.values()), -loss))


def finetune(
    network,
    images,
    rows,
    targets,
    *,
    sample_weight,
    seed,
    verbose,
    checkpoint=None,
    only_epoch=None,
):
    """Train the whole network on the labelled rows, in place.

    Parameters
    ----------
    network : Network
        Supplies network, optimizer, loss and the settings of training.
    images : ndarray of shape (n_samples, height, width, channels)
        Images, of which only the labelled rows are read.
    rows : ndarray of shape (n_labelled,)
        Indices of the labelled rows.
    targets : ndarray of shape (n_labelled,), int64
        Class index of each.
    sample_weight : ndarray of shape (n_labelled,) or None
        Weights.
    seed, verbose : int
        Seed of the order of the rows and of the validation split; Keras verbosity.
    checkpoint : Checkpoint or None
        Where to keep the state of the training.
    only_epoch : int, default=None
        Train this one epoch, all rows and nothing else, and be ready for the next.

    Returns
    -------
    history : dict of list
        Loss and metrics of each epoch.
    """
    settings = {"verbose": verbose, **network.fit_kwargs}
    if only_epoch is not None:
        settings |= {"callbacks": [], "validation_split": 0, "validation_data": None}
        settings["epochs"] = 1
    model = _to_finetune(network, keep_optimizer=only_epoch is not None)
    train, validation = _training_sets(
        network, images, rows, targets, sample_weight, settings, seed
    )
    if only_epoch is None and _are_indifferent(settings["callbacks"]):
        parts = split_frozen(network)
        n_kept = sum(len(x.rows) for x in (train, validation) if x)
        if parts and _frozen_bytes(parts[0], n_kept) <= MAX_FROZEN_BYTES:
            front, model = parts
            train, validation = _behind(front, train), _behind(front, validation)

    n_rows, passes, epochs = len(train.rows), 1, settings["epochs"]
    batch_size = _batch_size(settings["batch_size"] or 32, n_rows)  # 32 as in Keras
    if epochs is None:
        epochs, passes = finetune_schedule(n_rows, batch_size)
    if settings["verbose"]:
        print(f"Fine-tuning on {n_rows} labelled images")
    order = {"shuffle": bool(settings["shuffle"]), "first_epoch": only_epoch or 0}
    return _run(
        model,
        network.compile_kwargs,
        train.batches(batch_size, seed, passes=passes, **order),
        _labelled,
        "fine-tuning",
        validation_data=validation
        and _validation_set(validation, settings, batch_size),
        validation_freq=settings["validation_freq"],
        checkpoint=checkpoint,
        callbacks=settings["callbacks"],
        verbose=settings["verbose"],
        epochs=epochs,
    )


def _to_finetune(network, keep_optimizer):
    """Return the model to train, with an optimizer that stays if need be."""
    if keep_optimizer and not network.training_model.compiled:
        network.training_model = shell(
            network.training_model, network.compile_kwargs, _labelled
        )
    return network.training_model


@dataclass
class _LabelledRows:
    """Rows of images, and what is known of each."""

    images: np.ndarray
    rows: np.ndarray  # (n_rows,) indices
    labels: list  # targets as the loss takes them, and weights if there are any

    def batches(self, batch_size, seed, **order):
        return _Batches(self.images, self.rows, batch_size, seed, self.labels, **order)


def _training_sets(network, images, rows, targets, weights, settings, seed):
    """Return the labelled rows to train on, and those to validate on, if any."""
    n_units = network.training_model.output_shape[-1]

    def labels(targets, weights):
        given = [np.eye(n_units)[targets] if network.one_hot else targets]
        return given if weights is None else [*given, weights.astype(np.float32)]

    train, held_out = split_validation(targets, settings["validation_split"], seed)
    chosen = labels(targets, weights)
    validation = None
    if len(held_out):
        held = [label[held_out] for label in chosen]
        validation = _LabelledRows(images, rows[held_out], held)
    elif settings["validation_data"] is not None:
        others, *of_others = settings["validation_data"]
        every = np.arange(len(others))
        validation = _LabelledRows(others, every, labels(*of_others))
    chosen = [label[train] for label in chosen]
    return _LabelledRows(images, rows[train], chosen), validation


def _behind(front, labelled):
    """Return rows as the frozen layers give them, which is the same at every step."""
    if labelled is None:
        return None
    outputs = predict(front, labelled.images, rows=labelled.rows)
    return _LabelledRows(outputs, np.arange(len(outputs)), labelled.labels)


def _validation_set(validation, settings, batch_size):
    size = settings["validation_batch_size"] or batch_size
    size = _batch_size(size, len(validation.rows))
    dataset = validation.batches(size, 0, shuffle=False).separate(_labelled)
    n_steps = settings["validation_steps"]
    return dataset if n_steps is None else dataset.take(n_steps)


def _batch_size(batch_size, n_rows):
    return n_rows if batch_size == -1 else batch_size  # as in scikeras


def split_validation(targets, fraction, seed, classes=None):
    """Divide rows into those to train on and those to validate on.

    The classes have the same share of both. A class with a single row is trained on.

    Parameters
    ----------
    targets : ndarray of shape (n_rows,), int64
        Class index of each row.
    fraction : float
        Share of the rows to validate on.
    seed : int
        Seed of the choice.
    classes : ndarray of shape (n_classes,), default=None
        Class labels, for messages.

    Returns
    -------
    train, validation : ndarray of int64
        Indices of the rows.

    Raises
    ------
    ValueError
        If there are too few rows for each class to have one in both.
    """
    every = np.arange(len(targets))
    if not fraction:
        return every, every[:0]
    counts = np.bincount(targets)
    single = counts[targets] == 1
    several = every[~single]
    n_classes = np.count_nonzero(counts > 1)
    n_held_out = math.ceil(fraction * len(targets))
    if not n_classes or not n_classes <= n_held_out <= len(several) - n_classes:
        rarest = np.argmin(np.where(counts, counts, counts.max() + 1))
        name = rarest if classes is None else classes.tolist()[rarest]
        raise ValueError(
            f"validation_split={fraction} cannot be stratified: of {len(targets)} "
            f"different labelled images it holds out {n_held_out}, but each class with "
            f"two or more, {n_classes} in number, needs one in both parts. The rarest "
            f"class, {name!r}, has {counts[rarest]}. Label more images, change "
            "validation_split, or give fit__validation_data."
        )
    train, held_out = train_test_split(
        several, test_size=n_held_out, stratify=targets[several], random_state=seed
    )
    return np.concatenate([train, every[single]]), held_out


def _frozen_bytes(front, n_images):
    return 4 * n_images * math.prod(front.output_shape[1:])


def _traced(model, dtype):
    """Return a network as one TensorFlow function of a batch, traced only once."""
    traced = vars(model).setdefault("_skssl_traced", {})
    with LOCK:
        if dtype not in traced:
            signature = tf.TensorSpec((None, *model.input_shape[1:]), dtype)
            function = tf.function(lambda batch: model(batch, training=False))
            with seeded(0, shared_seeds(model, 0, restart=False)):
                traced[dtype] = function.get_concrete_function(signature)
    return traced[dtype]


def predict(model, images, prepare=None, batch_size=PREDICTION_BATCH_SIZE, rows=None):
    """Return a network's outputs for images, as one float32 array.

    Parameters
    ----------
    model : keras.Model
        Any network on images.
    images : ndarray of shape (n_samples, ..., height, width, channels)
        Images, read a batch at a time.
    prepare : callable, default=None
        What turns a batch of images into the network's inputs.
    batch_size : int, default=128
        Images at a time.
    rows : ndarray of shape (n_rows,), default=None
        The rows to predict for; None is all of them.

    Returns
    -------
    outputs : ndarray of shape (n_inputs, ...)
        Outputs, in the order of the inputs.
    """
    check_process()
    outputs = []
    for start in range(0, len(images) if rows is None else len(rows), batch_size):
        chosen = slice(start, start + batch_size)
        batch = load_batch(images[chosen if rows is None else rows[chosen]])
        batch = tf.convert_to_tensor(prepare(batch) if prepare else batch)
        output = _traced(model, batch.dtype)(batch)
        outputs.append(tf.cast(output, tf.float32).numpy())
    return np.concatenate(outputs)


def pretext_views(pretext_model, pretext, images, seed):
    """Make one batch of a task that classifies, and predict its targets.

    Parameters
    ----------
    pretext_model, pretext : keras.Model, PretextTask
        The pretrained network and its task.
    images : ndarray of shape (n_samples, [n_views,] height, width, channels)
        A few images.
    seed : int32 ndarray of shape (2,)
        Seed of what the task draws at random.

    Returns
    -------
    views : ndarray of shape (n_samples * n_views, height, width, channels)
        What the network sees.
    y_true, y_pred : ndarray of shape (n_samples * n_views,)
        True and predicted class index of each.
    """
    batch = tf.convert_to_tensor(load_batch(images))
    views, y_true = map(np.asarray, pretext.make_batch(batch, seed))
    return views, y_true, predict(pretext_model, views).argmax(axis=-1)


def predict_pretext(pretext_model, pretext, images):
    """Return the predicted class of each view, of shape (n_samples, n_views)."""
    seed = np.zeros(2, dtype=np.int32)

    def prepare(batch):
        inputs, _ = pretext.make_batch(tf.convert_to_tensor(batch), seed)
        return inputs

    batch_size = max(1, PREDICTION_BATCH_SIZE // pretext.n_views)
    scores = predict(pretext_model, images, prepare, batch_size)
    return scores.argmax(axis=-1).reshape(len(images), pretext.n_views)
