"""Training by consistency: sure predictions for images are the targets of others.

FixMatch (Sohn et al. 2020, arXiv:2001.07685). A batch holds labelled images, and each
of its other images twice: changed a little, and changed strongly. What the network says
of the first is the target of the second, where it is sure enough.
"""

import functools
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

from ..augmentation import augmented, erased
from .stages import self_training

# Largest side of the square that the strong change erases, as a share of the image.
ERASED = 0.5


class ConsistencyLoss(keras.losses.Loss):
    """Loss of labelled rows, and of strong views against the sure weak ones.

    It is the sum of equations 3 and 4 of the paper, with the user's own loss as the
    cross entropy in both.

    Parameters
    ----------
    loss : keras.losses.Loss, callable or str
        Loss of the network.
    one_hot, from_logits : bool
        Whether it takes one-hot targets, and whether the outputs are logits.
    n_labelled : int
        Number of labelled rows, which come first. The other rows are two halves: strong
        views and weak ones.
    threshold : float
        From which probability on a prediction is sure.
    """

    def __init__(self, loss, one_hot, from_logits, n_labelled, threshold, name="loss"):
        super().__init__(name=name)
        self.loss = keras.losses.get(loss)
        self.one_hot = one_hot
        self.from_logits = from_logits
        self.n_labelled = n_labelled
        self.threshold = threshold

    def get_config(self):
        """Return the arguments of the constructor."""
        names = "loss one_hot from_logits n_labelled threshold name".split()
        return {name: getattr(self, name) for name in names}

    def call(self, targets, outputs):
        """Return the loss of a batch.

        `targets` has the class index and the weight of each row, (n_rows, 2).
        """
        n_labelled = self.n_labelled
        n_others = (tf.shape(outputs)[0] - n_labelled) // 2
        labelled, strong, weak = tf.split(outputs, [n_labelled, n_others, n_others])
        classes, weights = targets[:n_labelled, 0], targets[:n_labelled, 1]
        probabilities = self.probabilities(weak)
        guessed = tf.argmax(probabilities, axis=-1)
        sure = tf.reduce_max(probabilities, axis=-1) >= self.threshold
        return self._mean(tf.cast(classes, tf.int64), labelled, weights) + self._mean(
            tf.stop_gradient(guessed), strong, tf.cast(sure, tf.float32)
        )

    def probabilities(self, outputs):
        """Return class probabilities in float32, (n_rows, n_classes)."""
        outputs = tf.cast(outputs, tf.float32)
        if outputs.shape[-1] == 1:
            second = tf.sigmoid(outputs) if self.from_logits else outputs
            return tf.concat([1 - second, second], axis=-1)
        return tf.nn.softmax(outputs) if self.from_logits else outputs

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
        From which probability on a prediction is a target.
    strength : float
        How strongly strong views are changed, as for :func:`augmented`.
    labelled_batch_size : int
        Number of labelled images in each step.
    **settings : dict
        Others of :func:`self_training`.

    Returns
    -------
    stage : Stage
        Its model has the weights of the network.
    """
    loss = ConsistencyLoss(
        network.compile_kwargs["loss"],
        network.one_hot,
        network.from_logits,
        labelled_batch_size,
        threshold,
    )
    stage = self_training(
        network,
        labelled,
        replace(data, targets=np.full(len(data), -1)),
        functools.partial(views_batch, labelled_batch_size, augmentation, strength),
        labelled_batch_size=labelled_batch_size,
        **settings,
    )
    own = {"loss": loss, "metrics": None}
    none = {"loss_weights": None, "weighted_metrics": None}
    return replace(
        stage,
        model=_with_weak_views(network.training_model),
        compile_kwargs={**stage.compile_kwargs, **own, **none},
    )


def views_batch(n_labelled, augmentation, strength, images, seed, targets, *weights):
    """Return labelled images, strong views of the others, and weak ones of these."""
    first, second, third = (
        tf.random.experimental.stateless_fold_in(seed, k) for k in range(3)
    )
    weak = augmented(images, first, augmentation)
    strong = augmented(images[n_labelled:], second, "auto", strength)
    strong = erased(strong, third, ERASED)
    rows = tf.cast(targets, tf.float32)
    rows = tf.stack([rows, *(weights or [tf.ones_like(rows)])], axis=1)
    learned = tf.concat([weak[:n_labelled], strong], axis=0)
    return (learned, weak[n_labelled:]), tf.concat([rows, rows[n_labelled:]], axis=0)


def _with_weak_views(model):
    """Return a model of two inputs, of which the second gives no gradient."""
    shape = model.input_shape[1:]
    learned, weak = keras.Input(shape), keras.Input(shape)
    guesses = keras.ops.stop_gradient(model(weak))
    outputs = keras.ops.concatenate([model(learned), guesses], axis=0)
    return keras.Model([learned, weak], outputs, name="self_training")
