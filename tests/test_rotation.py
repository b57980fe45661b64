import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags

from skssl import (
    CombinedPretext,
    JigsawPretext,
    RotationPretext,
    SelfSupervisedEncoder,
)
from skssl.pretext import GivenViews


def test_one_turn_is_counter_clockwise():
    image = np.array([[1, 2], [3, 4]])[None]
    views = RotationPretext((0, 90)).fit_transform(image)
    assert_array_equal(views[0, 0, :, :, 0], [[1, 2], [3, 4]])
    assert_array_equal(views[0, 1, :, :, 0], [[2, 4], [1, 3]])


def test_channels_that_come_first_are_no_reason_for_half_turns():
    X = np.zeros((2, 3, 32, 32))
    with pytest.raises(ValueError, match=r"np\.moveaxis\(X, 1, -1\)") as caught:
        RotationPretext().fit(X)
    assert "angles=(0, 180)" not in str(caught.value)
    with pytest.raises(ValueError, match=r"Use angles=\(0, 180\)") as caught:
        RotationPretext().fit(np.zeros((2, 12, 32, 3)))
    assert "moveaxis" not in str(caught.value)
    task = RotationPretext((0, 180)).fit(X)
    with pytest.warns(UserWarning, match=r"np\.moveaxis\(X, 1, -1\)"):
        task.transform(X)
    with pytest.warns(UserWarning, match=r"np\.moveaxis\(X, 1, -1\)"):
        RotationPretext((0, 180)).make_task(X)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3, 4, 4), (2, 5, 5, 3), (1, 1, 1, 2)])
def test_every_view_is_rot90_pixel_for_pixel(shape, dtype):
    X = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    angles = (270, 0, -180, 90)
    views = RotationPretext(angles).fit_transform(X)
    assert views.dtype == dtype
    images = X if X.ndim == 4 else X[..., None]
    assert views.shape == (len(X), 4, *images.shape[1:])
    for row, image in enumerate(images):
        for view, angle in enumerate(angles):
            assert_array_equal(views[row, view], np.rot90(image, angle // 90))


@pytest.mark.parametrize("angles", [[0, 90], range(0, 91, 90), np.array([0, 90])])
def test_angles_may_come_in_any_sequence(angles):
    X = np.arange(4).reshape(1, 2, 2)
    expected = RotationPretext((0, 90)).fit_transform(X)
    assert_array_equal(RotationPretext(angles).fit_transform(X), expected)


def test_half_turns_take_images_that_are_not_square():
    X = np.arange(2 * 2 * 3).reshape(2, 2, 3)
    views = RotationPretext(angles=(0, 180)).fit_transform(X)
    assert_array_equal(views[:, 1, :, :, 0], X[:, ::-1, ::-1])


def test_views_in_training_equal_those_of_transform():
    X = np.random.default_rng(0).integers(0, 255, (5, 6, 6, 3), dtype=np.uint8)
    pretext = RotationPretext((90, 270, 180, 0)).fit(X)
    inputs, targets = pretext.make_batch(X, seed=None)
    X_task, y_task = pretext.make_task(X)
    assert_array_equal(inputs, X_task)
    assert_array_equal(targets, y_task)
    assert np.asarray(inputs).dtype == np.uint8


def test_make_task_is_the_flattened_views():
    X = np.random.default_rng(0).normal(size=(7, 4, 4))
    X_task, y_task = RotationPretext().make_task(X)
    views = RotationPretext().fit_transform(X)
    assert_array_equal(X_task, views.reshape(28, 4, 4, 1))
    assert_array_equal(y_task, [0, 1, 2, 3] * 7)


def test_make_task_fits_nothing():
    pretext = RotationPretext()
    before = dict(vars(pretext))
    pretext.make_task(np.zeros((2, 4, 4)))
    assert vars(pretext) == before


def test_classes_are_named_by_angle_or_by_number():
    assert RotationPretext((0, 180)).class_names == ("0°", "180°")
    assert GivenViews(2).class_names == ("view 0", "view 1")


def test_the_head_gives_float32_probabilities_under_mixed_precision():
    import keras

    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        features = keras.Input((3,))
        head = RotationPretext((0, 180)).build_head(features, image_shape=(4, 4, 1))
        probabilities = np.asarray(keras.Model(features, head)(np.eye(3)))
    finally:
        keras.config.set_dtype_policy(policy)
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (3, 2)
    assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)


def test_flat_rows_take_their_image_shape():
    X = np.arange(2 * 12).reshape(2, 12)
    views = RotationPretext((0, 180), image_shape=(2, 3, 2)).fit_transform(X)
    assert_array_equal(views[:, 0], X.reshape(2, 2, 3, 2))


def test_data_frames_are_flat_rows_with_names():
    X = pd.DataFrame(np.arange(8).reshape(2, 4), columns=list("abcd"))
    pretext = RotationPretext().fit(X)
    assert_array_equal(pretext.feature_names_in_, list("abcd"))
    assert pretext.n_features_in_ == 4
    assert_array_equal(pretext.transform(X)[0, 0, :, :, 0], [[0, 1], [2, 3]])
    with pytest.raises(ValueError, match="feature names"):
        pretext.transform(X.rename(columns={"a": "z"}))


def test_the_tags_name_the_dtypes_that_are_kept():
    tags = get_tags(RotationPretext()).transformer_tags
    assert tags.preserves_dtype == ["float64", "float32", "uint8"]


def test_the_input_is_not_changed():
    X = np.arange(9.0).reshape(1, 3, 3)
    views = RotationPretext().fit_transform(X)
    views[:] = -1
    assert_array_equal(X.ravel(), np.arange(9))


@pytest.mark.parametrize(
    ("angles", "message"),
    [
        ((0, 45), "multiples of 90 degrees, got 45"),
        ((0, "90"), "multiples of 90 degrees, got '90'"),
        ((0, 90, 90), "must be distinct, but 90"),
        ((0, 360), "360 in .* turns an image as far as 0"),
        ((0,), "at least two angles"),
    ],
)
def test_wrong_angles_are_named(angles, message):
    pretext = RotationPretext(angles)  # the constructor does not look at them
    with pytest.raises(ValueError, match=message):
        pretext.fit(np.zeros((2, 4, 4)))


def test_quarter_turns_need_square_images():
    with pytest.raises(ValueError, match=r"square images.*angles=\(0, 180\)"):
        RotationPretext().fit(np.zeros((2, 4, 5)))


def test_a_failed_fit_changes_nothing():
    pretext = RotationPretext().fit(np.zeros((2, 4, 4)))
    before = dict(vars(pretext))
    with pytest.raises(ValueError, match="square"):
        pretext.fit(np.zeros((2, 4, 5)))
    assert vars(pretext) == before


def test_another_shape_than_in_fit_is_refused():
    pretext = RotationPretext().fit(np.zeros((2, 4, 4)))
    with pytest.raises(ValueError, match=r"\(5, 5, 1\).*fitted on .*\(4, 4, 1\)"):
        pretext.transform(np.zeros((2, 5, 5)))


def test_transform_needs_fit():
    with pytest.raises(NotFittedError):
        RotationPretext().transform(np.zeros((2, 4, 4)))


def test_clone_and_repr_keep_the_parameters():
    pretext = RotationPretext((0, 180), image_shape=(2, 3))
    assert clone(pretext).get_params() == pretext.get_params()
    assert repr(pretext) == "RotationPretext(angles=(0, 180), image_shape=(2, 3))"
    assert "RotationPretext" in pretext._repr_html_()


@pytest.mark.parametrize(
    ("layer", "angles", "undone"),
    [
        (lambda x: x.RandomFlip(), (0, 90, 180, 270), True),
        (lambda x: x.RandomFlip("horizontal"), (0, 90, 180, 270), True),
        (lambda x: x.RandomFlip("horizontal"), (0, 180), False),
        (lambda x: x.RandomFlip("vertical"), (0, 180), True),
        (lambda x: x.RandomFlip("vertical"), (0, 90), False),
        (lambda x: x.RandomFlip("horizontal"), (0, 90), False),
        (lambda x: x.RandomRotation(0.5), (0, 90, 180, 270), True),
        (lambda x: x.RandomRotation(0.15), (0, 90, 180, 270), True),
        (lambda x: x.RandomRotation(0.15), (0, 180), False),
        (lambda x: x.RandomRotation(0.1), (0, 90, 180, 270), False),
        (lambda x: x.RandomRotation((0.25, 0.3)), (0, 90, 180, 270), False),
        (lambda x: x.RandomTranslation(0.5, 0.5), (0, 90, 180, 270), False),
    ],
)
def test_layers_that_turn_one_angle_into_another(layer, angles, undone):
    import keras

    assert RotationPretext(angles).is_undone_by(layer(keras.layers)) is undone


def test_images_are_changed_at_random_in_training_alone():
    X = np.random.default_rng(0).random((3, 8, 8, 3), dtype="float32")
    fixed, labels = RotationPretext(augmentation=None).training_batch(X, [1, 2])
    assert_array_equal(fixed, RotationPretext().make_batch(X, [1, 2])[0])
    changed, same_labels = RotationPretext().training_batch(X, [1, 2])
    assert_array_equal(labels, same_labels)
    assert not np.allclose(changed, fixed)
    other, _ = RotationPretext().training_batch(X, [1, 3])
    assert not np.allclose(changed, other)
    # All views of an image are changed alike, and turned afterwards.
    views = np.reshape(changed, (3, 4, 8, 8, 3))
    for view in range(4):
        assert_array_equal(views[:, view], np.rot90(views[:, 0], view, axes=(1, 2)))
    grey, _ = RotationPretext().training_batch(X[..., :1], [1, 2])
    assert_array_equal(grey, RotationPretext().make_batch(X[..., :1], [1, 2])[0])


def test_pretraining_sees_the_changed_images(digits, quick):
    shift = RotationPretext(augmentation=lambda batch: batch * 0)
    encoder = SelfSupervisedEncoder(quick(), pretext=shift, epochs=3, random_state=0)
    encoder.fit(digits[0])
    assert encoder.history_["accuracy"][-1] < 0.3  # black images show no angle


def test_all_tasks_of_several_train_on_changed_images():
    X = np.ones((2, 8, 8, 1), dtype="float32")
    rotation = RotationPretext(augmentation=lambda batch: -batch)
    task = CombinedPretext([("a", rotation), ("b", JigsawPretext())]).fit(X)
    inputs, targets = task.training_batch(X, [1, 2])
    signs = np.reshape(inputs, (2, 5, -1))[..., 0]
    assert_array_equal(signs, [[-1, -1, -1, -1, 1]] * 2)
    assert_array_equal(targets[0], [0, 1, 2, 3] * 2)
    assert_array_equal(task.make_batch(X, [1, 2])[0], np.ones((10, 8, 8, 1)))


@pytest.mark.parametrize(
    ("augmentation", "error", "message"),
    [
        ("flip", ValueError, "augmentation must be 'auto', None"),
        (3, TypeError, "augmentation must be 'auto', None"),
        (lambda batch: batch[:, :4], ValueError, "must keep the shape"),
    ],
)
def test_a_wrong_augmentation_is_refused(augmentation, error, message):
    with pytest.raises(error, match=message):
        RotationPretext(augmentation=augmentation).fit(np.zeros((2, 8, 8)))
