"""Outputs of networks for images, and scores of pretext tasks."""

import functools

import keras
import numpy as np
import tensorflow as tf

from .._data.images import load_batch
from .._data.training_set import TrainingSet
from .._runtime import LOCK, check_process, seeded, shared_seeds
from .batches import Batches

# Fast on two cores, and keeps the activations of a prediction small.
BATCH_SIZE = 128


def predict(model, images, *, rows=None, prepare=None, batch_size=BATCH_SIZE):
    """Return a network's outputs for images, as one float32 array.

    Parameters
    ----------
    model : keras.Model
        Any network on images.
    images : ndarray of shape (n_samples, ..., height, width, channels)
        Images, read in batches.
    rows : ndarray of shape (n_rows,), default=None
        The rows to predict for; None is all of them.
    prepare : callable, default=None
        What turns a batch of images into the network's inputs.
    batch_size : int, default=128
        Images in a batch.

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


def predict_probabilities(model, images, rows=None):
    """Return class probabilities for images, of shape (n_inputs, n_classes)."""
    outputs = predict(model, images, rows=rows)
    if outputs.shape[1] == 1:  # one sigmoid unit: that of the second class
        outputs = np.hstack([1 - outputs, outputs])
    return outputs


def _traced(model, dtype):
    """Return a network as a TensorFlow function of a batch, which is traced once."""
    traced = vars(model).setdefault("_skssl_traced", {})
    with LOCK:
        if dtype not in traced:
            signature = tf.TensorSpec((None, *model.input_shape[1:]), dtype)
            # No AutoGraph, as in training: it would rewrite the code of users' layers.
            function = tf.function(
                lambda batch: model(batch, training=False), autograph=False
            )
            with seeded(0, shared_seeds(model)):
                traced[dtype] = function.get_concrete_function(signature)
    return traced[dtype]


def predict_views(pretext_model, task, images):
    """Return the predicted class of each view, of shape (n_samples, n_views)."""
    seed = np.zeros(2, dtype=np.int32)

    def views(batch):
        inputs, _ = task.make_batch(tf.convert_to_tensor(batch), seed)
        return inputs

    batch_size = max(1, BATCH_SIZE // task.n_views)
    scores = predict(pretext_model, images, prepare=views, batch_size=batch_size)
    return scores.argmax(axis=-1).reshape(len(images), task.n_views)


def task_pictures(pretext_model, task, images, seed):
    """Return pictures of one batch of a task, as the task makes them.

    Parameters
    ----------
    pretext_model, task : keras.Model, PretextTask
        The pretrained network and its task.
    images : ndarray of shape (n_samples, [n_views,] height, width, channels)
        A few images.
    seed : int32 ndarray of shape (2,)
        Seed of what the task draws at random.

    Returns
    -------
    pictures : ndarray of shape (n_samples * n_views, height, width, channels)
        A picture of each input of the network.
    y_true, y_pred : ndarray of shape (n_samples * n_views,) or None
        What is written above each picture.
    """
    batch = tf.convert_to_tensor(load_batch(images))
    return task.pictures(
        batch, seed, lambda inputs: predict(pretext_model, np.asarray(inputs))
    )


def score_task(pretext_model, task, images, batch_size):
    """Return the score of a pretext task on images."""
    loss, metrics = task.loss_and_metrics()
    model = keras.Model(pretext_model.input, pretext_model.output)
    model.compile(loss=loss, metrics=metrics, loss_weights=task.loss_weights)
    data = TrainingSet(images, np.arange(len(images)))
    batch_size = max(1, batch_size // task.n_views)
    # TensorFlow warns where one function is traced often, and takes functions with the
    # same code for one, as those of `evaluate` are. A partial function is its own.
    with seeded(0):
        dataset = Batches(data, task.make_batch, batch_size, 0, shuffle=False).dataset()
        step = tf.function(
            functools.partial(model.test_step),
            input_signature=[dataset.element_spec],
            autograph=False,
        )
        for batch in dataset:
            results = step(batch)
    return float(
        task.score_from({name: float(value) for name, value in results.items()})
    )
