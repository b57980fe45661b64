"""SimCLR and Barlow Twins: losses against plain NumPy, views and refusals."""

import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal

from skssl import (
    BarlowTwinsPretext,
    PretextDisplay,
    SelfSupervisedEncoder,
    SimCLRPretext,
)
from skssl.pretext._two_views import partner_accuracy

TASKS = [SimCLRPretext, BarlowTwinsPretext]
IMAGE_OF = np.array([0, 0, 1, 1, 2, 2, 3, 3])
X = np.zeros((2, 8, 8, 1))


@pytest.fixture
def projections():
    return np.random.default_rng(0).normal(size=(8, 5)).astype("float32")


def loss_of(task, projections):
    loss, _ = task.fit(X).loss_and_metrics()
    return float(np.mean(loss(tf.constant(IMAGE_OF), tf.constant(projections))))


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.mark.parametrize("temperature", [0.05, 0.2, 1])
def test_nt_xent_against_a_plain_loop(projections, temperature):
    z, terms = projections.astype(float), []
    for i in range(8):
        of = {k: np.exp(cosine(z[i], z[k]) / temperature) for k in range(8) if k != i}
        partner = i + 1 if i % 2 == 0 else i - 1
        terms.append(-np.log(of[partner] / sum(of.values())))
    found = loss_of(SimCLRPretext(temperature), projections)
    assert found == pytest.approx(np.mean(terms), rel=1e-4)


@pytest.mark.parametrize("weight", [0.005, 2])
def test_redundancy_against_a_plain_loop(projections, weight):
    first, second = projections[::2].astype(float), projections[1::2].astype(float)
    loss = 0
    for i in range(5):
        for j in range(5):
            correlation = np.mean(
                (first[:, i] - first[:, i].mean())
                / first[:, i].std()
                * (second[:, j] - second[:, j].mean())
                / second[:, j].std()
            )
            loss += (1 - correlation) ** 2 if i == j else weight * correlation**2
    found = loss_of(BarlowTwinsPretext(weight), projections)
    assert found == pytest.approx(loss, rel=1e-3)


def test_equal_views_are_the_least_loss_of_barlow_twins():
    one = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 3)))[0]
    one = np.linalg.qr(one - one.mean(axis=0))[0].astype("float32")  # uncorrelated
    assert loss_of(BarlowTwinsPretext(), one.repeat(2, axis=0)) < 1e-6


@pytest.mark.parametrize("task", TASKS)
def test_units_that_are_dead_leave_the_slope_finite(task):
    loss, _ = task().loss_and_metrics()
    z = tf.Variable(tf.zeros((8, 3)))
    with tf.GradientTape() as tape:
        value = tf.reduce_mean(loss(tf.constant(IMAGE_OF), z))
    assert np.isfinite(value)
    assert np.isfinite(tape.gradient(value, z)).all()


def test_partners_that_are_nearest_count(projections):
    z = projections.astype(float)
    expected = []
    for i in range(8):
        others = [k for k in range(8) if k != i]
        nearest = max(others, key=lambda k, i=i: cosine(z[i], z[k]))
        expected.append(IMAGE_OF[nearest] == IMAGE_OF[i])
    found = partner_accuracy(tf.constant(IMAGE_OF), tf.constant(projections))
    assert_array_equal(found, expected)
    assert 0 < np.mean(expected) < 1


@pytest.mark.parametrize("task", TASKS)
def test_views_of_an_image_stand_together_and_differ(task):
    images = tf.constant(np.random.default_rng(0).random((3, 8, 8, 1)), tf.float32)
    inputs, targets = task().make_batch(images, [1, 2])
    assert_array_equal(targets, [0, 0, 1, 1, 2, 2])
    assert not np.allclose(inputs[::2], inputs[1::2])
    again, _ = task().make_batch(images, [1, 3])
    assert not np.allclose(inputs, again)
    noise = task(augmentation=lambda batch: -batch)
    inputs, _ = noise.make_batch(images, [1, 2])
    assert_allclose(inputs, -np.repeat(images, 2, axis=0))


def test_pairs_are_drawn_side_by_side(digits, quick):
    import matplotlib.pyplot as plt

    X = digits[0][:100]
    encoder = SelfSupervisedEncoder(
        quick(), pretext=SimCLRPretext(), epochs=1, random_state=0
    ).fit(X)
    display = PretextDisplay.from_estimator(encoder, X, n_samples=6, random_state=0)
    plt.close(display.figure_)
    assert display.images.shape == (6, 8, 17, 1)
    assert_array_equal(display.y_true, range(6))
    assert set(display.y_pred) <= set(range(6))


@pytest.mark.parametrize("task", TASKS)
def test_views_that_are_equal_are_refused(task, digits, quick):
    with pytest.raises(ValueError, match="got None, which leaves them equal. Use 'aut"):
        task(augmentation=None).fit(X)
    encoder = SelfSupervisedEncoder(quick(), pretext=task(augmentation=None))
    with pytest.raises(ValueError, match=f"two views that {task.__name__} compares"):
        encoder.fit(digits[0])


@pytest.mark.parametrize(
    ("task", "error", "message"),
    [
        (SimCLRPretext(0), ValueError, "temperature must be .* above 0, got 0. Values"),
        (SimCLRPretext(np.nan), ValueError, "temperature must be .* got nan"),
        (
            SimCLRPretext("a"),
            TypeError,
            "temperature must be a number above 0, got 'a'",
        ),
        (SimCLRPretext(True), TypeError, "temperature must be a number .* got True"),
        (
            BarlowTwinsPretext(-1),
            ValueError,
            "redundancy_weight must be a number above 0, got -1. The paper uses 0.005",
        ),
        *(
            (task(projection_units=n), error, "projection_units must be an integer abo")
            for task in TASKS
            for n, error in [(0, ValueError), (1.5, TypeError)]
        ),
    ],
)
def test_wrong_parameters_are_named(task, error, message):
    with pytest.raises(error, match=message):
        task.fit(X)


def test_a_layer_takes_the_place_of_the_augmentation(digits, quick):
    noise = layers.GaussianNoise(0.5, seed=0)
    encoder = SelfSupervisedEncoder(
        quick(), pretext=SimCLRPretext(augmentation=noise), epochs=2, random_state=0
    ).fit(digits[0][:100])
    assert np.isfinite(encoder.history_["loss"]).all()
