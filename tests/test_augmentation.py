import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from skssl import SelfSupervisedClassifier, augmentation
from skssl.augmentation import (
    augmented,
    check_augmentation,
    erased,
    moved,
    recolored,
)

SEED = tf.constant([3, 7])


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(0, 255, (6, 9, 12, 3)).astype("float32")


def test_the_same_seed_gives_the_same_images_and_another_one_others(images):
    first, again = (augmented(images, SEED).numpy() for _ in range(2))
    assert_array_equal(first, again)
    assert not np.array_equal(first, augmented(images, SEED + 1).numpy())
    assert first.dtype == np.float32
    assert first.shape == images.shape


def test_the_scale_of_the_pixels_does_not_matter(images):
    of_integers = augmented(images.astype("uint8"), SEED).numpy()
    of_shares = augmented(images.astype("uint8") / np.float32(255), SEED).numpy()
    assert_allclose(of_integers / 255, of_shares, atol=1e-5)


def test_without_strength_an_image_stays_as_it_is(images):
    assert_allclose(moved(images, SEED, 0.0), images, atol=1e-3)
    assert_allclose(recolored(images, SEED, 0.0), images, rtol=1e-4, atol=1e-3)


def test_images_move_by_affine_maps_about_their_centre():
    # A plane stays a plane under an affine map: the second differences are zero.
    rows, columns = np.mgrid[:21, :31].astype("float32")
    plane = (2 * rows + 3 * columns)[None, :, :, None]
    inner = moved(np.repeat(plane, 8, 0), SEED).numpy()[:, 8:13, 12:19, 0]
    assert_allclose(np.diff(inner, 2, axis=1), 0, atol=1e-3)
    assert_allclose(np.diff(inner, 2, axis=2), 0, atol=1e-3)
    slopes = np.abs(np.diff(inner, axis=2)[:, 0, 0] - 3)
    assert 0.01 < slopes.max() < 1.5  # turned, zoomed and sheared a little


def test_a_shift_moves_by_at_most_a_tenth_of_the_side(monkeypatch):
    for name in ("TURN", "ZOOM", "SHEAR"):
        monkeypatch.setattr(f"skssl.augmentation.{name}", 0)
    dot = np.zeros((200, 41, 41, 1), "float32")
    dot[:, 20, 20] = 1
    result = moved(dot, SEED).numpy()[..., 0]
    positions = np.arange(41)
    rows, columns = (result.sum(axis).dot(positions) for axis in (2, 1))
    for centres in (rows, columns):
        assert np.abs(centres - 20).max() < 4.2
        assert centres.std() > 1
        assert abs(centres.mean() - 20) < 0.8


def test_grey_images_keep_their_values_and_no_image_is_mirrored():
    image = np.zeros((50, 16, 16, 1), "float32")
    image[:, :, :8] = 1  # bright on the left
    result = augmented(image, SEED).numpy()
    assert result.min() >= 0 and result.max() <= 1
    assert (result[:, :, :4].mean((1, 2)) > result[:, :, -4:].mean((1, 2)) + 0.5).all()


def only(monkeypatch, name):
    """Leave one change of colour alone."""
    for other in {"CONTRAST", "SATURATION", "BRIGHTNESS", "COLOR"} - {name}:
        monkeypatch.setattr(augmentation, other, 0.0)


def mean_of(images, axis):
    return images.mean(axis=axis, keepdims=True, dtype=float)


def test_contrast_scales_differences_from_the_mean_of_the_image(images, monkeypatch):
    only(monkeypatch, "CONTRAST")
    result, mean = recolored(images, SEED).numpy(), mean_of(images, (1, 2, 3))
    factors = (result - mean).std(axis=(1, 2, 3)) / images.std(axis=(1, 2, 3))
    assert_allclose(result, mean + factors.reshape(-1, 1, 1, 1) * (images - mean), 1e-3)
    assert (np.abs(np.log(factors)) < 0.301).all()
    assert factors.std() > 0.05


def test_saturation_scales_differences_from_grey(images, monkeypatch):
    only(monkeypatch, "SATURATION")
    result, grey = recolored(images, SEED).numpy(), mean_of(images, 3)
    assert_allclose(mean_of(result, 3), grey, 1e-4)
    factors = (result - grey).std(axis=(1, 2, 3)) / (images - grey).std(axis=(1, 2, 3))
    changed = grey + factors.reshape(-1, 1, 1, 1) * (images - grey)
    assert_allclose(result, changed, 1e-3, 1e-3)
    assert factors.std() > 0.05


@pytest.mark.parametrize(
    ("name", "per_channel", "largest"), [("BRIGHTNESS", 1, 0.3), ("COLOR", 3, 0.15)]
)
def test_brightness_and_colour_add_a_share_of_the_spread(
    images, monkeypatch, name, per_channel, largest
):
    only(monkeypatch, name)
    added = recolored(images, SEED).numpy() - images
    added /= images.std(axis=(1, 2, 3), keepdims=True)
    assert_allclose(added, mean_of(added, (1, 2)) + np.zeros(added.shape), atol=1e-5)
    assert (np.abs(added) <= largest + 1e-5).all()
    assert len(np.unique(added[:, 0, 0].round(4))) == per_channel * len(images)


def test_an_erased_square_has_the_mean_of_its_image(images):
    result = erased(images, SEED, size=0.9).numpy()
    changed = (result != images).any(-1)
    assert 0 < changed.mean() < 0.9
    for image, after, where in zip(images, result, changed, strict=True):
        if where.any():
            assert_allclose(
                after[where],
                np.broadcast_to(image.mean((0, 1)), (where.sum(), 3)),
                rtol=1e-4,
            )


def test_layers_draw_from_the_seed_and_keep_their_generators(images):
    layers = [keras.layers.RandomFlip(seed=1), keras.layers.RandomContrast(0.5, seed=2)]
    states = [x.numpy() for layer in layers for x in layer.variables]
    call = tf.function(lambda seed: augmented(images, seed, layers), autograph=False)
    first, other, again = (call(seed).numpy() for seed in (SEED, SEED + 1, SEED))
    assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    after = [x.numpy() for layer in layers for x in layer.variables]
    assert_array_equal(after, states)


def test_layers_follow_each_other_and_functions_get_the_batch(images):
    doubled = augmented(images, SEED, [lambda x: x * 2, keras.layers.Rescaling(0.25)])
    assert_allclose(doubled, images / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("augmentation", "error", "message"),
    [
        ("mirror", ValueError, "augmentation must be 'auto'.*got 'mirror'"),
        (3, TypeError, "augmentation must be 'auto'.*got 3"),
        (keras.layers.CenterCrop(4, 4), ValueError, "keep the shape.*returned"),
    ],
)
def test_what_changes_no_images_is_refused(augmentation, error, message):
    with pytest.raises(error, match=message):
        check_augmentation(augmentation, (8, 8, 1))
    with pytest.raises(error, match=message):
        SelfSupervisedClassifier(augmentation=augmentation).fit(
            np.random.default_rng(0).random((8, 8, 8)), np.arange(8) % 2
        )


def test_checking_a_function_moves_no_generator_of_the_caller():
    def noisy(images):
        return images + random.random() + np.random.random() + keras.random.normal(())

    def draw():
        return random.random(), np.random.random(), float(keras.random.normal(()))

    seed_all(0)
    expected = draw()
    seed_all(0)
    check_augmentation(noisy, (4, 4, 1))
    assert draw() == expected


def seed_all(seed):
    random.seed(seed)
    np.random.seed(seed)
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)


@pytest.fixture
def flipping(quick):
    def make(**params):
        params = {"pretrain_epochs": 0, "self_training": None, **params}
        return SelfSupervisedClassifier(quick(), random_state=0, **params)

    return make


def test_a_layer_as_augmentation_changes_the_training_and_is_cloned(
    few_labels, flipping
):
    classifier = flipping(augmentation=keras.layers.RandomFlip())
    first = classifier.fit(*few_labels).predict_proba(few_labels[0][:9])
    again = clone(classifier).fit(*few_labels).predict_proba(few_labels[0][:9])
    assert_array_equal(first, again)
    without = flipping(augmentation=None).fit(*few_labels)
    assert not np.array_equal(first, without.predict_proba(few_labels[0][:9]))


def test_a_function_that_draws_from_keras_follows_the_seed(few_labels, flipping):
    def noisy(images):
        return images + keras.random.normal((8, 8, 1))

    first, again = (
        flipping(augmentation=noisy).fit(*few_labels).predict_proba(few_labels[0][:9])
        for _ in range(2)
    )
    assert_array_equal(first, again)


def test_predictions_are_not_augmented(few_labels, flipping):
    classifier = flipping().fit(*few_labels)
    X = few_labels[0][:20]
    assert_array_equal(classifier.predict_proba(X), classifier.predict_proba(X))
    assert_allclose(
        classifier.predict_proba(X),
        classifier.model_.predict(X[..., None], verbose=0),
        atol=1e-6,
    )
