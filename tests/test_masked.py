"""Hidden patches, and the loss on them against plain NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal

from skssl import MaskedPretext, PretextDisplay, SelfSupervisedEncoder

IMAGES = np.random.default_rng(0).integers(0, 256, size=(20, 7, 10, 3), dtype=np.uint8)


def batch_of(task, images, seed=(1, 2)):
    inputs, targets = task.fit(images).make_batch(tf.constant(images), seed)
    targets = np.array(targets)
    return np.array(inputs), targets[..., :-1], targets[..., -1] == 1


@pytest.mark.parametrize(
    ("ratio", "n_hidden"), [(0.5, 6), (0.75, 9), (0.01, 1), (0.99, 11)]
)
def test_patches_are_hidden_by_the_mean(ratio, n_hidden):
    inputs, _, hidden = batch_of(MaskedPretext(3, ratio), IMAGES)
    mean = IMAGES.mean(axis=(1, 2), keepdims=True)
    expected = np.where(hidden[..., None], mean, IMAGES)
    assert_allclose(inputs, expected, rtol=1e-5)
    # Twelve patches: whole, or cut off at the lower and right border.
    corners = hidden[:, ::3, ::3]
    assert_array_equal(corners.sum(axis=(1, 2)), [n_hidden] * 20)
    whole = corners.repeat(3, axis=1).repeat(3, axis=2)[:, :7, :10]
    assert_array_equal(hidden, whole)
    if n_hidden > 1:
        assert (hidden != hidden[:1]).any()
    _, _, others = batch_of(MaskedPretext(3, ratio), IMAGES, seed=(1, 3))
    assert (others != hidden).any()


def test_targets_are_normalised_and_their_scale_does_not_matter():
    _, targets, _ = batch_of(MaskedPretext(), IMAGES)
    centred = IMAGES - IMAGES.mean(axis=(1, 2), keepdims=True)
    scale = centred.std(axis=(1, 2, 3), keepdims=True)
    assert_allclose(targets, centred / scale, atol=1e-4)
    for factor in (1e-30, 1e-3, 1e30):
        scaled = (IMAGES * factor).astype("float32")
        _, found, _ = batch_of(MaskedPretext(), scaled)
        assert_allclose(found, targets, atol=1e-4)


@pytest.mark.parametrize("value", [0, 0.1, 255, 1e30])
def test_an_image_of_one_colour_has_nothing_to_explain(value):
    images = np.full((2, 33, 31, 3), value, dtype="float32")
    _, targets, _ = batch_of(MaskedPretext(), images)
    assert np.abs(targets).max() < 0.1


def test_the_loss_is_that_of_hidden_pixels():
    task = MaskedPretext(3)
    _, targets, hidden = batch_of(task, IMAGES)
    packed = np.concatenate([targets, hidden[..., None]], axis=-1).astype("float32")
    outputs = np.random.default_rng(1).normal(size=targets.shape).astype("float32")
    loss, (score,) = task.loss_and_metrics()
    expected = [
        np.mean((outputs[i][hidden[i]] - targets[i][hidden[i]]) ** 2) for i in range(20)
    ]
    assert_allclose(loss(packed, outputs), expected, rtol=1e-4)
    assert_allclose(score(packed, outputs), 1 - np.array(expected), rtol=1e-4)
    outputs[~hidden] = 99
    assert_allclose(loss(packed, outputs), expected, rtol=1e-4)
    assert_allclose(score(packed, targets.astype("float32")), 1)


def test_what_is_hidden_is_drawn_beside_what_the_network_puts_there(digits, quick):
    import matplotlib.pyplot as plt

    X = digits[0][:100]
    encoder = SelfSupervisedEncoder(
        quick(), pretext=MaskedPretext(2), epochs=1, random_state=0
    ).fit(X)
    display = PretextDisplay.from_estimator(encoder, X, n_samples=6, random_state=0)
    plt.close(display.figure_)
    assert display.images.shape == (6, 8, 17, 1)
    assert display.y_true is display.y_pred is None
    assert {axes.get_title() for axes in display.axes_} == {""}
    for left, right in zip(
        display.images[:, :, :8, 0], display.images[:, :, 9:, 0], strict=True
    ):
        # Visible pixels are those of an image, and the same on both sides.
        assert ((X == left) | (left != right)).all(axis=(1, 2)).any()
        assert (left == right).any()
        assert (left != right).any()
        assert 0 <= right.min() <= right.max() <= 16


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"patch_size": 0}, ValueError, "patch_size must .* above 0 and below 10, got"),
        ({"patch_size": 10}, ValueError, r"got 10. The images have shape \(7, 10, 3\)"),
        ({"patch_size": 2.0}, TypeError, "patch_size must be an integer above 0"),
        (
            {"mask_ratio": 0},
            ValueError,
            "mask_ratio must be .* below 1, got 0. The pap",
        ),
        ({"mask_ratio": 1}, ValueError, "mask_ratio must be a number .* got 1"),
        ({"mask_ratio": None}, TypeError, "mask_ratio must be a number .* got None"),
    ],
)
def test_wrong_parameters_are_named(params, error, message):
    with pytest.raises(error, match=message):
        MaskedPretext(**params).fit(IMAGES)
