"""Whatever X is, its numbers reach the network unchanged, or it is refused in words."""

import datetime
import math
import re
import sys
import time
import tracemalloc
import warnings
from collections import Counter
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import two_stages
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import BaseEstimator

from skssl import RotationPretext, SelfSupervisedEncoder
from skssl._base import validate_images
from skssl._data.images import LARGEST_PIXEL, load_batch
from skssl._data.training_set import distinct_images

# The same examples on every run and machine; an example takes milliseconds, and is
# called slow only where something hangs.
examples = settings(
    max_examples=100,
    derandomize=True,
    database=None,
    deadline=30_000,
    suppress_health_check=[HealthCheck.too_slow],
)
few_examples = settings(examples, max_examples=25)

NUMBERS = [np.dtype(code) for code in "?bBhHiIqQefdg"]
SWAPPED = [dtype.newbyteorder() for dtype in NUMBERS if dtype.itemsize > 1]


def read(X, **params):
    return validate_images(BaseEstimator(), X, reset=True, **params)


def refusal(read, X, **params):
    """Return the message of a refusal, which says what came and what to do."""
    with pytest.raises((ValueError, TypeError)) as caught:
        read(X, **params)
    message = str(caught.value)
    assert re.search(r"\bX\b", message)
    assert re.search("got|Found|passed|but X has|make an array|does not turn", message)
    assert re.search("Give|Reshape|Convert|Fill|Clip|Divide|Resize|must hold", message)
    return message


class ArrayLike:
    """Like a tensor of another library: nothing but `__array__`, or with a shape."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)


class Tensor(ArrayLike):
    @property
    def shape(self):
        return self.values.shape

    @property
    def ndim(self):
        return self.values.ndim

    def __len__(self):
        return len(self.values)


class OnTheDevice(Tensor):
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on a tensor that requires grad.")


class PairsInBatches:
    """Gives batches of images and labels, as `keras.utils.PyDataset` does."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return np.zeros((3, 4, 4, 1)), np.zeros(3)


def strided(X):
    """Every second element of a larger array, on every axis."""
    larger = np.zeros([2 * n for n in X.shape], X.dtype)
    view = larger[(slice(None, None, 2),) * X.ndim]
    view[...] = X
    return view


def reversed_axes(X):
    backwards = (slice(None, None, -1),) * X.ndim
    return X[backwards].copy()[backwards]


def read_only(X):
    X = X.copy()
    X.flags.writeable = False
    return X


def unaligned(X):
    memory = np.zeros(X.nbytes + 1, np.uint8)
    view = memory[1:].view(X.dtype).reshape(X.shape)
    view[...] = X
    return view


LAYOUTS = [np.asarray, np.asfortranarray, strided, reversed_axes, read_only, unaligned]
CONTAINERS = [
    np.asarray,
    np.ndarray.tolist,
    list,
    tuple,
    np.ma.array,
    ArrayLike,
    Tensor,
    lambda X: X.astype(object),
]

small_images = hnp.array_shapes(min_dims=3, max_dims=4, max_side=4)
small_rows = st.tuples(st.integers(1, 4), st.sampled_from([1, 4, 9, 16]))


@st.composite
def small_numbers(draw, shapes=small_images | small_rows, dtypes=NUMBERS + SWAPPED):
    """Arrays of any real dtype and layout, whose values float32 holds exactly."""
    dtype = draw(st.sampled_from(dtypes))
    if dtype.kind == "f":
        width = min(32, 8 * dtype.itemsize)
        bound = 2.0**15
        elements = st.floats(-bound, bound, width=width, allow_subnormal=False)
    elif dtype.kind == "b":
        elements = st.booleans()
    else:
        low = 0 if dtype.kind == "u" else -100
        elements = st.integers(low, 2**24 if dtype.itemsize > 2 else 100)
    X = draw(hnp.arrays(dtype, draw(shapes), elements=elements))
    return draw(st.sampled_from(LAYOUTS))(X)


any_shape = hnp.array_shapes(min_dims=0, max_dims=6, min_side=0, max_side=3)
any_dtype = (
    hnp.scalar_dtypes()
    | st.sampled_from(NUMBERS)
    | st.sampled_from([np.dtype(code) for code in "FDG"])
    | hnp.byte_string_dtypes(min_len=1, max_len=3)
    | hnp.unicode_string_dtypes(min_len=1, max_len=3)
    | hnp.array_dtypes(st.sampled_from(NUMBERS), max_size=2)
)


# Accepted: the numbers are those of the input


@examples
@given(X=small_numbers(), container=st.sampled_from(CONTAINERS))
def test_any_real_dtype_layout_and_container_is_read_as_its_numbers(X, container):
    given = container(X)
    before = X.copy()
    images = read(given)
    batch = load_batch(images)
    assert batch.dtype == (np.uint8 if images.dtype == np.uint8 else np.float32)
    assert_array_equal(batch.ravel(), X.astype(np.float64).ravel())
    side = int(np.sqrt(X.shape[1]))
    as_images = X.shape[1:] if X.ndim > 2 else (side, side)
    assert images.shape == (*X.shape[:1], *as_images, 1)[: max(X.ndim, 4)]
    assert_array_equal(X, before)


@examples
@given(X=small_numbers())
def test_an_array_keeps_its_dtype_and_is_not_copied(X):
    images = read(X)
    assert images.dtype == X.dtype
    assert np.shares_memory(images, X)


@examples
@given(data=st.data(), dtype=any_dtype, shape=any_shape, allow_views=st.booleans())
def test_any_array_is_read_or_refused_in_words(data, dtype, shape, allow_views):
    elements = hnp.from_dtype(dtype) if dtype.kind != "O" else st.integers()
    X = data.draw(hnp.arrays(dtype, shape, elements=elements, fill=st.nothing()))
    before = X.tobytes()
    readable = (
        X.dtype.kind in "buif"
        and 2 <= X.ndim <= (5 if allow_views else 4)
        and 0 not in X.shape
        and all(abs(float(x)) <= LARGEST_PIXEL for x in X.flat)
    )
    if not readable:
        refusal(read, X, allow_views=allow_views)
        return
    with warnings.catch_warnings():
        if X.ndim == 2:
            warnings.filterwarnings("ignore", ".*rows are padded", UserWarning)
        batch = load_batch(read(X, allow_views=allow_views))
    assert np.isfinite(batch).all()
    rows = batch.reshape(len(X), -1)
    n_features = X[0].size
    assert_allclose(  # a float16 may be as small as float32's rounding unit
        rows[:, :n_features], X.reshape(len(X), -1).astype(float), rtol=1e-7, atol=1e-37
    )
    assert not rows[:, n_features:].any()
    assert X.tobytes() == before


@examples
@given(shape=st.tuples(*[st.integers(1, 30)] * 2), dtype=st.sampled_from(NUMBERS))
def test_padding_warns_and_nothing_else_does(shape, dtype):
    X = np.ones(shape, dtype)
    side = int(np.ceil(np.sqrt(shape[1])))
    if side**2 == shape[1]:
        images = read(X)
    else:
        with pytest.warns(UserWarning, match=r"rows are padded .*image_shape="):
            images = read(X)
    assert images.shape == (shape[0], side, side, 1)
    assert images.sum(dtype=np.float64) == X.size


@examples
@given(data=st.data(), shape=st.tuples(*[st.integers(1, 4)] * 4))
def test_flat_rows_grey_images_and_images_are_the_same(data, shape):
    X = data.draw(small_numbers(st.just(shape)))
    rows = X.reshape(len(X), -1)
    assert_array_equal(read(rows, image_shape=shape[1:]), X)
    if shape[3] == 1:
        assert_array_equal(read(rows, image_shape=list(shape[1:3])), X)
        assert_array_equal(read(X[..., 0], image_shape=shape[1:3]), X)


@examples
@given(data=st.data(), shape=st.tuples(*[st.integers(1, 4)] * 4))
def test_rows_and_images_may_change_places_after_fit(data, shape):
    X = data.draw(small_numbers(st.just(shape)))
    rows = X.reshape(len(X), -1)
    fitted_on_images, fitted_on_rows = BaseEstimator(), BaseEstimator()
    validate_images(fitted_on_images, X, reset=True)
    validate_images(fitted_on_rows, rows, image_shape=shape[1:], reset=True)
    for estimator in (fitted_on_images, fitted_on_rows):
        assert estimator.n_features_in_ == X[0].size
        assert_array_equal(validate_images(estimator, X, reset=False), X)
        assert_array_equal(validate_images(estimator, rows, reset=False), X)
        more = np.hstack([rows, rows])
        with pytest.raises(ValueError, match=rf"{more.shape[1]} features, but"):
            validate_images(estimator, more, reset=False)
        message = refusal_after_fit(estimator, np.concatenate([X, X], axis=1))
        assert re.search(r"fitted on .*\. Resize or crop", message)


def refusal_after_fit(estimator, X):
    with pytest.raises(ValueError, match="X has images of shape") as caught:
        validate_images(estimator, X, reset=False)
    return str(caught.value)


def test_a_single_colour_image_in_place_of_several_is_told_so():
    estimator = BaseEstimator()
    validate_images(estimator, np.zeros((2, 5, 5, 3)), reset=True)
    message = refusal_after_fit(estimator, np.zeros((5, 5, 3)))
    assert "single image as X[np.newaxis]" in message


# Tables

NUMERIC_COLUMNS = [
    lambda x: pd.Series(x, dtype="int16"),
    lambda x: pd.Series(x, dtype="float64"),
    lambda x: pd.Series(x, dtype="float32"),
    lambda x: pd.Series(x, dtype="uint8"),
    lambda x: pd.Series(x > 1),
    lambda x: pd.Series(x > 1, dtype="boolean"),
    lambda x: pd.Series(x, dtype="Int64"),
    lambda x: pd.Series(x, dtype="UInt8"),
    lambda x: pd.Series(x, dtype="Float32"),
    lambda x: pd.Series(x, dtype=object),
    lambda x: pd.Series(pd.Categorical(x)),
]
OTHER_COLUMNS = [
    lambda x: pd.Series(x.astype(str)),
    lambda x: pd.Series(x.astype(str), dtype=object),
    lambda x: pd.Series(pd.Categorical(x.astype(str))),
    lambda x: pd.Series(pd.to_datetime(x)),
    lambda x: pd.Series(pd.to_timedelta(x)),
    lambda x: pd.Series(x, dtype=complex),
    lambda x: pd.Series(x, dtype="Int64").where(x > 10),
    lambda x: pd.Series(x, dtype="Float64").where(x > 10),
    lambda x: pd.Series(x, dtype=float).where(x > 10),
    lambda x: pd.Series(x, dtype=object).where(x > 10, None),
    lambda x: pd.Series(x, dtype=object).where(x > 10, pd.NA),
    lambda x: pd.Series(pd.period_range("2020", periods=len(x), freq="D")),
    lambda x: pd.Series(x, dtype=float) + np.inf,
]


def table(values, columns):
    return pd.DataFrame(
        {
            f"pixel{i}": column(values[:, i])
            for i, column in enumerate(columns[: values.shape[1]])
        }
    )


columns = st.lists(st.sampled_from(NUMERIC_COLUMNS), min_size=4, max_size=4)
pixel_values = hnp.arrays(np.int64, (3, 4), elements=st.integers(0, 9))


@examples
@given(values=pixel_values, columns=columns)
def test_a_table_of_numeric_columns_is_read_as_its_numbers(values, columns):
    X = table(values, columns)
    before = X.copy(deep=True)
    estimator = BaseEstimator()
    batch = load_batch(validate_images(estimator, X, reset=True))
    expected = [[float(x) for x in row] for row in X.itertuples(index=False)]
    assert_array_equal(batch.reshape(3, 4), expected)
    assert list(estimator.feature_names_in_) == list(X.columns)
    pd.testing.assert_frame_equal(X, before)
    assert_array_equal(batch, load_batch(validate_images(estimator, X, reset=False)))


@examples
@given(
    values=pixel_values,
    columns=columns,
    other=st.sampled_from(OTHER_COLUMNS),
    position=st.integers(0, 3),
)
def test_a_table_with_a_column_of_anything_else_is_refused(
    values, columns, other, position
):
    columns[position] = other
    refusal(read, table(values, columns))
    refusal(read, table(values, [other] * 4))


@pytest.mark.parametrize(
    "X", [pd.DataFrame(), pd.DataFrame(index=[0, 1]), pd.DataFrame(columns=["a"])]
)
def test_an_empty_table_is_refused(X):
    assert "at least one image of at least one pixel" in refusal(read, X)


def test_a_table_with_columns_of_one_name_is_refused():
    X = pd.DataFrame(np.zeros((2, 4)), columns=list("abba"))
    with pytest.raises(ValueError, match="unique column names"):
        read(X)


# Refused: objects and arrays that are no images

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text(max_size=3)
    | st.binary(max_size=3)
    | st.dates()
    | st.timedeltas()
    | st.decimals()
    | st.fractions()
    | st.sampled_from([pd.NA, pd.NaT, np.float32(1), np.array(2), {"a": 1}, {1, 2}])
)
nested = st.recursive(
    leaves, lambda x: st.lists(x, max_size=4) | st.tuples(x, x), max_leaves=20
)


@examples
@given(X=nested)
def test_nested_lists_of_anything_are_read_or_refused(X):
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*rows are padded", UserWarning)
            images = read(X, allow_views=True)
    except (ValueError, TypeError):
        refusal(read, X, allow_views=True)
        return

    def numbers(part):
        if isinstance(part, list | tuple):
            return [x for p in part for x in numbers(p)]
        assert not isinstance(part, str | bytes | complex)
        return [np.float32(float(part))]

    n_padded = images[0].size - len(numbers(X)) // len(X)
    expected = [[*numbers(row), *[0] * n_padded] for row in X]
    assert_array_equal(load_batch(images).reshape(len(X), -1), expected)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize(
    "value",
    [
        None,
        "1",
        b"1",
        bytearray(b"1"),
        memoryview(b"1"),
        1j,
        np.complex64(1),
        10**400,
        10**39,
        np.longdouble("1e30"),
        float("nan"),
        float("-inf"),
        pd.NA,
        pd.NaT,
        np.datetime64("2020-01-01"),
        np.timedelta64(1, "s"),
        datetime.date(2020, 1, 1),
        {"pixel": 1},
        [1],
    ],
)
def test_an_object_that_is_no_pixel_is_refused(value, axes):
    X = np.ones(2**axes, dtype=object)
    X[1] = value
    X = X.reshape((2,) * axes) if axes > 2 else X.reshape(1, 4)
    refusal(read, X)
    if not isinstance(value, bytearray | memoryview):  # NumPy makes pixels of these
        refusal(read, X.tolist())


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (None, "object of type NoneType"),
        (3, "object of type int"),
        ("pixels", r"object of type str.* load_image_files\(X\)"),
        (Path("folder"), r"object of type .*Path.* load_image_files\(X\)"),
        (["a.png", "b.png"], r"got 'a.png'.*ImageReader\(\(64, 64\)\)"),
        ([Path("a.png")], r"got .*a.png.*ImageReader\(\(64, 64\)\)"),
        (pd.Series(["a.png", "b.png"]), "got 'a.png'.*ImageReader"),
        (pd.DataFrame({"path": ["a.png"]}), "got 'a.png'.*ImageReader"),
        ([(np.eye(3), 1), (np.eye(3), 0)], r"labels in .* list.*np.stack, zip\("),
        (PairsInBatches(), "labels in .* PairsInBatches.* np.concatenate"),
        (
            tf.data.Dataset.from_tensors((np.eye(4), 1)),
            r"tf.data.Dataset.* zip\(\*dataset.as_numpy_iterator\(\)\).*unbatch\(\)",
        ),
        (b"pixels", "object of type bytes"),
        ({"a": [1]}, "object of type dict"),
        ({1, 2}, "object of type set"),
        (object(), "object of type object"),
        (np.float32(3), "object of type float32"),
        (np.array(3), "object of type ndarray"),
        (iter([[1]]), r"object of type list_iterator.* list\(X\)"),
        ((row for row in [[1]]), r"object of type generator.* list\(X\)"),
        (iter(int, 1), r"object of type callable_iterator.* list\(X\)"),  # endless
        (np.zeros(4), r"got \(4,\). Reshape your data: X.reshape\(1, -1\)"),
        (pd.Series([1, 2]), r"got \(2,\). Reshape your data"),
        ([np.zeros((2, 2)), np.zeros((3, 2))], r"one shape.*Resize or crop"),
        ([[1, 2], [3]], "one shape.*Resize or crop"),
        ([[[1, 2], [3, 4]], [[1, 2], [3]]], "one shape.*Resize or crop"),
        (np.array([np.eye(2), None], object), r"got \(2,\).*np.stack"),
        ([], "0 sample"),
        ([[], []], r"0 feature.*\(2, 0\)"),
        (np.zeros((2, 3, 3, 0)), "0 feature.*at least one pixel"),
        (np.zeros((1,) * 6), r"got \(1, 1, 1, 1, 1, 1\)"),
        (OnTheDevice(np.eye(4)), "OnTheDevice does not .*requires grad.*NumPy array"),
        (np.full((2, 2, 2), "1"), "got <U1. Convert .*astype"),
        (np.full((1, 4), 1j), r"Complex data not supported.*np.abs\(X\)"),
        (np.zeros((1, 4), "M8[s]"), r"got datetime64\[s\]. Convert"),
        (np.zeros((1, 4), "m8[s]"), r"got timedelta64\[s\]. Convert"),
        (np.zeros((1, 4), [("r", "u1")]), r"got \[\('r', 'u1'\)\]. Convert"),
        (np.full((1, 4), 1e39), r"from -1e\+19 to 1e\+19.*got numbers .* 1e\+39"),
        (np.full((1, 4), np.longdouble("1e400")), r"to 1e\+400\. Divide"),
        (np.full((1, 4), 2**64 - 1, ">u8"), "to 18446744073709551615. Divide"),
        (np.full((1, 4), 10**400, object), "larger .*too large to convert.* Divide"),
        (np.full((1, 4), np.inf, np.float16), "infinity. Clip"),
        (np.full((1, 4), -np.inf, np.float16), "infinity. Clip"),
        (np.full((1, 4), np.nan, "g"), "NaN. Fill in"),
    ],
)
def test_what_is_no_images_is_refused_in_words(X, message):
    if isinstance(X, np.ndarray) and X.dtype == np.float64 and "e+400" in message:
        pytest.skip("longdouble is double on this platform")
    assert re.search(message, refusal(read, X))


@examples
@given(X=small_numbers(), data=st.data())
def test_masked_pixels_are_refused_and_none_masked_is_an_array(X, data):
    mask = data.draw(hnp.arrays(bool, X.shape))
    masked = np.ma.array(X, mask=mask)
    if mask.any():
        assert "X.filled(value)" in refusal(read, masked)
        assert "X.filled(value)" in refusal(read, list(masked))
        assert "X.filled(value)" in refusal(read, tuple(masked))
        assert_array_equal(
            read(masked.filled(1)), read(np.where(mask, X.dtype.type(1), X))
        )
    else:
        assert_array_equal(read(masked), read(X))


@pytest.mark.parametrize("kind", ["matrix", "array"])
@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr", "dia", "dok", "lil"])
def test_sparse_matrices_are_refused_with_the_remedy(form, kind):
    X = getattr(scipy.sparse, f"{form}_{kind}")(np.eye(4))
    with pytest.raises(TypeError, match=r"[Ss]parse.*X\.toarray\(\)"):
        read(X)


@pytest.mark.parametrize("shape", [(4,), (2, 2, 2), (2, 2, 2, 1)])
def test_sparse_arrays_of_any_dimension_are_refused_with_the_remedy(shape):
    with pytest.raises(TypeError, match=r"[Ss]parse.*X\.toarray\(\)"):
        read(scipy.sparse.coo_array(np.ones(shape)))


# The shape of images in rows

numbers = st.integers(-1, 12) | st.booleans()
sizes = numbers | st.floats() | st.none() | st.text()
shapes_of_twelve = [(3, 4), [3, 4], (2, 3, 2), (12, 1), (0, 12), (True, 12), (-3, -4)]


@examples
@given(
    image_shape=st.sampled_from(shapes_of_twelve)
    | st.lists(numbers, min_size=2, max_size=3).map(tuple)
    | st.lists(sizes, max_size=4)
    | sizes,
    X=st.sampled_from([np.zeros((2, 12)), np.zeros((2, 3, 4)), np.zeros((2, 2, 3, 2))]),
)
def test_any_image_shape_fits_or_is_refused(image_shape, X):
    if image_shape is None:
        return
    valid = (
        isinstance(image_shape, tuple | list)
        and len(image_shape) in (2, 3)
        and all(type(n) is int and n > 0 for n in image_shape)
    )
    shape = (*image_shape, 1)[:3] if valid else None
    if (
        valid
        and math.prod(shape) == 12
        and (X.ndim == 2 or shape == (*X.shape, 1)[1:4])
    ):
        assert read(X, image_shape=image_shape).shape == (2, *shape)
    else:
        message = refusal(read, X, image_shape=image_shape)
        assert message.startswith(
            "image_shape=" if valid else "image_shape must be (height, width)"
        )


def test_image_shape_may_hold_numpy_integers():
    images = read(np.zeros((2, 12)), image_shape=tuple(np.array([3, 4])))
    assert images.shape == (2, 3, 4, 1)


# Numbers of any size


@examples
@given(
    value=st.floats(LARGEST_PIXEL, exclude_min=True, allow_infinity=False),
    sign=st.sampled_from([-1, 1]),
    dtype=st.sampled_from([">f8", "d", "g", object]),
)
def test_what_float32_arithmetic_does_not_hold_is_refused(value, sign, dtype):
    X = np.array([[0, 1, 2, sign * value]], dtype)
    assert re.search("from .* to .*Divide", refusal(read, X))


any_number = st.floats(-LARGEST_PIXEL, LARGEST_PIXEL) | st.integers(-(2**63), 2**63 - 1)


@examples
@given(
    X=hnp.arrays(np.float64, (3, 2, 2, 2), elements=any_number.map(float))
    | hnp.arrays(
        np.float32, (3, 2, 2, 1), elements=st.floats(-(2.0**50), 2.0**50, width=32)
    )
    | hnp.arrays(np.uint64, (3, 2, 2, 1), elements=st.integers(0, 10**19))
    | hnp.arrays(np.int64, (3, 2, 2, 1), elements=st.integers(10**9, 10**9 + 5))
)
def test_whatever_is_read_is_standardised_to_small_numbers(X):
    images = read(X)
    distinct = distinct_images(images, np.arange(len(images)))
    mean, scale = np.float32(distinct.mean), np.float32(distinct.scale)
    assert np.isfinite(np.float32(scale) ** 2).all()
    standardised = (load_batch(images) - mean) / np.maximum(scale, np.float32(1e-7))
    # No value lies further than sqrt(n - 1) deviations from the mean of n.
    assert np.abs(standardised).max() <= np.sqrt(12) + 0.5


def test_statistics_are_those_of_the_numbers_that_are_read():
    X = 10**9 + np.array([[31, 33], [31, 33]]).reshape(2, 2, 1, 1)  # 0 and 64 apart
    distinct = distinct_images(X, np.arange(2))
    assert_array_equal([distinct.mean, distinct.scale], [[1e9 + 32], [32]])


def test_scikit_learn_may_be_told_not_to_look_at_the_values():
    X = np.full((2, 4), np.nan)
    with config_context(assume_finite=True):
        assert read(X).shape == (2, 2, 2, 1)


# Large arrays


def test_a_terabyte_of_bytes_is_not_looked_at():
    X = np.broadcast_to(np.uint8(7), (10**6, 1000, 1000, 1))
    start = time.perf_counter()
    assert read(X).shape == X.shape
    assert read(X.reshape(10**6, 1, 1000, 1000)[:, 0]).shape == X.shape
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("dtype", ["f", "d", "g", ">f8", "Q"])
def test_numbers_are_looked_at_where_they_lie(dtype, tmp_path):
    X = np.memmap(tmp_path / "x", dtype, "w+", shape=(1000, 20, 20, 3))
    tracemalloc.start()
    try:
        images = read(X)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.shares_memory(images, X)
    assert peak < X.nbytes / 4


# Rotation

square_images = st.tuples(*[st.integers(1, 4)] * 3).map(lambda s: (s[0], s[1], *s[1:]))
some_angles = st.lists(
    st.sampled_from([0, 90, 180, 270]), min_size=2, max_size=4, unique=True
).map(tuple)


@examples
@given(
    X=small_numbers(square_images),
    container=st.sampled_from(CONTAINERS),
    angles=some_angles,
    full_turns=st.integers(-2, 2),
)
def test_views_are_those_of_rot90(X, container, angles, full_turns):
    before = X.copy()
    angles = tuple(angle + 360 * full_turns for angle in angles)
    pretext = RotationPretext(angles)
    views = pretext.fit_transform(container(X))
    assert pretext.image_shape_ == X.shape[1:]
    if container is np.asarray:
        assert views.dtype == X.dtype
    assert views.shape == (len(X), len(angles), *X.shape[1:])
    assert views.flags.writeable
    assert not np.shares_memory(views, X)
    for k, angle in enumerate(angles):
        expected = [np.rot90(image, angle // 90) for image in X.astype(np.float64)]
        assert_array_equal(views[:, k].astype(np.float64), expected)
    assert_array_equal(X, before)
    X_task, y_task = RotationPretext(angles).make_task(container(X))
    assert_array_equal(X_task, views.reshape(-1, *X.shape[1:]))
    assert_array_equal(y_task, np.tile(np.arange(len(angles)), len(X)))


@few_examples
@given(
    X=hnp.arrays(st.sampled_from("FMSU").map(np.dtype), (1, 2, 2), fill=st.nothing())
    | st.sampled_from([None, 3, "x", [[1], [2, 3]], np.zeros((1, 2, 2, 2, 1))])
)
def test_rotation_refuses_what_is_no_images(X):
    for refused in (RotationPretext().fit, RotationPretext().make_task):
        refusal(refused, X)


@pytest.mark.parametrize("angles", [None, 90, "0 90", {0, 90}, iter([0, 90])])
def test_angles_that_are_no_sequence_are_refused(angles):
    with pytest.raises(TypeError, match="angles must be a tuple .*, got "):
        RotationPretext(angles).fit(np.zeros((1, 2, 2)))


@pytest.mark.parametrize("angle", [True, False, None, 90.5, np.nan, 90j, "90", [90]])
def test_an_angle_that_is_no_multiple_of_90_is_refused(angle):
    with pytest.raises(ValueError, match="angles must be multiples of 90 .*, got "):
        RotationPretext((90, angle)).fit(np.zeros((1, 2, 2)))


# How often they are read


def reductions(call, n_values):
    """Return how often a call reduces an array of so many values, by operation."""
    counts = Counter()

    def count(frame, event, function):
        if event == "c_call" and function.__name__ == "reduce":
            arrays = [x for x in frame.f_locals.values() if isinstance(x, np.ndarray)]
            if any(x.size >= n_values for x in arrays):
                counts[function.__self__.__name__] += 1

    sys.setprofile(count)
    try:
        call()
    finally:
        sys.setprofile(None)
    return counts


# More pixels than are read at once for the statistics, which are not counted here.
LARGE = np.random.default_rng(0).random((40, 128, 128), dtype=np.float32)


@pytest.mark.parametrize(
    ("X", "times"), [(LARGE, 1), ((255 * LARGE).astype(np.uint8), 0)]
)
def test_images_are_looked_through_once_per_fit(X, times, tiny):
    params = {"image_shape": (128, 128), "random_state": 0}
    encoder = SelfSupervisedEncoder(tiny, epochs=1, **params)
    classifier = two_stages(tiny, pretrain_epochs=1, **params)
    y = np.arange(len(X)) % 2
    once = {"minimum": 1, "maximum": 1} if times else {}
    assert reductions(lambda: encoder.fit(X), X.size) == once
    assert reductions(lambda: classifier.fit(X, y), X.size) == once
    rows = X.reshape(len(X), -1)
    assert reductions(lambda: classifier.partial_fit(rows, y), X.size) == once
    assert reductions(lambda: classifier.predict(rows), X.size) == once


# A fitted network

N_IMAGES, SIDE = 12, 6
PIXELS = np.random.default_rng(0).integers(0, 100, (N_IMAGES, SIDE, SIDE, 1))


@pytest.fixture(scope="module")
def small_classifier(tiny):
    classifier = two_stages(tiny, pretrain_epochs=1, random_state=0)
    return classifier.fit(PIXELS, np.arange(N_IMAGES) % 3)


@few_examples
@given(
    dtype=st.sampled_from([d for d in NUMBERS + SWAPPED if d.kind != "b"]),
    layout=st.sampled_from(LAYOUTS),
    container=st.sampled_from([*CONTAINERS, pd.DataFrame]),
    shape=st.sampled_from([PIXELS.shape, PIXELS.shape[:3], (N_IMAGES, SIDE * SIDE)]),
)
def test_the_same_pixels_have_the_same_probabilities(
    small_classifier, dtype, layout, container, shape
):
    expected = small_classifier.predict_proba(PIXELS)
    if container is pd.DataFrame:
        shape = (N_IMAGES, SIDE * SIDE)
        dtype = np.dtype("float64") if dtype.char == "e" else dtype
    X = container(layout(PIXELS.reshape(shape).astype(dtype)))
    assert_array_equal(small_classifier.predict_proba(X), expected)


NOT_IMAGES = [
    np.full((2, SIDE, SIDE), np.nan),
    np.full((2, SIDE, SIDE), np.inf),
    np.full((2, SIDE, SIDE), 1e39),
    np.full((2, SIDE, SIDE), -1e30, np.float32),
    np.full((2, SIDE, SIDE), 10**400, object),
    np.full((2, SIDE * SIDE), "1"),
    np.full((2, SIDE * SIDE), "1", object),
    np.full((2, SIDE * SIDE), 1j),
    np.full((2, SIDE * SIDE), 1, "m8[s]"),
    np.ma.masked_all((2, SIDE, SIDE)),
    scipy.sparse.csr_matrix((2, SIDE * SIDE)),
    np.zeros((0, SIDE, SIDE)),
    np.zeros(SIDE * SIDE),
    None,
    [np.zeros((SIDE, SIDE)), np.zeros((2, SIDE))],
]


@pytest.mark.parametrize("X", NOT_IMAGES, ids=range(len(NOT_IMAGES)))
def test_what_is_no_images_does_not_reach_the_network(small_classifier, X):
    for refused in (small_classifier.predict, small_classifier.transform):
        refusal(refused, X)


def test_pixels_of_any_accepted_size_give_probabilities(small_classifier):
    X = np.stack([PIXELS[0] * 1e15, -PIXELS[1] * 1e15, PIXELS[2] * 1e-40])
    assert_allclose(small_classifier.predict_proba(X).sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("shape", [(N_IMAGES, 36), (N_IMAGES, 6, 6)])
def test_a_classifier_fitted_on_one_form_predicts_the_other(shape, small_classifier):
    y = np.arange(N_IMAGES) % 3
    classifier = two_stages(
        small_classifier.estimator, pretrain_epochs=1, random_state=0
    ).fit(PIXELS.reshape(shape), y)
    expected = small_classifier.predict_proba(PIXELS)
    assert_array_equal(classifier.predict_proba(PIXELS), expected)
    assert_array_equal(classifier.predict_proba(PIXELS.reshape(-1, 36)), expected)
    with pytest.raises(ValueError, match="35 features, but .* expecting 36"):
        classifier.predict(np.zeros((2, 35)))
    with pytest.raises(ValueError, match=r"\(6, 5, 1\).* fitted on .*\(6, 6, 1\)"):
        classifier.predict(np.zeros((2, 6, 5)))
