"""Several pretext tasks at once: each sees its own rows, and nothing else."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, ShuffleSplit

from skssl import (
    CombinedPretext,
    JigsawPretext,
    MaskedPretext,
    PretextDisplay,
    RotationPretext,
    SelfSupervisedClassifier,
    SelfSupervisedEncoder,
)
from skssl.pretext import PretextTask

HALVES = RotationPretext((0, 180))


def combined(weights=None):
    """Return a task of fixed views, one of random views, and a regression."""
    tasks = [("turned", HALVES), ("jigsaw", JigsawPretext()), ("m", MaskedPretext(2))]
    return CombinedPretext(tasks, weights)


@pytest.fixture(scope="module")
def encoder(digits, quick):
    return SelfSupervisedEncoder(
        quick(),
        pretext=combined([1, 2, 0.5]),
        epochs=3,
        optimizer=keras.optimizers.Adam(0.01),
        random_state=0,
    ).fit(digits[0][:200])


def test_inputs_of_an_image_stand_together():
    images = tf.constant(np.arange(3 * 16).reshape(3, 4, 4, 1), tf.uint8)
    task = combined().fit(images)
    assert task.n_views == 4
    inputs, targets = task.make_batch(images, np.array([1, 2], dtype=np.int32))
    inputs = np.array(inputs).reshape(3, 4, 4, 4, 1)
    assert inputs.dtype == "float32"
    assert_array_equal(inputs[:, 0], images)
    assert_array_equal(inputs[:, 1], np.array(images)[:, ::-1, ::-1])
    assert_array_equal(
        np.sort(inputs[:, 2].reshape(3, -1)), np.array(images).reshape(3, -1)
    )
    assert [len(target) for target in targets] == [6, 3, 3]
    assert_array_equal(targets[0], [0, 1] * 3)


def test_each_head_sees_its_own_rows():
    class Sees(PretextTask):
        def __init__(self, n_views=1):
            self.n_views = n_views

        def make_batch(self, images, seed):
            return images, images

        def build_head(self, features, image_shape):
            return layers.Identity()(features)

        def loss_and_metrics(self):
            return "mse", []

    task = CombinedPretext([("one", Sees(1)), ("two", Sees(2)), ("three", Sees(1))])
    task.fit(np.zeros((1, 2, 2, 1)))
    features = keras.Input((1,))
    model = keras.Model(features, task.build_head(features, (2, 2, 1)))
    assert model.output_names == ["one", "two", "three"]
    outputs = model(ops.reshape(ops.arange(8.0), (8, 1)))
    found = [np.array(output).ravel().tolist() for output in outputs]
    assert found == [[0, 4], [1, 2, 5, 6], [3, 7]]


def test_losses_are_weighed_and_added(encoder, digits):
    history = {key: np.array(values) for key, values in encoder.history_.items()}
    assert set(history) == {
        *("loss", "turned_loss", "jigsaw_loss", "m_loss"),
        *("turned_accuracy", "jigsaw_accuracy", "m_explained_variance"),
    }
    total = (
        history["turned_loss"] + 2 * history["jigsaw_loss"] + 0.5 * history["m_loss"]
    )
    # Batches of different sizes weigh alike in the one mean, and by size in the other.
    assert_allclose(history["loss"], total, rtol=0.02)


def test_the_score_is_the_mean_of_the_scores(encoder, digits):
    task = encoder.pretext_
    results = {
        **{"loss": 9.0, "turned_loss": 1.0, "jigsaw_loss": 2.0, "m_loss": 3.0},
        **{"turned_accuracy": 0.5, "jigsaw_accuracy": 0.3, "m_explained_variance": 0.1},
    }
    assert task.score_from(results) == pytest.approx(0.3)
    assert 0.3 < encoder.score(digits[0][:200]) < 1


def test_names_that_begin_alike_are_told_apart():
    task = CombinedPretext([("a", HALVES), ("a_b", MaskedPretext(1))])
    task.fit(np.zeros((1, 2, 2, 1)))
    results = {"a_loss": 1, "a_b_loss": 1, "a_accuracy": 0.2, "a_b_explained": 0.6}
    assert task.score_from(results) == pytest.approx(0.4)


def test_parts_are_reached_by_their_names(encoder):
    changed = clone(encoder)
    assert changed.pretext is not encoder.pretext
    changed.set_params(
        pretext__jigsaw__n_permutations=4, pretext__turned=RotationPretext()
    )
    names = [name for name, _ in changed.pretext.tasks]
    assert names == ["turned", "jigsaw", "m"]
    assert changed.pretext.n_views == 6
    assert changed.get_params()["pretext__jigsaw__n_permutations"] == 4
    assert encoder.get_params()["pretext__jigsaw__n_permutations"] == 24
    assert encoder.pretext_.n_views == 4


def test_a_grid_over_a_part(encoder, digits):
    grid = {"pretext__m__patch_size": [2, 4]}
    split = ShuffleSplit(1, random_state=0)
    search = GridSearchCV(encoder, grid, cv=split, refit=False, error_score="raise")
    search.fit(digits[0][:80])
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_a_classifier_learns_on_from_it(few_labels, quick):
    clf = SelfSupervisedClassifier(
        quick(), pretext=combined(), pretrain_epochs=1, random_state=0
    ).fit(*few_labels)
    assert np.isfinite(clf.score_pretext(few_labels[0]))
    assert clf.predict(few_labels[0][:3]).shape == (3,)


def test_it_neither_classifies_nor_has_pictures(encoder, digits):
    with pytest.raises(AttributeError, match="predict_pretext"):
        encoder.predict_pretext(digits[0])
    with pytest.raises(TypeError, match="its own: 'turned', 'jigsaw', 'm'. To draw"):
        PretextDisplay.from_estimator(encoder, digits[0])


def test_it_is_undone_where_a_part_is():
    flip = layers.RandomFlip("horizontal_and_vertical")
    task = CombinedPretext([("m", MaskedPretext()), ("turned", HALVES)])
    assert task.fit(np.zeros((1, 8, 8, 1))).is_undone_by(flip)
    assert not task.is_undone_by(layers.Dropout(0.5))


@pytest.mark.parametrize(
    ("tasks", "weights", "error", "message"),
    [
        (HALVES, None, TypeError, "tasks must be a list of pairs .* got RotationPre"),
        ([HALVES, HALVES], None, TypeError, "tasks must be a list of pairs"),
        (
            [("a", HALVES), ("b", None)],
            None,
            TypeError,
            "tasks must be a list of pairs",
        ),
        ([("a", HALVES)], None, ValueError, "at least two tasks.* as pretext itself"),
        ([("a", HALVES)] * 2, None, ValueError, "not unique"),
        ([("a__b", HALVES), ("c", HALVES)], None, ValueError, "must not contain __"),
        ([("tasks", HALVES), ("c", HALVES)], None, ValueError, "conflict with constr"),
        ([("images", HALVES), ("c", HALVES)], None, ValueError, "got 'images'. Rename"),
        ([("a/b", HALVES), ("c", HALVES)], None, ValueError, "without a slash"),
        ([("a", combined()), ("b", HALVES)], None, ValueError, r"\['a'\] have several"),
        (
            [("a", HALVES), ("b", HALVES)],
            [1],
            ValueError,
            r"each of 2 tasks, got \[1\]",
        ),
        ([("a", HALVES), ("b", HALVES)], 2, ValueError, "each of 2 tasks, got 2"),
        (
            [("a", HALVES), ("b", HALVES)],
            [1, 0],
            ValueError,
            "A weight .* got 0. Leave",
        ),
        ([("a", HALVES), ("b", HALVES)], "ab", TypeError, "A weight must be a number"),
    ],
)
def test_wrong_parameters_are_named(tasks, weights, error, message):
    with pytest.raises(error, match=message):
        CombinedPretext(tasks, weights).fit(np.zeros((1, 8, 8, 1)))
