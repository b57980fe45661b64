"""TrainingSet: the rows of images to train on, and what is known of them.

Equal images count as one, and the order of the rows in X does not matter: training
reads each distinct image once, ordered by content. The weights of equal labelled rows
are added up. So a repeated row is the same as a row of weight 2, bit for bit, and a
shuffled X gives the same network.
"""

import hashlib
import math
from dataclasses import dataclass, replace

import numpy as np
from sklearn.preprocessing import StandardScaler

from .images import load_batch


@dataclass(frozen=True)
class TrainingSet:
    """Rows of images, in the order of their content.

    Attributes
    ----------
    images : ndarray of shape (n_samples, [n_views,] height, width, channels)
        All images, of which only `rows` are read.
    rows : ndarray of shape (n_rows,)
        The rows to train on.
    targets : ndarray of shape (n_rows,), int64, or None
        Class index of each row; None without labels.
    weights : ndarray of shape (n_rows,) or None
        Weight of each row; None if all are 1.
    mean, scale : ndarray of shape (channels,)
        Mean and standard deviation of the pixels of all distinct images, as a network
        reads them, in float32. The deviation of equal pixels is 1.
    digest : str
        Hash of the content, the targets and the weights.
    index : ndarray of shape (n_given,)
        Position in `rows` of each row that was looked at.
    """

    images: np.ndarray
    rows: np.ndarray
    targets: np.ndarray | None = None
    weights: np.ndarray | None = None
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None
    digest: str = ""
    index: np.ndarray | None = None

    def __len__(self):
        return len(self.rows)

    def take(self, positions):
        """Return the set of some of the rows, given by their positions."""
        targets, weights = (
            None if x is None else x[positions] for x in (self.targets, self.weights)
        )
        rows = self.rows[positions]
        return replace(self, rows=rows, targets=targets, weights=weights)

    def joined(self, others):
        """Return the set of these rows and then those of another set."""
        weights = None
        if self.weights is not None or others.weights is not None:
            weights = np.concatenate(
                [
                    np.ones(len(x)) if x.weights is None else x.weights
                    for x in (self, others)
                ]
            )
        parts = self.digest, others.digest, others.rows, others.targets, weights
        content = [x if x is None else np.asarray(x).tobytes() for x in parts]
        return replace(
            self,
            rows=np.concatenate([self.rows, others.rows]),
            targets=np.concatenate([self.targets, others.targets]),
            weights=weights,
            digest=hashlib.blake2b(repr(content).encode()).hexdigest(),
            index=None,
        )

    def labelled(self, given, targets, weights=None, *, scale_weights=True):
        """Return the set of the labelled rows; equal rows of a class become one.

        Parameters
        ----------
        given : ndarray of shape (n_labelled,)
            Which of the rows that were looked at have a label.
        targets : ndarray of shape (n_labelled,), int64
            Class index of each.
        weights : ndarray of shape (n_labelled,), default=None
            Weight of each; None is 1.
        scale_weights : bool, default=True
            Whether to scale the weights to a mean of 1.

        Returns
        -------
        labelled : TrainingSet
            Its weights are the sums of those of equal rows.
        """
        pairs, which = np.unique(
            np.column_stack([self.index[given], targets]), axis=0, return_inverse=True
        )
        weights = np.bincount(which.reshape(-1), weights=weights)
        if scale_weights:
            weights = None if np.ptp(weights) == 0 else weights / weights.mean()
        elif (weights == 1).all():
            weights = None
        content = self.digest, pairs.tolist(), weights is not None and weights.tolist()
        return replace(
            self,
            rows=self.rows[pairs[:, 0]],
            targets=pairs[:, 1],
            weights=weights,
            digest=hashlib.blake2b(repr(content).encode()).hexdigest(),
            index=None,
        )


def distinct_images(images, rows, chunk_values=2**19):
    """Find the distinct images, and the statistics of their pixels, in one pass.

    Parameters
    ----------
    images : ndarray of shape (n_samples, ..., channels)
        Images, read in chunks, so that a memory map stays on disk.
    rows : ndarray of shape (n_given,)
        The rows to look at.
    chunk_values : int, default=2**19
        About how many values to read at once.

    Returns
    -------
    data : TrainingSet
        One row of each distinct image.
    """
    statistics = _PixelStatistics(images.shape[-1])
    step = max(1, chunk_values // math.prod(images.shape[1:]))
    seen, keys = set(), []
    for start in range(0, len(rows), step):
        chunk = load_batch(_read(images, rows[start : start + step]))
        chunk_keys = _content_keys(chunk, chunk[:, 0] if images.ndim == 5 else chunk)
        earliest = {key: k for k, key in reversed(list(enumerate(chunk_keys)))}
        new = sorted(k for key, k in earliest.items() if key not in seen)
        seen.update(chunk_keys)
        if new:
            statistics.add(chunk if len(new) == len(chunk) else chunk[new])
        keys += chunk_keys
    keys, first, index = np.unique(
        # With the two columns of the pattern in the order of earlier versions.
        np.frombuffer(b"".join(keys), np.uint64).reshape(-1, 4)[:, [1, 0, 2, 3]],
        axis=0,
        return_index=True,
        return_inverse=True,
    )
    kind = f"{load_batch(images[:1]).dtype} {images.shape[1:]}"
    return TrainingSet(
        images,
        rows[first],
        mean=statistics.mean,
        scale=statistics.scale,
        digest=hashlib.blake2b(keys.tobytes() + kind.encode()).hexdigest(),
        index=index.reshape(-1),
    )


class _PixelStatistics:
    """Mean and standard deviation of the pixels of each channel.

    Bytes are counted by value, which takes a fraction of the time of a running
    variance.
    """

    def __init__(self, channels):
        self.scaler = StandardScaler()
        self.counts = np.zeros((channels, 256), np.int64)

    def add(self, images):
        """Add the pixels of images, of shape (n_images, ..., channels)."""
        pixels = images.reshape(-1, len(self.counts))
        if images.dtype != np.uint8:
            self.scaler.partial_fit(pixels.astype(np.float64))
            return
        for counts, values in zip(self.counts, pixels.T, strict=True):
            counts += np.bincount(values, minlength=256)

    @property
    def mean(self):
        """Mean of each channel, of shape (channels,)."""
        if not self.counts.any():
            return self.scaler.mean_
        return self.counts @ np.arange(256) / self.counts[0].sum()

    @property
    def scale(self):
        """Deviation of each channel, of shape (channels,), 1 where all are equal."""
        if not self.counts.any():
            return self.scaler.scale_
        squares = (np.arange(256) - self.mean[:, np.newaxis]) ** 2
        variance = (self.counts * squares).sum(axis=1) / self.counts[0].sum()
        return np.sqrt(np.where(variance > 0, variance, 1))


def _content_keys(contents, images):
    """Return 32 bytes for each image, to compare it and to order it by.

    The first half says where neighbouring pixels rise and fall. It is the same at every
    scale, so X and X / 255 are read in the same order. The second half tells images
    apart. Of ready views the first is the image, and all are its content.
    """
    pixels = images.reshape(len(images), -1)
    rises, falls = pixels[:, 1:] > pixels[:, :-1], pixels[:, 1:] < pixels[:, :-1]
    patterns = np.packbits(np.hstack([rises, falls]), axis=1)
    return [_hash(a) + _hash(b) for a, b in zip(patterns, contents, strict=True)]


def _hash(values):
    return hashlib.blake2b(values, digest_size=16).digest()


def _read(images, rows):
    """Return some rows as one block of memory; consecutive ones without a copy."""
    start, stop = rows[0], rows[-1] + 1
    if stop - start == len(rows):
        return np.ascontiguousarray(images[start:stop])
    return np.ascontiguousarray(images[rows])
