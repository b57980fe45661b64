"""Images that are read by rows: what is read, and that nothing else depends on it."""

import pickle

import dask.array
import h5py
import numpy as np
import pytest
import zarr
from joblib import Parallel, delayed
from networks import two_stages
from numpy.testing import assert_array_equal
from sklearn.datasets import load_digits
from sklearn.model_selection import KFold, cross_val_score

from skssl import LazyImages, PredictionDisplay, RotationPretext
from skssl._data.images import as_images
from skssl._data.training_set import distinct_images

X, Y = load_digits(return_X_y=True)
X, Y = X[:120].astype("uint8").reshape(-1, 8, 8), Y[:120]


class Store:
    """Gives rows as h5py does, increasing and each once, and notes how many."""

    def __init__(self, values, largest=None):
        self.values, self.largest, self.reads = values, largest, []
        self.shape, self.dtype = values.shape, values.dtype

    def __getitem__(self, rows):
        found = self.values[rows]
        if not isinstance(rows, slice):
            assert (np.diff(rows) > 0).all()
        self.reads.append(len(found))
        assert self.largest is None or len(found) <= self.largest
        return found

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("read as a whole")


@pytest.mark.parametrize("shape", [(8, 8), (64,), (4, 4, 4), (2, 4, 4, 2)])
@pytest.mark.parametrize(
    "rows",
    [
        slice(None),
        slice(3, 9),
        slice(90, 3, -7),
        [5, 3, 3, 100],
        np.array([7]),
        np.array([], dtype=int),
        [],
        np.arange(120) % 3 == 0,
        [True] * 60 + [False] * 60,
        np.array([-1, -120, 0]),
        range(4, 8),
    ],
    ids=repr,
)
def test_rows_are_those_of_an_array(shape, rows):
    values = X.reshape(-1, *shape)
    lazy = LazyImages(Store(values))
    expected = values[list(rows) if isinstance(rows, range) else rows]
    assert lazy[rows].shape == expected.shape and lazy[rows].dtype == expected.dtype
    assert lazy[rows, ...].ndim == expected.ndim
    assert_array_equal(lazy[rows], expected)
    again = lazy[50:][::2]
    assert_array_equal(again[-3:], values[50:][::2][-3:])
    assert_array_equal(LazyImages(lazy[10:90])[[4, 2]], values[10:90][[4, 2]])


def test_one_row_is_an_image():
    lazy = LazyImages(Store(X))
    assert isinstance(lazy[5], np.ndarray)
    assert_array_equal(lazy[5], X[5])
    assert_array_equal(lazy[::-1][np.int64(-1)], X[0])
    assert len(list(lazy)) == len(X)
    with pytest.raises(IndexError):
        lazy[len(X)]
    with pytest.raises(IndexError, match="gives rows alone"):
        lazy[:, 2:4]


def test_indexing_reads_nothing():
    store = Store(X)
    lazy = LazyImages(store)
    for train, test in KFold(3, shuffle=True, random_state=0).split(lazy):
        assert lazy[train].shape == (80, 8, 8) and len(lazy[test]) == 40
    assert store.reads == []


def test_views_of_an_image_are_chosen_by_a_number():
    values = X.reshape(-1, 2, 4, 4, 2)
    images = as_images(Store(values), allow_views=True)
    assert images[:, 0].shape == (120, 4, 4, 2)
    assert_array_equal(images[:, 1][[3, 1]], values[[3, 1], 1])


@pytest.mark.parametrize(
    ("values", "image_shape"),
    [
        (X, None),
        (X[..., None], None),
        (X.reshape(-1, 64), None),
        (X.reshape(-1, 64), (4, 16)),
        (X.reshape(-1, 64), (4, 4, 4)),
        (X.astype(">i2"), None),
        (X / 16, None),
        (X.astype(bool), None),
        (X.astype("uint64"), None),
    ],
)
def test_they_become_the_images_that_an_array_becomes(values, image_shape):
    images = as_images(Store(values), image_shape=image_shape)
    expected = as_images(values, image_shape=image_shape)
    assert isinstance(images, LazyImages)
    assert images.shape == expected.shape and images.dtype == expected.dtype
    assert_array_equal(images, expected)


@pytest.mark.filterwarnings("ignore:X has 63 features")
def test_short_rows_are_padded():
    rows = X.reshape(-1, 64)[:, :63]
    images = as_images(Store(rows))
    assert images.shape == (120, 8, 8, 1)
    assert_array_equal(images, as_images(rows))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.where(np.arange(120)[:, None, None] == 99, np.nan, X), "got NaN"),
        (np.where(np.arange(120)[:, None, None] == 7, np.inf, X), "got infinity"),
        (np.where(np.arange(120)[:, None, None] == 99, 1e30, X), "from 0.0 to 1e.30"),
        (np.full((9, 8, 8), 2**64 - 1, "uint64"), "numbers from"),
        (X[:0], "0 sample"),
        (X.reshape(120, 1, 1, 1, 8, 8), "must have shape"),
    ],
)
def test_they_are_refused_as_an_array_is_once_they_are_read(values, message):
    for given in (values, Store(values), LazyImages(values)):
        with pytest.raises(ValueError, match=message):
            images = as_images(given)
            distinct_images(images, np.arange(len(images)), chunk_values=1000)


def test_a_store_that_cannot_be_read_is_refused_at_once():
    class Broken(Store):
        def __getitem__(self, rows):
            raise RuntimeError("the file is closed")

    with pytest.raises(TypeError, match="Broken.*the file is closed"):
        as_images(Broken(X))


@pytest.mark.parametrize("data", [[[1]], "folder", None, {"shape": (3, 4)}, Y])
def test_what_gives_no_rows_is_refused(data):
    if data is Y:
        data = Store(Y)
    with pytest.raises(TypeError, match="data must hold rows of numbers"):
        LazyImages(data)


@pytest.mark.parametrize("values", [X, X / 16])
def test_all_rows_are_looked_at_once_in_blocks(values):
    store = Store(values[..., None], largest=15)
    found = distinct_images(as_images(store), np.arange(120), chunk_values=1000)
    # The first row is read once more, for the type and the form of all.
    assert sum(store.reads) <= 120 + 2
    expected = distinct_images(values[..., None], np.arange(120), chunk_values=1000)
    assert found.digest == expected.digest
    assert_array_equal(found.rows, expected.rows)
    assert_array_equal(found.scale, expected.scale)


def test_a_fit_and_predictions_are_those_of_an_array(quick):
    y = np.where(np.arange(120) < 90, Y, -1)
    classifier = two_stages(quick(), pretrain_epochs=1, random_state=0)
    expected = classifier.fit(X, y).predict_proba(X)
    embeddings = classifier.transform(X)
    store = Store(X, largest=128)  # the size of a batch of predictions
    classifier.fit(store, y)
    assert_array_equal(classifier.predict_proba(store), expected)
    assert_array_equal(classifier.transform(LazyImages(store)), embeddings)
    assert classifier.score_pretext(store) == classifier.score_pretext(X)
    assert_array_equal(classifier.predict_pretext(store), classifier.predict_pretext(X))


def test_scores_of_folds_are_those_of_an_array(quick, tmp_path):
    np.save(tmp_path / "X.npy", X)
    lazy = LazyImages(np.load(tmp_path / "X.npy", mmap_mode="r"))
    classifier = two_stages(quick(), pretrain_epochs=1, random_state=0)
    scores = cross_val_score(classifier, lazy, Y, cv=2)
    assert_array_equal(scores, cross_val_score(classifier, X, Y, cv=2))


def test_they_are_pickled_with_what_they_wrap():
    lazy = LazyImages(X)[[5, 2]]
    assert_array_equal(pickle.loads(pickle.dumps(lazy)), X[[5, 2]])


def mapped_file(lazy):
    """Return the file that another process reads the rows from, and the rows."""
    return str(lazy._data.filename), np.asarray(lazy)


def test_processes_of_joblib_read_the_same_file(tmp_path):
    np.save(tmp_path / "X.npy", X)
    lazy = LazyImages(np.load(tmp_path / "X.npy", mmap_mode="r"))[[5, 2]]
    for found, rows in Parallel(n_jobs=2)(delayed(mapped_file)(lazy) for _ in range(2)):
        assert found == str(tmp_path / "X.npy")
        assert_array_equal(rows, X[[5, 2]])


def test_displays_and_views_read_them():
    display = PredictionDisplay.from_predictions(Store(X), Y, Y, n_samples=4)
    assert isinstance(display.images, np.ndarray)
    views = RotationPretext().fit_transform(Store(X))
    assert_array_equal(views, RotationPretext().fit_transform(X))


def test_datasets_of_h5py_are_read_by_rows(tmp_path):
    with h5py.File(tmp_path / "X.h5", "w") as file:
        images = as_images(file.create_dataset("X", data=X, chunks=(7, 8, 8)))
        assert isinstance(images, LazyImages)
        assert_array_equal(images[[100, 3, 3]], X[[100, 3, 3], ..., None])
        assert_array_equal(images[20:100:3], X[20:100:3, ..., None])


def test_arrays_of_dask_are_computed_by_rows():
    images = as_images(dask.array.from_array(X, chunks=(7, 8, 8)) * 2)
    assert isinstance(images, LazyImages)
    assert_array_equal(images[[100, 3, 3]], 2 * X[[100, 3, 3], ..., None])


def test_arrays_of_zarr_are_read_by_rows(tmp_path):
    values = zarr.open(
        str(tmp_path / "X.zarr"), mode="w", shape=X.shape, chunks=(7, 8, 8), dtype="u1"
    )
    values[:] = X
    images = as_images(values)
    assert isinstance(images, LazyImages)
    assert_array_equal(images[[100, 3, 3]], X[[100, 3, 3], ..., None])
