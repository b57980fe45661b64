"""check_pretext_task: try whether a pretext task keeps to the protocol."""

import pickle
import tempfile
from pathlib import Path

import numpy as np
from sklearn.base import clone

from ._base import validate_images
from ._encoder import SelfSupervisedEncoder, fitted_pretext
from ._load import load
from ._networks.cnn import build_cnn

N_IMAGES = 5  # in a batch: odd, and no power of two
SEED = np.array([3, 7], dtype=np.int32)


def check_pretext_task(task, X):
    """Check that a pretext task keeps to the protocol of `PretextTask`.

    It makes batches, builds the head, measures the loss, and pretrains a small network
    a few times, which takes some seconds. In a test suite, call it with every task, and
    with images of each shape that the task is to work for.

    Parameters
    ----------
    task : PretextTask
        The task, not fitted. It is not changed.
    X : array-like of shape (n_samples, height, width[, channels])
        Images to try it with. 100 or more, on which the task can be learned: noise has
        no right way up.

    Raises
    ------
    AssertionError
        If the task does not keep to the protocol. The message says in what.

    See Also
    --------
    skssl.pretext.PretextTask : The protocol.
    sklearn.utils.estimator_checks.check_estimator : The same for estimators.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skssl import RotationPretext, check_pretext_task
    >>> X, _ = load_digits(return_X_y=True)
    >>> check_pretext_task(RotationPretext(angles=(0, 180)), X[:200].reshape(-1, 8, 8))
    """
    images = validate_images(SelfSupervisedEncoder(), X, reset=True)
    before = dict(vars(task))
    fitted = fitted_pretext(task, images)
    for dtype in ("uint8", "float32"):
        batch = np.asarray(images[:N_IMAGES]).astype(dtype)
        for method in (fitted.make_batch, fitted.training_batch):
            _check_batch(fitted, batch, method)
        _check_head(fitted, batch)
    _check_training(task, images)
    after = vars(task)
    _check(
        after.keys() == before.keys() and all(after[k] is before[k] for k in after),
        "fit must leave the task that was given as it is, since a copy is fitted",
    )


def _check(condition, problem):
    if not condition:
        raise AssertionError(f"The pretext task does not conform: {problem}.")


def _flat(values):
    """Return an output, or several, as a list of arrays."""
    import keras

    return [np.asarray(value) for value in keras.tree.flatten(values)]


def _check_batch(task, images, method):
    """Check what `make_batch` or `training_batch` returns."""
    import tensorflow as tf

    name = method.__name__
    n_inputs = len(images) * task.n_views
    batch = method(tf.convert_to_tensor(images), SEED)
    _check(len(batch) == 2, f"{name} must return a pair of inputs and targets")
    inputs, targets = _flat(batch[0])[0], _flat(batch[1])
    _check(
        inputs.shape == (n_inputs, *images.shape[1:]),
        f"inputs must have shape {(n_inputs, *images.shape[1:])}, which is (batch * "
        f"n_views, height, width, channels), got {inputs.shape}",
    )
    _check(np.isfinite(inputs).all(), "inputs must be finite")
    n_targets = sum(len(target) for target in targets)
    _check(
        n_targets == n_inputs,
        f"there must be one target for each of {n_inputs} inputs, got {n_targets}",
    )
    if task.class_names is not None:
        n_classes = len(task.class_names)
        _check(
            targets[0].dtype.kind in "iu" and set(targets[0]) <= set(range(n_classes)),
            f"targets must be indices of {n_classes} class_names, got {targets[0]}",
        )
    # As in training: in a graph, with batches of any size.
    signature = tf.TensorSpec((None, *images.shape[1:]), images.dtype)
    graph = tf.function(method, autograph=False).get_concrete_function(
        signature, tf.TensorSpec((2,), tf.int32)
    )
    again = graph(tf.convert_to_tensor(images), tf.convert_to_tensor(SEED))
    for value, other in zip(_flat(batch), _flat(again), strict=True):
        _check(
            value.shape == other.shape and np.allclose(value, other, atol=1e-4),
            f"{name} must return the same from the same seed, also in a graph; "
            "draw with the stateless operations of tf.random",
        )


def _check_head(task, images):
    """Check that head, loss and metrics take what `make_batch` returns."""
    import keras
    import tensorflow as tf

    image_shape = images.shape[1:]
    pixels = keras.Input(image_shape)
    features = keras.layers.Dense(6)(keras.layers.Flatten()(pixels))
    model = keras.Model(pixels, task.build_head(features, image_shape))
    if task.class_names is not None:
        expected = (None, len(task.class_names))
        _check(
            model.output_shape == expected,
            f"a head of {expected[1]} class_names must have outputs of shape "
            f"{expected}, got {model.output_shape}",
        )
    loss, metrics = task.loss_and_metrics()
    model.compile(loss=loss, metrics=metrics, loss_weights=task.loss_weights)
    inputs, targets = task.make_batch(tf.convert_to_tensor(images), SEED)
    with tf.GradientTape() as tape:
        outputs = model(tf.cast(inputs, tf.float32) / 1000)
        value = model.compute_loss(y=targets, y_pred=outputs)
    slopes = tape.gradient(value, [x.value for x in model.trainable_variables])
    _check(value.shape == () and np.isfinite(value), f"the loss is {value}")
    _check(
        all(slope is not None and np.isfinite(slope).all() for slope in slopes),
        "the loss must have a finite slope for each weight of the head",
    )


def _check_training(task, images):
    """Check that an estimator learns the task, and can be kept."""
    import keras
    from scikeras.wrappers import KerasClassifier

    encoder = SelfSupervisedEncoder(
        KerasClassifier(build_cnn, model__filters=(8,), model__dense_units=16),
        pretext=task,
        epochs=5,
        batch_size=32,
        optimizer=keras.optimizers.Adam(0.01),
        random_state=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        encoder.set_params(memory=folder).fit(images)
        again = clone(encoder).set_params(memory=None).fit(images)
        kept = clone(encoder).fit(images)
    loss, score = encoder.history_["loss"], encoder.score(images)
    _check(np.isfinite(score), f"the score is {score}")
    _check(loss[-1] < loss[0], f"training must lower the loss, got {loss}")
    others = {
        "another training": again,
        "one from the cache": kept,
        "one from a pickle": pickle.loads(pickle.dumps(encoder)),
    }
    if type(task).__module__.startswith("skssl."):  # others cannot be saved without it
        others["one from a file"] = _reloaded(encoder)
    weights = encoder.pretext_model_.get_weights()
    for what, other in others.items():
        found = zip(weights, other.pretext_model_.get_weights(), strict=True)
        _check(
            all((a == b).all() for a, b in found)
            and other.history_ == encoder.history_,
            f"{what} has other weights or another history: {other.history_}, "
            f"where the first one has {encoder.history_}",
        )
    last = others.popitem()[1].score(images)  # tracing it takes a second
    _check(last == score, f"a reloaded estimator has the score {last}, not {score}")
    if task.class_names is not None:
        labels = encoder.predict_pretext(images[:N_IMAGES])
        expected = (N_IMAGES, encoder.pretext_.n_views)
        _check(labels.shape == expected, f"predict_pretext gives {labels.shape}")


def _reloaded(encoder):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "encoder")
        encoder.save(path)
        return load(path)
