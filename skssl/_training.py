"""Training and prediction: Keras `fit` on a tf.data input.

Who owns what: `_batches` owns the order of the rows and hands out raw images, a batch
at a time; the pretext task turns them into inputs and targets inside the input
pipeline; Keras owns the steps, the metrics and the callbacks. All randomness of the
input comes from (seed, epoch), so that an epoch can be repeated exactly.
"""

import itertools
import math

import keras
import numpy as np
import tensorflow as tf
from sklearn.model_selection import train_test_split

from ._images import load_batch
from ._networks import finetune_schedule, seeded

# Keras returns to Python after so many steps: less overhead for small networks.
STEPS_PER_EXECUTION = 32
# Keeps the activations of a prediction to some hundred megabytes.
PREDICTION_BATCH_SIZE = 256


def _batches(images, rows, batch_size, seed, *labels, shuffle=True, passes=1):
    """Return a tf.data set of (images, seed, *labels) that reads rows batch by batch.

    One run through it, an epoch, reads every row `passes` times.

    Batches differ by at most one row in size, so none is left tiny at the end.
    """
    n_batches = math.ceil(len(rows) / batch_size)
    epochs = itertools.count()

    def one_epoch():
        rng = np.random.default_rng([seed, next(epochs)])
        for _ in range(passes):
            order = rng.permutation(len(rows)) if shuffle else np.arange(len(rows))
            for batch in np.array_split(order, n_batches):
                batch_seed = rng.integers(2**31 - 1, size=2, dtype=np.int32)
                yield (
                    load_batch(images[rows[batch]]),
                    batch_seed,
                    *(label[batch] for label in labels),
                )

    dtype = load_batch(images[:1]).dtype
    signature = (
        tf.TensorSpec((None, *images.shape[1:]), dtype),
        tf.TensorSpec((2,), tf.int32),
        *(tf.TensorSpec((None, *x.shape[1:]), x.dtype) for x in labels),
    )
    dataset = tf.data.Dataset.from_generator(one_epoch, output_signature=signature)
    return dataset.apply(tf.data.experimental.assert_cardinality(passes * n_batches))


def _pretext_batches(pretext, images, batch_size, seed, shuffle=True):
    """Return a tf.data set of the pretext task; nothing of it is materialised."""
    images_per_batch = max(1, batch_size // pretext.n_views)
    dataset = _batches(
        images, np.arange(len(images)), images_per_batch, seed, shuffle=shuffle
    )
    # As a plain function: AutoGraph would rewrite the task's code, and its errors.
    make_batch = tf.autograph.experimental.do_not_convert(pretext.make_batch)
    return dataset.map(make_batch).prefetch(tf.data.AUTOTUNE)


def pretrain(network, pretext, images, *, epochs, batch_size, seed, verbose):
    """Train a backbone on a pretext task, in place.

    Parameters
    ----------
    network : Network
        Supplies the backbone and the optimizer.
    pretext : PretextTask
        The fitted task.
    images : ndarray of shape (n_samples, [n_views,] height, width, channels)
        Training images.
    epochs, batch_size, seed, verbose : int
        As in Keras; the batch size counts what the network sees.

    Returns
    -------
    pretext_model : keras.Model
        Images to the outputs of the pretext head; shares the backbone.
    history : dict of list
        Loss and metrics of each epoch.
    """
    image_shape = images.shape[-3:]
    with seeded(seed):
        inputs = keras.Input(image_shape, name="images")
        outputs = pretext.build_head(network.backbone(inputs), image_shape)
        model = keras.Model(inputs, outputs, name="pretext_model")
    loss, metrics = pretext.loss_and_metrics()
    model.compile(
        **{
            "steps_per_execution": STEPS_PER_EXECUTION,
            **network.compile_kwargs,
            "loss": loss,
            "metrics": metrics,
        }
    )
    if verbose:
        print(f"Pretraining: {type(pretext).__name__} on {len(images)} images")
    history = model.fit(
        _pretext_batches(pretext, images, batch_size, seed),
        epochs=epochs,
        shuffle=False,  # `_batches` does it
        verbose=verbose,
    ).history
    # Without the optimizer: it is as large as two networks, and done.
    return keras.Model(inputs, outputs, name="pretext_model"), history


def evaluate_pretext(pretext_model, pretext, images, *, batch_size):
    """Return the first metric of a pretext task, or minus its loss."""
    loss, metrics = pretext.loss_and_metrics()
    model = keras.Model(pretext_model.input, pretext_model.output)
    model.compile(loss=loss, metrics=metrics)
    dataset = _pretext_batches(pretext, images, batch_size, seed=0, shuffle=False)
    results = model.evaluate(dataset, verbose=0, return_dict=True)
    loss = results.pop("loss")
    return float(next(iter(results.values()), -loss))


def finetune(network, images, rows, targets, *, sample_weight, seed, verbose):
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

    Returns
    -------
    history : dict of list
        Loss and metrics of each epoch.
    """
    settings = dict(network.fit_kwargs)
    callbacks = settings.pop("callbacks")
    validation_split = settings.pop("validation_split")
    batch_size = settings.pop("batch_size") or 32  # as in Keras
    shuffle = settings.pop("shuffle")
    labels = [np.eye(targets.max() + 1)[targets] if network.one_hot else targets]
    if sample_weight is not None:
        labels.append(sample_weight.astype(np.float32))

    train, validation = np.arange(len(rows)), None
    if validation_split:
        train, validation = train_test_split(
            train, test_size=validation_split, stratify=targets, random_state=seed
        )
    batch_size = len(train) if batch_size == -1 else batch_size  # as in scikeras

    passes = 1
    if settings["epochs"] is None:
        settings["epochs"], passes = finetune_schedule(len(train), batch_size)

    def dataset(chosen, **order):
        batches = _batches(
            images,
            rows[chosen],
            batch_size,
            seed,
            *(label[chosen] for label in labels),
            **order,
        )
        return batches.map(lambda image, _, *y: (image, *y)).prefetch(tf.data.AUTOTUNE)

    # A callback of the user's may want to see every step.
    steps = 1 if callbacks else STEPS_PER_EXECUTION
    network.classifier.compile(
        **{"steps_per_execution": steps, **network.compile_kwargs}
    )
    if verbose:
        print(f"Fine-tuning on {len(train)} labelled images")
    return network.classifier.fit(
        dataset(train, shuffle=shuffle, passes=passes),
        validation_data=None
        if validation is None
        else dataset(validation, shuffle=False),
        callbacks=callbacks,
        shuffle=False,  # `_batches` does it
        verbose=verbose,
        **settings,
    ).history


def predict(model, images, prepare=None, batch_size=PREDICTION_BATCH_SIZE):
    """Return a network's outputs for images, as one float32 array.

    Parameters
    ----------
    model : keras.Model
        Any network on images.
    images : ndarray of shape (n_samples, ..., height, width, channels)
        Images, read a batch at a time.
    prepare : callable, default=None
        What turns a batch of images into the network's inputs.
    batch_size : int, default=256
        Images at a time.

    Returns
    -------
    outputs : ndarray of shape (n_inputs, ...)
        Outputs, in the order of the inputs.
    """
    outputs = []
    for start in range(0, len(images), batch_size):
        batch = load_batch(images[start : start + batch_size])
        outputs.append(model.predict_on_batch(prepare(batch) if prepare else batch))
    return np.concatenate(outputs)


def predict_pretext(pretext_model, pretext, images):
    """Return the predicted class of each view, of shape (n_samples, n_views)."""
    seed = np.zeros(2, dtype=np.int32)

    def prepare(batch):
        inputs, _ = pretext.make_batch(tf.convert_to_tensor(batch), seed)
        return inputs

    batch_size = max(1, PREDICTION_BATCH_SIZE // pretext.n_views)
    scores = predict(pretext_model, images, prepare, batch_size)
    return scores.argmax(axis=-1).reshape(len(images), pretext.n_views)
