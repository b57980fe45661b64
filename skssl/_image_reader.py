"""ImageReader: image files in a pipeline."""

import os
from contextlib import closing

import numpy as np
from joblib import effective_n_jobs
from sklearn.base import BaseEstimator, TransformerMixin

from ._data.decoding import Decoding, decode_files, unreadable
from ._docs import fill_docstrings


@fill_docstrings
class ImageReader(TransformerMixin, BaseEstimator):
    """Transformer that reads image files, as the first step of a pipeline.

    X are paths, and the result are images of one shape, which the next step takes. In
    cross-validation and predictions of new files the pipeline takes paths, too. Files
    are read anew in each call. :func:`~skssl.load_image_files` reads a whole folder
    once.

    Parameters
    ----------
    {shape_of_read_images}
    {color_of_files}
    {resize_of_files}
    n_jobs : int, default=None
        How many files to decode at once, in threads; -1 means one for each core. None
        is 1, unless in a :func:`joblib.parallel_config` context.

    See Also
    --------
    load_image_files : Loads the images in a folder, with labels and a cache.
    SelfSupervisedClassifier : Learns from labelled and unlabelled images.

    Notes
    -----
    {decoding_of_files}

    `fit` learns nothing, so `transform` works without it.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from skssl import ImageReader
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "image.png")
    ...     Image.new("RGB", (40, 30)).save(path)
    ...     images = ImageReader((32, 32)).fit_transform([path, path])
    >>> images.shape
    (2, 32, 32, 3)
    """

    def __init__(
        self, image_shape=(64, 64), *, color="rgb", resize="crop", n_jobs=None
    ):
        self.image_shape = image_shape
        self.color = color
        self.resize = resize
        self.n_jobs = n_jobs

    def fit(self, X, y=None):
        """Check the parameters, and that X are paths; no file is read.

        Parameters
        ----------
        {paths}
        {y_ignored}

        Returns
        -------
        self : object
            The transformer.

        Raises
        ------
        ValueError
            If a parameter has another value, or if X is not one column.
        TypeError
            If X holds anything but paths.
        """
        Decoding(self.image_shape, self.color, self.resize)
        _as_paths(X)
        return self

    def transform(self, X):
        """Read the files.

        Parameters
        ----------
        {paths}

        Returns
        -------
        images : ndarray of shape (n_samples, height, width, channels), uint8
            The image of each.

        Raises
        ------
        ValueError
            If a file cannot be read, if a parameter has another value, or if X is not
            one column.
        TypeError
            If X holds anything but paths.
        """
        decoding = Decoding(self.image_shape, self.color, self.resize)
        paths = _as_paths(X)
        images = np.empty((len(paths), *decoding.shape), np.uint8)
        n_threads = effective_n_jobs(self.n_jobs)
        with closing(decode_files(paths, decoding, n_threads)) as results:
            for row, (image, error) in enumerate(results):
                if error is not None:
                    raise ValueError(unreadable(paths[row], error)) from error
                images[row] = image
        return images

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _as_paths(X):
    """Return X as an array of paths."""
    if isinstance(X, str | os.PathLike):
        raise TypeError(
            "X must be a list, array, Series or DataFrame of paths, got the path "
            f"{X!r}. Give one path as [path]."
        )
    paths = np.asarray(X, dtype=object)
    if paths.ndim == 2 and paths.shape[1] == 1:
        paths = paths[:, 0]
    if paths.ndim != 1 or not len(paths):
        raise ValueError(
            f"X must hold at least one path, in one column, got shape {paths.shape}. "
            "Give the paths of an iterator as list(X), and one column of a DataFrame "
            "as X[[name]]."
        )
    for row, path in enumerate(paths):
        if not isinstance(path, str | os.PathLike):
            raise TypeError(
                f"X must hold paths, as text or pathlib.Path, got {path!r} of type "
                f"{type(path).__name__} in row {row}."
            )
    return paths
