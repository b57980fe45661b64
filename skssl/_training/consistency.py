"""Training by consistency: sure predictions for images are the targets of others.

FixMatch (Sohn et al. 2020, arXiv:2001.07685). A batch holds labelled images, and each
of its other images twice: changed a little, and changed strongly. What the network says
of the first is the target of the second, where it is sure enough. What is enough
follows from how sure it mostly is (FreeMatch, Wang et al. 2023, arXiv:2205.07246).
"""

import functools
import math
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

from ..augmentation import augmented, erased
from .distribution import n_replicas
from .stages import self_training

# Largest side of the square that the strong change erases, as a share of the image.
ERASED = 0.5
# How much smaller than for labelled images the weak changes of "auto" are.
WEAK = 0.5
# Share that the running means keep of their value at each step.
MOMENTUM = 0.99


class SureGuesses(keras.layers.Layer):
    """Turns outputs for weak views into guesses of the class, where they are sure.

    The certainty that a guess needs is a running mean of how certain all guesses are,
    the global threshold of FreeMatch. For a class that is guessed more rarely than
    others it is smaller, the local one.

    Parameters
    ----------
    threshold : float
        The certainty that is always enough.
    from_logits : bool
        Whether the outputs are logits.
    """

    def __init__(self, threshold, from_logits, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.threshold = threshold
        self.from_logits = from_logits

    def get_config(self):
        """Return the arguments of the constructor."""
        own = {"threshold": self.threshold, "from_logits": self.from_logits}
        config = super().get_config()
        del config["dtype"]
        return {**config, **own}

    def build(self, input_shape):
        """Create the running means."""
        n_classes = max(2, input_shape[-1])
        start = keras.initializers.Constant(1 / n_classes)
        for name, shape in {"certainty": (), "shares": (n_classes,)}.items():
            # Replicas of a strategy follow the mean of all.
            mean = self.add_weight(
                shape, start, trainable=False, aggregation="mean", name=name
            )
            setattr(self, name, mean)

    def call(self, outputs):
        """Return a row for each guess, shaped as the outputs, and 0 where it is unsure.

        A sure guess is a one-hot row. With one output it is 1 or -1, the second class
        or the first.
        """
        n_units = outputs.shape[-1]
        probabilities = self.probabilities(outputs)
        certainties = tf.reduce_max(probabilities, axis=-1)
        guesses = tf.argmax(probabilities, axis=-1)
        _follow(self.certainty, tf.reduce_mean(certainties))
        _follow(self.shares, tf.reduce_mean(probabilities, axis=0))
        needed = self.certainty * self.shares / tf.reduce_max(self.shares)
        needed = tf.minimum(tf.gather(needed, guesses), self.threshold)
        sure = tf.cast(certainties >= needed, tf.float32)[:, None]
        if n_units == 1:
            return sure * tf.cast(2 * guesses - 1, tf.float32)[:, None]
        return sure * tf.one_hot(guesses, n_units)

    def probabilities(self, outputs):
        """Return class probabilities, (n_rows, n_classes)."""
        if outputs.shape[-1] == 1:
            second = tf.sigmoid(outputs) if self.from_logits else outputs
            return tf.concat([1 - second, second], axis=-1)
        return tf.nn.softmax(outputs) if self.from_logits else outputs


def _follow(mean, value):
    """Move a running mean towards a value."""
    mean.assign(MOMENTUM * mean + (1 - MOMENTUM) * value)


class ConsistencyLoss(keras.losses.Loss):
    """Loss of labelled rows, and of strong views against the sure weak ones.

    It is the sum of equations 3 and 4 of the paper, with the user's own loss as the
    cross entropy in both.

    Parameters
    ----------
    loss : keras.losses.Loss, callable or str
        Loss of the network.
    one_hot : bool
        Whether it takes one-hot targets.
    n_labelled : int
        Number of labelled rows, which come first. The other rows are two halves:
        outputs for strong views, and the guesses that are their targets.
    """

    def __init__(self, loss, one_hot, n_labelled, name="loss"):
        super().__init__(name=name)
        self.loss = keras.losses.get(loss)
        self.one_hot = one_hot
        self.n_labelled = n_labelled

    def get_config(self):
        """Return the arguments of the constructor."""
        names = "loss one_hot n_labelled name".split()
        return {name: getattr(self, name) for name in names}

    def call(self, targets, outputs):
        """Return the loss of a batch.

        `targets` has the class index and the weight of each row, (n_rows, 2).
        """
        n_labelled = self.n_labelled
        n_others = (tf.shape(outputs)[0] - n_labelled) // 2
        labelled, strong, guesses = tf.split(outputs, [n_labelled, n_others, n_others])
        classes, weights = targets[:n_labelled, 0], targets[:n_labelled, 1]
        guesses = tf.stop_gradient(tf.cast(guesses, tf.float32))
        if outputs.shape[-1] == 1:
            guessed = tf.cast(guesses[:, 0] > 0, tf.int64)
        else:
            guessed = tf.argmax(guesses, axis=-1)
        sure = tf.reduce_sum(tf.abs(guesses), axis=-1)
        return self._mean(tf.cast(classes, tf.int64), labelled, weights) + self._mean(
            guessed, strong, sure
        )

    def _mean(self, classes, outputs, weights):
        """Return the mean of the weighted losses of all rows."""
        n_units = outputs.shape[-1]
        if self.one_hot:
            classes = tf.one_hot(classes, n_units, dtype=outputs.dtype)
        elif n_units == 1:
            classes = tf.cast(classes[:, None], outputs.dtype)
        if isinstance(self.loss, keras.losses.Loss):
            return self.loss(classes, outputs, sample_weight=weights)
        values = self.loss(classes, outputs)
        return tf.reduce_mean(values * tf.cast(weights, values.dtype))


def consistency(
    network,
    labelled,
    data,
    *,
    augmentation,
    threshold,
    strength,
    batch_size,
    labelled_batch_size,
    **settings,
):
    """Return the stage that trains a network by consistency.

    Parameters
    ----------
    network : Network
        The fine-tuned network. It supplies optimizer and loss.
    labelled, data : TrainingSet
        The labelled images, and all images.
    augmentation : "auto", None, keras.layers.Layer, list of these, or callable
        How labelled images and weak views are changed.
    threshold : float
        The certainty that is always enough for a guess to be a target.
    strength : float
        How strongly strong views are changed, as for :func:`augmented`.
    batch_size, labelled_batch_size : int
        Number of other and of labelled images in each step. Each is rounded up to a
        multiple of the number of replicas under a distribution strategy.
    **settings : dict
        Others of :func:`self_training`.

    Returns
    -------
    stage : Stage
        Its model has the weights of the network.
    """
    n_all = n_replicas()
    n_others, n_labelled = (
        math.ceil(size / n_all) for size in (batch_size, labelled_batch_size)
    )
    loss = ConsistencyLoss(network.compile_kwargs["loss"], network.one_hot, n_labelled)
    stage = self_training(
        network,
        labelled,
        replace(data, targets=np.full(len(data), -1)),
        functools.partial(views_batch, n_labelled, augmentation, strength),
        batch_size=n_others * n_all,
        labelled_batch_size=n_labelled * n_all,
        **settings,
    )
    own = {"loss": loss, "metrics": None}
    none = {"loss_weights": None, "weighted_metrics": None}
    return replace(
        stage,
        model=_with_weak_views(network, threshold),
        compile_kwargs={**stage.compile_kwargs, **own, **none},
    )


def views_batch(n_labelled, augmentation, strength, images, seed, targets, *weights):
    """Return labelled images, strong views of the others, and weak ones of these."""
    seeds = [tf.random.experimental.stateless_fold_in(seed, k) for k in range(4)]
    others = images[n_labelled:]
    labelled = augmented(images[:n_labelled], seeds[0], augmentation)
    weak = augmented(others, seeds[1], augmentation, WEAK)
    strong = augmented(others, seeds[2], "auto", strength)
    strong = erased(strong, seeds[3], ERASED)
    rows = tf.cast(targets, tf.float32)
    rows = tf.stack([rows, *(weights or [tf.ones_like(rows)])], axis=1)
    learned = tf.concat([labelled, strong], axis=0)
    return (learned, weak), tf.concat([rows, rows[n_labelled:]], axis=0)


def _with_weak_views(network, threshold):
    """Return a model of two inputs, of which the second gives guesses, no gradient."""
    model, shape = network.training_model, network.training_model.input_shape[1:]
    learned, weak = keras.Input(shape), keras.Input(shape)
    outputs = model(learned)
    guesses = SureGuesses(threshold, network.from_logits)(
        keras.ops.stop_gradient(model(weak))
    )
    guesses = keras.ops.cast(guesses, outputs.dtype)
    outputs = keras.ops.concatenate([outputs, guesses], axis=0)
    return keras.Model([learned, weak], outputs, name="self_training")
