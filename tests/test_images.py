import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator

from skssl._images import load_batch, validate_images


def read(X, **params):
    return validate_images(BaseEstimator(), X, reset=True, **params)


def test_grey_images_get_a_channel_axis():
    assert read(np.zeros((2, 3, 4))).shape == (2, 3, 4, 1)


def test_bytes_stay_bytes_and_are_not_copied():
    X = np.zeros((2, 3, 3, 1), dtype=np.uint8)
    images = read(X)
    assert images.dtype == np.uint8
    assert np.shares_memory(images, X)


def test_square_rows_are_square_images():
    X = np.arange(18).reshape(2, 9)
    assert_array_equal(read(X)[1, :, :, 0], X[1].reshape(3, 3))


def test_other_rows_are_padded_with_a_warning():
    with pytest.warns(UserWarning, match=r"7 features.*image_shape="):
        images = read(np.ones((2, 7)))
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
    assert np.shares_memory(read(X), X)


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
        read(X, image_shape=image_shape)


def test_sparse_input_is_refused():
    with pytest.raises(TypeError, match="[Ss]parse"):
        read(csr_matrix(np.eye(4)))


def test_only_estimators_take_ready_views():
    X = np.zeros((1, 2, 3, 3, 1))
    assert read(X, allow_views=True).shape == X.shape
    with pytest.raises(ValueError, match="n_views"):
        read(np.zeros((1, 1, 2, 3, 3, 1)), allow_views=True)


@pytest.mark.parametrize("dtype", [bool, np.int64, np.float16, np.float64, ">f8"])
def test_a_batch_is_float32_unless_it_is_bytes(dtype):
    assert load_batch(np.ones((1, 2, 2, 1), dtype)).dtype == np.float32
    assert load_batch(np.ones((1, 2, 2, 1), np.uint8)).dtype == np.uint8
