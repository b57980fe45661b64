"""LazyImages: images that stay where they are until rows of them are needed."""

import math

import numpy as np
from scipy.sparse import issparse


class LazyImages:
    """Images in a file or another store, of which only the needed rows are read.

    Estimators of this package read such images a block at a time. Indexing with rows,
    as cross-validation does, gives the rows as LazyImages again, without reading them.
    So all folds share the one file. With one number it gives one image, and
    `numpy.asarray` reads all rows.

    Estimators read h5py datasets, zarr arrays and dask arrays a block at a time
    without this class, too. It is for cross-validation and searches, where
    scikit-learn would copy each fold into memory.

    Parameters
    ----------
    data : array-like of shape (n_samples, ...)
        Images or flat rows, with `shape`, `dtype` and `__getitem__` of rows: a memory
        map of NumPy, an h5py dataset, a zarr array, a dask array. To be sent to other
        processes it must be one that can be pickled, as h5py datasets cannot.

    Attributes
    ----------
    shape : tuple of int
        Shape of the images.
    dtype : numpy.dtype
        Type of the pixels.

    Raises
    ------
    TypeError
        If `data` is no array-like of numbers.

    See Also
    --------
    load_image_files : Decodes image files into one file, which it maps into memory.

    Examples
    --------
    >>> import numpy as np
    >>> from skssl import LazyImages
    >>> X = LazyImages(np.zeros((100, 8, 8), dtype="uint8"))
    >>> X[[3, 5, 9]].shape
    (3, 8, 8)
    >>> X[0].shape
    (8, 8)
    """

    def __init__(self, data):
        if not isinstance(data, np.ndarray | LazyImages) and not is_array_like(data):
            raise TypeError(
                "data must hold rows of numbers, with a shape and a dtype of NumPy, as "
                "memory maps, h5py datasets, zarr and dask arrays do, got an object of "
                f"type {type(data).__name__}."
            )
        self._data = data
        self._rows = np.arange(data.shape[0])
        self._view = None
        self._check = None
        self._image_shape = tuple(data.shape[1:])

    @property
    def dtype(self):
        """Type of the pixels."""
        return np.dtype(self._data.dtype)

    @property
    def shape(self):
        """Shape of the images."""
        return (len(self), *self._image_shape)

    @property
    def ndim(self):
        """Number of axes."""
        return 1 + len(self._image_shape)

    def __len__(self):
        return len(self._rows)

    def __repr__(self):
        return f"LazyImages(shape={self.shape}, dtype={self.dtype})"

    def __getitem__(self, key):
        """Return rows, unread, or one image, read.

        Parameters
        ----------
        key : int, slice, or array-like of int or bool
            One row, or several. A number may follow that chooses one of the views.

        Returns
        -------
        images : LazyImages or ndarray
            The rows, or one image.
        """
        key, *others = key if isinstance(key, tuple) else (key,)
        others = [x for x in others if x is not Ellipsis]
        if len(others) > 1 or (others and not isinstance(others[0], int)):
            raise IndexError(
                "LazyImages gives rows alone. numpy.asarray(images[rows]) can be "
                "indexed further."
            )
        if isinstance(key, list):
            key = np.asarray(key, dtype=None if key else int)
        rows = self._rows[key]
        chosen = self._copy(_rows=np.atleast_1d(rows))
        if others:
            chosen = chosen._copy(_view=others[0], _image_shape=self._image_shape[1:])
        return chosen if np.ndim(rows) else np.asarray(chosen)[0]

    def _copy(self, **changes):
        copy = object.__new__(LazyImages)
        vars(copy).update(vars(self), **changes)
        return copy

    def __array__(self, dtype=None, copy=None):
        """Read all rows."""
        images = self._read()
        if self._check is not None:
            self._check(images)
        if self._view is not None:
            images = images[:, self._view]
        images = reshaped_rows(images, self._image_shape)
        return images if dtype is None else images.astype(dtype, copy=False)

    def _read(self):
        """Return the rows as they are stored."""
        rows, data = self._rows, self._data
        if not len(rows):
            return np.empty((0, *data.shape[1:]), self.dtype)
        start, stop = rows[0], rows[-1] + 1
        if stop - start == len(rows) and (np.diff(rows) == 1).all():
            return np.asarray(data[start:stop])
        # Stores give increasing rows alone, each of them once.
        rising, where = np.unique(rows, return_inverse=True)
        found = np.asarray(data[rising])
        return found if np.array_equal(rising, rows) else found[where]


def with_image_shape(images, image_shape):
    """Return lazy images with another shape of an image; short rows are padded."""
    return images._copy(_image_shape=tuple(image_shape))


def with_check(images, check):
    """Return lazy images whose rows are given to a function when they are read."""
    return images._copy(_check=check)


def is_array_like(X):
    """Whether X holds rows of numbers, and gives some of them, without being an array.

    A DataFrame or a list is in memory already, and becomes an array as it is.
    """
    return (
        not isinstance(X, np.ndarray | np.generic)
        and not issparse(X)
        and not hasattr(X, "iloc")
        and hasattr(X, "__getitem__")
        and len(getattr(X, "shape", ())) > 1
        and isinstance(getattr(X, "dtype", None), np.dtype)
        and X.dtype.kind in "buif"
    )


def reshaped_rows(rows, image_shape):
    """Return rows as images of a shape, padded with zeros where they are short."""
    flat = math.prod(rows.shape[1:])
    missing = math.prod(image_shape) - flat
    if missing > 0:
        rows = np.pad(rows.reshape(len(rows), flat), ((0, 0), (0, missing)))
    return rows.reshape(len(rows), *image_shape)
