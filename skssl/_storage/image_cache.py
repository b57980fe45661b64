"""The cache of decoded images: one file for each folder of images, mapped into memory.

A file holds the images that could be read, one after the other, and then one byte for
each file that there was: whether its image is there. So it can be written without
knowing first which files are damaged.
"""

import contextlib
import glob
import hashlib
import os
import time
import uuid

import numpy as np

# Writers whose last byte is older were killed: others write many times a minute.
LEFTOVER_SECONDS = 24 * 60 * 60


def images_key(folder, names, dependencies):
    """Return a text that changes with all that decoded images depend on.

    Parameters
    ----------
    folder : str
        The folder of images.
    names : list of str
        The files in it.
    dependencies : object
        Whatever else they depend on, with a `repr` that tells it apart.

    Returns
    -------
    key : str
        A hash of these, and of the size and time of each file.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((os.path.realpath(folder), dependencies)).encode())
    for name in names:
        try:
            status = os.stat(os.path.join(folder, name))
            content = status.st_size, status.st_mtime_ns
        except OSError:  # a broken link, or just deleted
            content = None
        digest.update(repr((name, content)).encode())
    return digest.hexdigest()


def cached_images(folder, key, n_files, shape, decode):
    """Return images as a read-only memory map of a file, which is written if need be.

    Parameters
    ----------
    folder : str or path-like
        The cache; it is made if it is not there.
    key : str
        What :func:`images_key` returned.
    n_files : int
        Number of image files.
    shape : tuple of int
        (height, width, channels) of each image.
    decode : callable
        Gets the positions of files, calls its second argument with each image in turn,
        and returns a dict from the positions of the others to the reasons.

    Returns
    -------
    images : memmap of shape (n_readable, height, width, channels), uint8
        The images.
    problems : dict of {int: str}
        For each file that is left out its position and the reason.
    """
    os.makedirs(folder, exist_ok=True)
    _remove_leftovers(folder)
    path = os.path.join(folder, f"{key}.images")
    known = _open(path, n_files, shape)
    if known is not None:
        images, missing = known
        # They may be readable by now, as after a change of permissions.
        problems = decode(missing, lambda image: None)
        if len(problems) == len(missing):
            return images, problems
    problems = _write(path, n_files, decode)
    images, missing = _open(path, n_files, shape)  # another process may have written it
    return images, {k: problems.get(k, "unknown to this process") for k in missing}


def _open(path, n_files, shape):
    """Return the images in a file and which are missing, None if it is not whole."""
    try:
        with open(path, "rb") as file:
            file.seek(-n_files, os.SEEK_END)
            readable = np.frombuffer(file.read(), np.uint8) == 1
            size = file.tell()
    except OSError:  # not there, or shorter than that
        return None
    shape = (int(readable.sum()), *shape)
    if len(readable) != n_files or size != np.prod(shape) + n_files or not shape[0]:
        return None
    images = np.memmap(path, np.uint8, mode="r", shape=shape)
    return images, np.flatnonzero(~readable).tolist()


def _write(path, n_files, decode):
    """Decode all files into one that appears whole or not at all."""
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    readable = np.ones(n_files, np.uint8)
    try:
        with open(temporary, "xb") as file:
            problems = decode(range(n_files), file.write)
            readable[[*problems]] = 0
            file.write(readable)
            file.flush()
            os.fsync(file.fileno())  # before its name says that it is whole
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise
    return problems


def _remove_leftovers(folder):
    """Remove what processes left that were killed while they wrote."""
    folder = glob.escape(os.fspath(folder))
    for path in glob.glob(os.path.join(folder, "*.images.*.tmp")):
        with contextlib.suppress(OSError):
            if time.time() - os.path.getmtime(path) > LEFTOVER_SECONDS:
                os.remove(path)
