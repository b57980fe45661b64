import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator

from skssl._base import validate_images
from skssl._data.images import (
    as_images,
    channels_first_hint,
    load_batch,
    warn_of_channels_first,
    warn_of_volumes,
)


def test_grey_images_get_a_channel_axis():
    assert as_images(np.zeros((2, 3, 4))).shape == (2, 3, 4, 1)


def test_bytes_stay_bytes_and_are_not_copied():
    X = np.zeros((2, 3, 3, 1), dtype=np.uint8)
    images = as_images(X)
    assert images.dtype == np.uint8
    assert np.shares_memory(images, X)


def test_square_rows_are_square_images():
    X = np.arange(18).reshape(2, 9)
    assert_array_equal(as_images(X)[1, :, :, 0], X[1].reshape(3, 3))


def test_other_rows_are_padded_with_a_warning():
    with pytest.warns(UserWarning, match=r"7 features.*image_shape="):
        images = as_images(np.ones((2, 7)))
    assert images.shape == (2, 3, 3, 1)
    assert_array_equal(images[0].ravel(), [1, 1, 1, 1, 1, 1, 1, 0, 0])


def test_only_a_fit_on_images_forgets_the_names_of_columns():
    estimator = BaseEstimator()
    validate_images(
        estimator, pd.DataFrame([[1, 2, 3, 4]], columns=[*"abcd"]), reset=True
    )
    validate_images(estimator, np.zeros((1, 2, 2)), reset=False)
    assert_array_equal(estimator.feature_names_in_, [*"abcd"])
    validate_images(estimator, np.zeros((1, 2, 2)), reset=True)
    assert not hasattr(estimator, "feature_names_in_")


def test_a_memory_map_stays_on_disk(tmp_path):
    X = np.memmap(tmp_path / "x", np.uint8, "w+", shape=(4, 3, 3, 1))
    assert np.shares_memory(as_images(X), X)


@pytest.mark.parametrize(
    ("X", "image_shape", "message"),
    [
        (np.zeros((2, 12)), (3, 3), r"image_shape=\(3, 3\) has 9 .* 12 features"),
        (np.zeros((2, 3, 4)), (4, 3), r"image_shape=\(4, 3\) does not match"),
        (np.full((2, 3, 3), np.nan), None, "NaN"),
        (np.full((2, 3, 3), np.inf), None, "infinity"),
        (np.full((2, 9), np.nan), None, "NaN"),
        (np.array([[0, np.inf, 0, 0]]), None, "infinity"),
        (np.array([[0, -np.inf, 0, 0]]), None, "infinity"),
        (np.zeros((0, 3, 3)), None, "0 sample"),
        (np.zeros((0, 9)), None, "0 sample"),
        (np.zeros((2, 0, 3)), None, "at least one pixel"),
        (np.zeros(9), None, "Reshape your data"),
        (np.zeros((1, 2, 3, 3, 1)), None, r"must have shape .* got \(1, 2, 3, 3, 1\)"),
        (np.array([["a", "b"]]), None, "real numbers .*, got <U1"),
    ],
)
def test_wrong_input_says_what_is_wrong(X, image_shape, message):
    with pytest.raises(ValueError, match=message):
        as_images(X, image_shape=image_shape)


def test_sparse_input_is_refused():
    with pytest.raises(TypeError, match="[Ss]parse"):
        as_images(csr_matrix(np.eye(4)))


def test_only_estimators_take_ready_views():
    X = np.zeros((1, 2, 3, 3, 1))
    assert as_images(X, allow_views=True).shape == X.shape
    with pytest.raises(ValueError, match="n_views"):
        as_images(np.zeros((1, 1, 2, 3, 3, 1)), allow_views=True)


@pytest.mark.parametrize(
    ("shape", "advice"),
    [
        ((9, 3, 32, 32), r"np\.moveaxis\(X, 1, -1\).*X\.reshape\(-1, 3, 32, 32\)"),
        ((9, 1, 28, 28), r"np\.moveaxis\(X, 1, -1\)"),
        ((9, 4, 480, 640), r"np\.moveaxis\(X, 1, -1\)"),
        ((9, 2, 3, 32, 32), r"np\.moveaxis\(X, 2, -1\)"),
    ],
)
def test_channels_that_come_first_are_to_be_moved(shape, advice):
    images = np.broadcast_to(np.uint8(0), shape)
    with pytest.warns(UserWarning, match=f"X is read as.*{advice}.*filterwarnings"):
        warn_of_channels_first(images)


@pytest.mark.parametrize(
    "shape",
    [(9, 32, 32, 3), (9, 28, 28, 1), (9, 1, 100, 1), (9, 4, 4, 13), (9, 2, 8, 8)],
)
def test_channels_at_the_end_are_as_they_should_be(shape):
    assert channels_first_hint(shape) == ""


def test_channels_first_after_a_fit_on_channels_last_are_named():
    estimator = BaseEstimator()
    validate_images(estimator, np.zeros((2, 32, 32, 3)), reset=True)
    with pytest.raises(ValueError, match=r"fitted on.*np\.moveaxis\(X, 1, -1\)"):
        validate_images(estimator, np.zeros((2, 3, 32, 32)), reset=False)
    with pytest.raises(ValueError, match=r"does not match X.*np\.moveaxis"):
        as_images(np.zeros((2, 3, 32, 32)), image_shape=(32, 32, 3))


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_views_keep_their_pixels_and_slices_of_a_volume_do_not(dtype):
    X = np.random.default_rng(0).integers(200, size=(20, 8, 8, 1)).astype(dtype)
    turned = np.stack([X, np.rot90(X, axes=(1, 2)), X[:, ::-1]], axis=1)
    warn_of_volumes(turned)
    warn_of_volumes(turned[:, :1])
    volume = X[:18].reshape(3, 6, 8, 8, 1)
    advice = r"np\.moveaxis\(X, 1, 3\)\.reshape\(-1, 8, 8, 6\)"
    with pytest.warns(UserWarning, match=f"6 views of each.*{advice}.*filterwarnings"):
        warn_of_volumes(volume)
    moved = np.moveaxis(volume, 1, 3).reshape(-1, 8, 8, 6)
    assert_array_equal(moved[1, :, :, 4], volume[1, 4, :, :, 0])


@pytest.mark.parametrize("dtype", [bool, np.int64, np.float16, np.float64, ">f8"])
def test_a_batch_is_float32_unless_it_is_bytes(dtype):
    assert load_batch(np.ones((1, 2, 2, 1), dtype)).dtype == np.float32
    assert load_batch(np.ones((1, 2, 2, 1), np.uint8)).dtype == np.uint8
