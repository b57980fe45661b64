"""The protocol carries tasks of all kinds, none of them known to the package."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from networks import two_stages
from sklearn.base import clone

from skssl import (
    BarlowTwinsPretext,
    CombinedPretext,
    JigsawPretext,
    MaskedPretext,
    PretextDisplay,
    RotationPretext,
    SelfSupervisedEncoder,
    SimCLRPretext,
    check_pretext_task,
    load,
)
from skssl._storage.archive import saved_by_parameters
from skssl._storage.checkpoint import Checkpoint
from skssl.pretext import PretextTask, ViewClassification


@saved_by_parameters
class Mirrored(ViewClassification):
    """Classify: is the image mirrored? Both views of each."""

    n_views = 2
    class_names = ("as it is", "mirrored")

    def __init__(self, axis=2):
        self.axis = axis

    def make_views(self, images):
        return ops.stack([images, ops.flip(images, self.axis)], axis=1)


@saved_by_parameters
class HalfJigsaw(PretextTask):
    """Classify: were the left and right halves swapped? Drawn at random."""

    class_names = ("in order", "swapped")

    def make_batch(self, images, seed):
        half = images.shape[2] // 2
        swapped = ops.concatenate([images[:, :, half:], images[:, :, :half]], axis=2)
        targets = tf.random.stateless_uniform(
            [ops.shape(images)[0]], seed, maxval=2, dtype=tf.int32
        )
        return ops.where(targets[:, None, None, None] == 1, swapped, images), targets

    def build_head(self, features, image_shape):
        return keras.layers.Dense(2, activation="softmax")(features)

    def loss_and_metrics(self):
        return "sparse_categorical_crossentropy", ["accuracy"]


@saved_by_parameters
class TinySimCLR(PretextTask):
    """Compare: two noisy views of an image are each other's nearest in the batch.

    Loss of Chen et al. (2020), arXiv:2002.05709, equation 1.
    """

    n_views = 2

    def make_batch(self, images, seed):
        views = ops.repeat(ops.cast(images, "float32"), 2, axis=0)
        noise = tf.random.stateless_normal(ops.shape(views), seed)
        return views + 2 * noise, ops.arange(ops.shape(views)[0])

    def build_head(self, features, image_shape):
        projected = keras.layers.Dense(16)(features)
        return keras.layers.UnitNormalization()(projected)

    def loss_and_metrics(self):
        return contrastive_loss, []


def contrastive_loss(targets, embeddings):
    index = ops.arange(ops.shape(embeddings)[0])
    similarity = ops.matmul(embeddings, ops.transpose(embeddings)) / 0.5
    similarity = ops.where(index[:, None] == index[None, :], -1e9, similarity)
    # Views 2i and 2i + 1 are of one image.
    partner = ops.bitwise_xor(index, 1)
    return ops.mean(
        ops.sparse_categorical_crossentropy(partner, similarity, from_logits=True)
    )


@saved_by_parameters
class MaskedImages(PretextTask):
    """Reconstruct: draw the whole image from one with random pixels hidden."""

    def __init__(self, hidden=0.3):
        self.hidden = hidden

    def make_batch(self, images, seed):
        images = ops.cast(images, "float32")
        kept = tf.random.stateless_uniform(ops.shape(images), seed) > self.hidden
        return ops.where(kept, images, 0.0), images

    def build_head(self, features, image_shape):
        values = keras.layers.Dense(int(np.prod(image_shape)))(features)
        return keras.layers.Reshape(image_shape)(values)

    def loss_and_metrics(self):
        return "mean_squared_error", []


@pytest.mark.parametrize("task", [HalfJigsaw, TinySimCLR, MaskedImages])
def test_every_kind_of_task_trains_and_learns(task, digits, quick):
    X, _ = digits
    X = X[:, :, ::-1]  # not contiguous
    encoder = SelfSupervisedEncoder(
        quick(), pretext=task(), epochs=6, batch_size=32, random_state=0
    ).fit(X)
    loss = encoder.history_["loss"]
    assert len(loss) == 6
    assert loss[-1] < 0.9 * loss[0]
    assert encoder.transform(X[:5]).shape == (5, 16)
    again = SelfSupervisedEncoder(
        quick(), pretext=task(), epochs=6, batch_size=32, random_state=0
    ).fit(X)
    assert again.history_ == encoder.history_
    if task is HalfJigsaw:
        assert encoder.score(X) > 0.85
        assert encoder.predict_pretext(X[:3]).shape == (3, 1)
    else:
        assert encoder.score(X) < 0  # minus the loss
        with pytest.raises(AttributeError, match="predict_pretext"):
            encoder.predict_pretext(X)


def test_random_views_are_drawn_with_the_labels_they_were_made_with(few_labels, quick):
    import matplotlib.pyplot as plt

    X, y = few_labels
    clf = two_stages(
        quick(), pretext=HalfJigsaw(), pretrain_epochs=6, random_state=0
    ).fit(X, y)
    for estimator in (clf, clf.encoder_):
        display = PretextDisplay.from_estimator(
            estimator, X, n_samples=60, random_state=0
        )
        plt.close(display.figure_)
        assert set(display.y_true) == {"in order", "swapped"}
        for view, label in zip(display.images[..., 0], display.y_true, strict=True):
            image = np.roll(view, 4, axis=1) if label == "swapped" else view
            assert (image == X).all(axis=(1, 2)).any()
        assert np.mean(display.y_true == display.y_pred) > 0.7
        again = PretextDisplay.from_estimator(
            estimator, X, n_samples=60, random_state=0
        )
        plt.close(again.figure_)
        np.testing.assert_array_equal(again.images, display.images)


def test_a_task_that_does_not_classify_is_not_drawn(few_labels, quick):
    clf = two_stages(
        quick(), pretext=MaskedImages(), pretrain_epochs=1, random_state=0
    ).fit(*few_labels)
    for estimator in (clf, clf.encoder_):
        with pytest.raises(TypeError, match="pretrained on a task that classifies"):
            PretextDisplay.from_estimator(estimator, few_labels[0])


def test_the_classifier_takes_any_task(few_labels, quick):
    clf = two_stages(
        quick(epochs=20), pretext=MaskedImages(), pretrain_epochs=2, random_state=0
    ).fit(*few_labels)
    X, y = few_labels
    assert clf.score(X[y != -1], y[y != -1]) > 0.5
    assert list(clf.pretrain_history_) == ["loss"]


@pytest.mark.parametrize(
    "task", [Mirrored(axis=1), HalfJigsaw(), TinySimCLR(), MaskedImages(hidden=0.5)]
)
def test_a_task_that_is_told_by_its_parameters_can_be_saved(
    task, digits, tiny, tmp_path
):
    X, y = (values[:60] for values in digits)
    params = {"pretext": task, "random_state": 0}
    encoder = SelfSupervisedEncoder(tiny, epochs=1, **params).fit(X)
    clf = two_stages(tiny, pretrain_epochs=1, **params).fit(X, y)
    for estimator, score in [(encoder, "score"), (clf, "score_pretext")]:
        estimator.save(tmp_path / "estimator")
        loaded = load(tmp_path / "estimator")
        assert type(loaded.pretext) is type(task)
        assert loaded.pretext.get_params() == task.get_params()
        np.testing.assert_array_equal(loaded.transform(X), estimator.transform(X))
        assert getattr(loaded, score)(X) == getattr(estimator, score)(X)


def test_contrastive_loss_against_a_plain_loop():
    z = np.random.default_rng(0).normal(size=(6, 3))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    terms = []
    for i, partner in enumerate([1, 0, 3, 2, 5, 4]):
        others = sum(np.exp(z[i] @ z[k] / 0.5) for k in range(6) if k != i)
        terms.append(-np.log(np.exp(z[i] @ z[partner] / 0.5) / others))
    loss = contrastive_loss(None, ops.convert_to_tensor(z, "float32"))
    assert float(loss) == pytest.approx(np.mean(terms), rel=1e-5)


# Conformity, of the tasks of the package and of those above


HALVES = RotationPretext((0, 180))
TASKS = [
    HALVES,
    SimCLRPretext(temperature=0.5, projection_units=8),
    BarlowTwinsPretext(projection_units=8),
    JigsawPretext(n_permutations=4),
    MaskedPretext(patch_size=3),
    CombinedPretext([("halves", HALVES), ("masked", MaskedPretext())], [1, 0.5]),
]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
@pytest.mark.parametrize("shape", [(8, 8, 1), (12, 10, 3)], ids=str)
def test_tasks_keep_to_the_protocol(task, shape, digits):
    X = digits[0][:120, :, :, None]
    if shape == (12, 10, 3):
        X = np.pad(X, [(0, 0), (3, 1), (2, 0), (0, 0)]) * np.array([10, 15, 5])
        X = X.astype("uint8")
    assert X.shape[1:] == shape
    check_pretext_task(task, X)


@pytest.mark.parametrize("task", [HalfJigsaw(), TinySimCLR(), MaskedImages()])
def test_tasks_of_the_user_keep_to_the_protocol(task, digits):
    check_pretext_task(task, digits[0][:120])


@pytest.mark.parametrize("task", TASKS[1:], ids=lambda task: type(task).__name__)
def test_a_random_task_draws_from_its_seed(task, digits):
    images = tf.constant(digits[0][:9, :, :, None], tf.float32)
    fitted = clone(task).fit(images)
    first, other = (fitted.make_batch(images, [1, k])[0] for k in range(2))
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("task", TASKS[1:], ids=lambda task: type(task).__name__)
def test_an_interrupted_task_goes_on(task, digits, quick, tmp_path, monkeypatch):
    X = digits[0][:100]
    encoder = SelfSupervisedEncoder(quick(), pretext=task, epochs=3, random_state=0)
    whole = clone(encoder).fit(X)
    write = Checkpoint.write

    def write_and_stop(self, state):
        write(self, state)
        raise KeyboardInterrupt

    encoder.set_params(checkpoint_dir=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "write", write_and_stop)
        with pytest.raises(KeyboardInterrupt):
            encoder.fit(X)
    assert len(list(tmp_path.rglob("*.checkpoint"))) == 1
    encoder.fit(X)
    assert encoder.history_ == whole.history_
    np.testing.assert_array_equal(encoder.transform(X), whole.transform(X))
    assert list(tmp_path.rglob("*.checkpoint")) == []


class Wrong(HalfJigsaw):
    """A task with a fault."""

    def __init__(self, fault=None):
        self.fault = fault

    def __sklearn_clone__(self):
        return self if self.fault == "fitted" else Wrong(self.fault)

    def fit(self, X, y=None):
        self.shape_ = X.shape
        return self

    def make_batch(self, images, seed):
        inputs, targets = super().make_batch(images, seed)
        if self.fault == "random":
            targets = ops.cast(tf.random.uniform(ops.shape(targets)) > 0.5, "int32")
        if self.fault == "shape":
            inputs = inputs[:, 1:]
        if self.fault == "few":
            targets = targets[1:]
        if self.fault == "class":
            targets += 2
        if self.fault == "nan":
            inputs = ops.cast(inputs, "float32") * np.nan
        return inputs, targets

    def build_head(self, features, image_shape):
        n_units = 3 if self.fault == "units" else 2
        return keras.layers.Dense(n_units, activation="softmax")(features)

    def loss_and_metrics(self):
        if self.fault == "loss":
            return lambda targets, outputs: ops.sum(outputs) * np.inf, []
        if self.fault == "learns nothing":
            return lambda targets, outputs: 0 * ops.mean(outputs) + 1, []
        if self.fault == "slope":
            return lambda targets, outputs: ops.sum(targets), []
        return super().loss_and_metrics()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("random", "must return the same from the same seed"),
        ("shape", r"inputs must have shape \(5, 8, 8, 1\).*got \(5, 7, 8, 1\)"),
        ("few", "one target for each of 5 inputs, got 4"),
        ("class", "targets must be indices of 2 class_names"),
        ("nan", "inputs must be finite"),
        ("units", r"outputs of shape \(None, 2\), got \(None, 3\)"),
        ("loss", "the loss is .*inf"),
        ("slope", "a finite slope for each weight"),
        ("learns nothing", r"must lower the loss, got \[1.0, 1.0, 1.0, 1.0, 1.0\]"),
        ("fitted", "fit must leave the task that was given as it is"),
    ],
)
def test_what_is_wrong_with_a_task_is_named(fault, message, digits):
    with pytest.raises(AssertionError, match=message):
        check_pretext_task(Wrong(fault), digits[0][:20])
