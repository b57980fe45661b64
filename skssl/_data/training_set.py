"""Equal images count once, and the order of the rows not at all.

Training reads the distinct images, ordered by their content but not by its scale, and
the weights of equal labelled rows added up. So a repeated row is the same as a row of
weight 2, bit for bit, and a shuffled X gives the same network.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from sklearn.preprocessing import StandardScaler

from .images import load_batch


@dataclass
class DistinctImages:
    """The distinct images among the rows of X."""

    images: np.ndarray  # (n_samples, ..., channels) all images
    rows: np.ndarray  # (n_distinct,) a row of each, ordered by content
    index: np.ndarray  # (n_rows,) which of them each of the given rows is
    mean: np.ndarray  # (channels,) of their pixels
    scale: np.ndarray  # (channels,) standard deviation, 1 where it is 0
    digest: str  # of all their content


def distinct_images(images, rows, chunk_values=2**19):
    """Find the distinct images, and the statistics of their pixels, in one pass.

    Parameters
    ----------
    images : ndarray of shape (n_samples, ..., channels)
        Images, read a chunk at a time, so that a memory map stays on disk.
    rows : ndarray of shape (n_rows,)
        The rows to look at.
    chunk_values : int, default=2**19
        About how many values to read at once.

    Returns
    -------
    distinct : DistinctImages
        Mean and deviation are those of the float32 numbers that a network reads: a
        deviation that float32 does not resolve would blow up rounding.
    """
    channels = images.shape[-1]
    step = max(1, chunk_values // math.prod(images.shape[1:]))
    scaler = StandardScaler()
    seen, contents, patterns, sums = set(), [], [], []
    for start in range(0, len(rows), step):
        chunk = load_batch(_read(images, rows[start : start + step]))
        digests = _digests(chunk)
        earliest = {digest: k for k, digest in reversed(list(enumerate(digests)))}
        new = sorted(k for digest, k in earliest.items() if digest not in seen)
        seen.update(digests)
        if new:
            scaler.partial_fit(chunk[new].reshape(-1, channels).astype(np.float64))
        contents += digests
        # Which way each pixel differs from the next one: the same at every scale. Of
        # ready views the first is the image.
        flat = (chunk[:, 0] if images.ndim == 5 else chunk).reshape(len(chunk), -1)
        rises, falls = flat[:, 1:] > flat[:, :-1], flat[:, 1:] < flat[:, :-1]
        patterns += _digests(np.packbits(np.hstack([rises, falls]), axis=1))
        sums.append(flat.sum(axis=1, dtype=np.float64))
    contents, first, index = np.unique(
        _as_numbers(contents), axis=0, return_index=True, return_inverse=True
    )
    keys = np.concatenate(sums)[first], *_as_numbers(patterns)[first].T
    order = np.lexsort(keys)
    position = np.empty_like(order)
    position[order] = np.arange(len(order))
    kind = f"{load_batch(images[:1]).dtype} {images.shape[1:]}"
    return DistinctImages(
        images,
        rows[first[order]],
        position[index.reshape(-1)],
        scaler.mean_,
        scaler.scale_,
        hashlib.blake2b(contents.tobytes() + kind.encode()).hexdigest(),
    )


def _digests(rows):
    """Return a hash of each row, 16 bytes."""
    return [hashlib.blake2b(row, digest_size=16).digest() for row in rows]


def _as_numbers(digests):
    """Return hashes as numbers to sort, of shape (n_rows, 2)."""
    return np.frombuffer(b"".join(digests), dtype=np.uint64).reshape(-1, 2)


def _read(images, rows):
    """Return some rows as one block of memory; consecutive ones without a copy."""
    start, stop = rows[0], rows[-1] + 1
    if stop - start == len(rows):
        return np.ascontiguousarray(images[start:stop])
    return np.ascontiguousarray(images[rows])


def merge_equal_rows(index, targets, weights, mean_one=True):
    """Make one of all rows of the same image and class.

    Parameters
    ----------
    index : ndarray of shape (n_labelled,)
        Which image each labelled row holds.
    targets : ndarray of shape (n_labelled,), int64
        Class index of each.
    weights : ndarray of shape (n_labelled,) or None
        Weight of each; None is 1.
    mean_one : bool, default=True
        Whether to scale the weights to a mean of 1.

    Returns
    -------
    index : ndarray of shape (n_merged,)
        Which image each merged row holds, ascending.
    targets : ndarray of shape (n_merged,)
        Class index of each.
    weights : ndarray of shape (n_merged,) or None
        Sum of the weights of each; None if all are 1, after scaling where that is
        asked for.
    """
    pairs, which = np.unique(
        np.column_stack([index, targets]), axis=0, return_inverse=True
    )
    weights = np.bincount(which.reshape(-1), weights=weights)
    if mean_one:
        weights = None if np.ptp(weights) == 0 else weights / weights.mean()
    elif (weights == 1).all():
        weights = None
    return pairs[:, 0], pairs[:, 1], weights
