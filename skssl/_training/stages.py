"""The stages of training: what is trained, on what and how.

A stage is known by its name in messages, checkpoints and histories. A further stage is
one more function here that returns a Stage.
"""

import functools
import math
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from sklearn.model_selection import train_test_split

from .._networks.copies import fresh_optimizer
from .._networks.surgery import split_frozen
from .._networks.trial import check_monitors, try_settings
from .._runtime import seeded_process
from .._storage.checkpoint import Checkpoint
from ..augmentation import augmented
from .batches import Batches, MixedBatches
from .distribution import is_chief

# Without a number of epochs, few images are read often, and many images once.
PRETRAIN_STEPS = 600
# With 100 labels in batches of 64, five epochs are ten steps, too few to learn from. So
# the number of epochs follows from a number of steps, unless the wrapper gives it. An
# epoch has a fixed cost. So where a pass has only a few steps, an epoch is several.
MIN_STEPS = 1000
MIN_EPOCHS = 5
MIN_EPOCH_STEPS = 50
# In self-training an epoch is so many steps. The learning rate falls to the given share
# of what it was. Weights are averaged over so many steps, or a tenth of all.
SELF_TRAINING_EPOCH = 100
RELABELLED_BATCH = 64
LAST_RATE = 0.02
AVERAGED_STEPS = 1000


@dataclass
class Stage:
    """One training of a network.

    Attributes
    ----------
    name : str
        What it is called in messages, files and histories.
    subject : str
        What it trains on: what follows its name in a message.
    model : keras.Model
        The network, trained in place.
    compile_kwargs : dict
        Arguments of `keras.Model.compile`.
    batches : Batches
        What it trains on, in which order.
    epochs : int
        Number of epochs.
    callbacks : list of keras.callbacks.Callback
        The user's.
    validation : Batches or None
        What it is validated on.
    validation_freq, validation_steps, verbose
        As in `keras.Model.fit`.
    split : tuple of keras.Model or None
        The leading layers whose outputs never change, and what follows them.
    keeps_optimizer : bool
        Whether the model is compiled for good, to go on with its optimizer.
    checkpoint : Checkpoint or None
        Where its state is kept, while it runs.
    """

    name: str
    subject: str
    model: keras.Model
    compile_kwargs: dict
    batches: Batches
    epochs: int
    callbacks: list = ()
    validation: Batches | None = None
    validation_freq: int | list = 1
    validation_steps: int | None = None
    verbose: int | str = 0
    split: tuple | None = None
    keeps_optimizer: bool = False
    checkpoint: Checkpoint | None = None

    def __post_init__(self):
        for batches in filter(None, (self.batches, self.validation)):
            batches.check_shares()

    def remove_checkpoint(self):
        """Remove what the stage has kept, once the whole fit is finished."""
        if self.checkpoint is not None and is_chief():
            self.checkpoint.remove()


def pretraining(
    network, task, data, *, optimizer=None, epochs, batch_size, seed, verbose
):
    """Return the stage that trains the backbone on a pretext task.

    Parameters
    ----------
    network : Network
        Supplies the backbone, and how a step is run.
    task : PretextTask
        The fitted task, whose head is put on the backbone.
    data : TrainingSet
        The images.
    optimizer : str, keras.optimizers.Optimizer or None
        Optimizer; None is Adam with a learning rate that falls along a cosine.
    epochs : int or None
        As in Keras; None is as many as give 600 steps.
    batch_size, seed, verbose : int
        As in Keras; the batch size counts inputs of the network.

    Returns
    -------
    stage : Stage
        Its model goes from images to the outputs of the pretext head.
    """
    image_shape = network.backbone.input_shape[1:]
    with seeded_process(seed):
        inputs = keras.Input(image_shape, name="images")
        outputs = task.build_head(network.backbone(inputs), image_shape)
        model = keras.Model(inputs, outputs, name="pretext_model")
    batches = Batches(
        data, task.training_batch, max(1, batch_size // task.n_views), seed
    )
    if epochs is None:
        epochs = math.ceil(PRETRAIN_STEPS / batches.n_steps)
    if optimizer is None:
        schedule = keras.optimizers.schedules.CosineDecay(
            1e-3, epochs * batches.n_steps
        )
        optimizer = keras.optimizers.Adam(schedule)
    optimizer = fresh_optimizer(keras.optimizers.get(optimizer))
    loss, metrics = task.loss_and_metrics()
    own = {"loss": loss, "metrics": metrics, "loss_weights": task.loss_weights}
    own["optimizer"] = optimizer
    return Stage(
        "pretraining",
        f": {type(task).__name__} on {len(data)} images",
        model,
        {**network.compile_kwargs, **own, "weighted_metrics": None},
        batches,
        epochs,
        verbose=verbose,
    )


def finetuning(
    network,
    data,
    *,
    augmentation=None,
    seed,
    verbose,
    epoch=None,
    validation=None,
    classes=None,
):
    """Return the stage that trains the whole network on labelled images.

    What cannot be trained with is refused here, before anything is trained.

    Parameters
    ----------
    network : Network
        Supplies network, optimizer, loss and the settings of training.
    data : TrainingSet
        The labelled images.
    augmentation : "auto", None, keras.layers.Layer, list of these, or callable
        How each batch is changed at random.
    seed, verbose : int
        Seed of the order of the rows and of the validation split; Keras verbosity.
    epoch : int, default=None
        Number of the only epoch, from which the order of the rows follows. It has
        neither callbacks nor validation, and leaves its optimizer to the next one.
    validation : TrainingSet, default=None
        What the user validates on.
    classes : ndarray of shape (n_classes,), default=None
        Class labels, for messages.

    Returns
    -------
    stage : Stage
        Its model goes from images to the outputs of the class head.
    """
    settings = {"verbose": verbose, **network.fit_kwargs}
    if epoch is not None:
        settings |= {"callbacks": [], "epochs": 1, "validation_split": 0.0}
        validation = None
    metrics = try_settings(network, data.weights is not None)
    if settings["validation_split"]:
        data, validation = split_validation(
            data, settings["validation_split"], seed, classes
        )
    check_monitors(settings["callbacks"], metrics, validation is not None)
    n_rows, epochs, passes = len(data), settings["epochs"], 1
    batch_size = _n_rows(settings["batch_size"] or 32, data)  # 32 as in Keras
    if epochs is None:
        epochs, passes = finetune_schedule(n_rows, batch_size)
    shuffle = bool(settings["shuffle"])
    if validation is not None:
        size = _n_rows(settings["validation_batch_size"] or batch_size, validation)
        validation = Batches(validation, _prepare(network), size, seed, shuffle=False)
    prepare = _prepare(network, augmentation)
    return Stage(
        "fine-tuning",
        f" on {n_rows} labelled images",
        network.training_model,
        network.compile_kwargs,
        Batches(data, prepare, batch_size, seed, shuffle, passes, epoch or 0),
        epochs,
        settings["callbacks"],
        validation,
        settings["validation_freq"],
        settings["validation_steps"],
        settings["verbose"],
        split_frozen(network) if epoch is None and augmentation is None else None,
        keeps_optimizer=epoch is not None,
    )


def self_training(
    network,
    labelled,
    others,
    prepare,
    *,
    n_steps,
    batch_size,
    labelled_batch_size,
    seed,
    verbose,
):
    """Return a stage of training on labelled images and on others.

    The optimizer has the settings of fine-tuning, but its learning rate falls along a
    cosine. The weights of the result are their moving average.

    Parameters
    ----------
    network : Network
        The fine-tuned network. It supplies optimizer, loss and metrics.
    labelled, others : TrainingSet
        The labelled images, and the others, with targets, too.
    prepare : callable
        Turns a batch into what the loss takes, labelled images first.
    n_steps, batch_size, labelled_batch_size : int
        Number of steps, and of other and of labelled images in each.
    seed, verbose : int
        Seed of the order and of all changes; Keras verbosity.

    Returns
    -------
    stage : Stage
        Its model goes from images to the outputs of the class head.
    """
    epoch_steps = min(n_steps, SELF_TRAINING_EPOCH)
    n_epochs = math.ceil(n_steps / epoch_steps)
    batches = MixedBatches(
        labelled.joined(others),
        prepare,
        batch_size,
        seed,
        n_labelled=len(labelled),
        labelled_batch_size=labelled_batch_size,
        epoch_steps=epoch_steps,
    )
    optimizer = _averaging(network.compile_kwargs["optimizer"], n_epochs * epoch_steps)
    return Stage(
        "self-training",
        f" on {len(labelled)} labelled images and {len(others)} others",
        network.training_model,
        {**network.compile_kwargs, "optimizer": optimizer},
        batches,
        n_epochs,
        verbose=verbose,
    )


def relabelled(network, labelled, others, *, augmentation, **settings):
    """Return a stage of self-training on images that have got a label.

    Parameters
    ----------
    network : Network
        The network.
    labelled, others : TrainingSet
        The labelled images, and those that have got a label.
    augmentation : "auto", None, keras.layers.Layer, list of these, or callable
        How each batch is changed at random.
    **settings : dict
        Number of steps, seed and verbosity, as for :func:`self_training`.

    Returns
    -------
    stage : Stage
        Its model goes from images to the outputs of the class head.
    """
    share = len(labelled) / (len(labelled) + len(others))
    # Both kinds are in each batch, however few there are of one.
    n_labelled = min(max(1, round(share * RELABELLED_BATCH)), RELABELLED_BATCH - 1)
    return self_training(
        network,
        labelled,
        others,
        _prepare(network, augmentation),
        batch_size=RELABELLED_BATCH - n_labelled,
        labelled_batch_size=n_labelled,
        **settings,
    )


def _averaging(optimizer, n_steps):
    """Return a fresh optimizer with a falling rate, which averages the weights."""
    momentum = 1 - 1 / min(AVERAGED_STEPS, max(2, n_steps / 10))
    settings = {"use_ema": True, "ema_momentum": momentum}
    rate = optimizer.get_config().get("learning_rate")
    if isinstance(rate, float):  # no schedule
        schedule = keras.optimizers.schedules.CosineDecay
        settings["learning_rate"] = schedule(rate, n_steps, alpha=LAST_RATE)
    return fresh_optimizer(optimizer, **settings)


def finetune_schedule(n_rows, batch_size):
    """Return how many epochs of how many passes give the rows enough steps."""
    n_steps = math.ceil(n_rows / batch_size)
    passes = math.ceil(MIN_EPOCH_STEPS / n_steps)
    epochs = math.ceil(MIN_STEPS / (passes * n_steps))
    return max(MIN_EPOCHS, epochs), passes


def _prepare(network, augmentation=None):
    """Return what turns a batch of labelled images into what the loss takes."""
    n_units = network.training_model.output_shape[-1] if network.one_hot else None
    return functools.partial(labelled_batch, n_units, augmentation)


def labelled_batch(n_units, augmentation, images, seed, targets, *weights):
    """Return a batch of labelled images, with one-hot targets where units are given."""
    if augmentation is not None:
        images = augmented(images, seed, augmentation)
    if n_units is not None:
        targets = tf.one_hot(targets, n_units, dtype=keras.config.floatx())
    return images, targets, *weights


def _n_rows(batch_size, data):
    return len(data) if batch_size == -1 else batch_size  # as in scikeras


def split_validation(data, fraction, seed, classes=None):
    """Divide a set into rows to train on and rows to validate on.

    The classes have the same share of both. A class with a single row is trained on.

    Parameters
    ----------
    data : TrainingSet
        The labelled images.
    fraction : float
        Share of the rows to validate on.
    seed : int
        Seed of the choice.
    classes : ndarray of shape (n_classes,), default=None
        Class labels, for messages.

    Returns
    -------
    train, validation : TrainingSet
        The rows.

    Raises
    ------
    ValueError
        If there are too few rows for each class to have one in both.
    """
    targets, every = data.targets, np.arange(len(data))
    counts = np.bincount(targets)
    single = counts[targets] == 1
    several = every[~single]
    n_classes = np.count_nonzero(counts > 1)
    n_held_out = math.ceil(fraction * len(data))
    if not n_classes or not n_classes <= n_held_out <= len(several) - n_classes:
        rarest = np.argmin(np.where(counts, counts, counts.max() + 1))
        name = rarest if classes is None else classes.tolist()[rarest]
        raise ValueError(
            f"validation_split={fraction} cannot be stratified: of {len(data)} "
            f"different labelled images it holds out {n_held_out}, but each class with "
            f"two or more, {n_classes} in number, needs one in both parts. The rarest "
            f"class, {name!r}, has {counts[rarest]}. Label more images, change "
            "validation_split, or give fit__validation_data."
        )
    train, held_out = train_test_split(
        several, test_size=n_held_out, stratify=targets[several], random_state=seed
    )
    return data.take(np.concatenate([train, every[single]])), data.take(held_out)
