"""load_image_files: the images in a folder, with labels and a cache."""

import os
import sys
import time
import warnings
from collections import Counter
from contextlib import closing

import numpy as np
from joblib import cpu_count
from sklearn.utils import Bunch

from ._data.decoding import (
    Decoding,
    decode_files,
    image_extensions,
    reason,
    unreadable,
)
from ._docs import fill_docstrings
from ._storage.image_cache import cached_images, images_key

N_NAMED = 5  # files in a warning


@fill_docstrings
def load_image_files(
    folder,
    image_shape=(64, 64),
    *,
    unlabeled="unlabelled",
    color="rgb",
    resize="crop",
    on_error="warn",
    cache=None,
    verbose=0,
):
    """Load the image files in a folder, with the names of its sub-folders as labels.

    As in :func:`sklearn.datasets.load_files`, each sub-folder is a class. Images in
    folders further inside belong to the same class. Those in the folder itself, and in
    the sub-folder with the name `unlabeled`, have no label.

    Parameters
    ----------
    folder : str or path-like
        The folder.
    {shape_of_read_images}
    unlabeled : str, default="unlabelled"
        Name of the sub-folder of images without a label, and what `target` holds for
        these. Give it to the classifier, too, as `unlabeled_label`.
    {color_of_files}
    {resize_of_files}
    on_error : {"warn", "raise"}, default="warn"
        What to do with files that cannot be read: leave them out and name the first of
        them in one warning, or raise an error at the first one.
    cache : str or path-like, default=None
        Folder that keeps the decoded images, one file for each folder of images and
        choice of parameters. The result is then a memory map of it, which takes no
        memory until it is read, and the next call decodes nothing. Files that are new,
        gone or changed, by size or time of modification, make a new file. Old ones stay
        until you delete them. None decodes into memory.
    verbose : int, default=0
        1 shows a progress bar on stderr while files are decoded.

    Returns
    -------
    data : Bunch
        With the attributes:

        images : ndarray or memmap of shape (n_samples, height, width, channels), uint8
            The images, in the order of their paths. A memory map is read-only.
        target : ndarray of shape (n_samples,), str
            Label of each, `unlabeled` where there is none.
        target_names : list of str
            The labels that there are, sorted.
        filenames : ndarray of shape (n_samples,), str
            Path of each.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    NotADirectoryError
        If `folder` is a file.
    OSError
        If a folder in it cannot be listed, or if `cache` cannot be written.
    ValueError
        If a parameter has another value, if there is no image file that can be read,
        if with ``on_error="raise"`` there is one that cannot, or if a sub-folder has
        the name "unlabeled" or "unlabelled" and is not the one of `unlabeled`.

    See Also
    --------
    ImageReader : Reads images inside a pipeline, from a list of paths.
    SelfSupervisedClassifier : Learns from labelled and unlabelled images.
    sklearn.datasets.load_files : Loads files as bytes, or text.

    Notes
    -----
    {decoding_of_files}

    Files with another extension than those that Pillow registers for images are
    ignored, and so are files and folders whose name starts with a dot. Links to files
    are followed, and links to sub-folders; links to folders further inside are not.

    Images are in the order of their classes, so shuffle where you take some of them.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from skssl import load_image_files
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ["cat/1.png", "dog/1.png", "dog/2.png", "unlabelled/1.png"]:
    ...         path = Path(folder, name)
    ...         path.parent.mkdir(exist_ok=True)
    ...         Image.new("RGB", (40, 30)).save(path)
    ...     data = load_image_files(folder, (32, 32))
    >>> data.images.shape
    (4, 32, 32, 3)
    >>> data.target
    array(['cat', 'dog', 'dog', 'unlabelled'], dtype='<U10')
    >>> data.target_names
    ['cat', 'dog']
    """
    decoding = Decoding(image_shape, color, resize)
    if not isinstance(unlabeled, str) or not unlabeled:
        raise ValueError(
            f"unlabeled must be text, the name of a sub-folder, got {unlabeled!r}."
        )
    if on_error not in ("warn", "raise"):
        raise ValueError(f"on_error must be 'warn' or 'raise', got {on_error!r}.")
    folder = os.fsdecode(folder)
    names = _image_files(folder)
    labels = [_label(name, unlabeled) for name in names]
    _check_spelling(labels, unlabeled)
    paths = [os.path.join(folder, name) for name in names]

    def decode(positions, store):
        chosen = [paths[k] for k in positions]
        show = verbose > 0 and len(chosen) == len(paths)
        problems = _decode(chosen, decoding, store, on_error == "raise", show)
        problems = {positions[k]: problem for k, problem in problems.items()}
        if len(problems) == len(paths):
            raise ValueError(
                f"{folder!r} must hold image files that can be read, but of "
                f"{len(paths)} none can: {_first(problems, names)}."
            )
        return problems

    if cache is None:
        images, problems = _in_memory(len(paths), decoding.shape, decode)
    else:
        key = images_key(folder, names, decoding.dependencies)
        images, problems = cached_images(cache, key, len(paths), decoding.shape, decode)
    if problems:
        warnings.warn(
            f"{len(problems)} of {len(paths)} image files in {folder!r} cannot be read "
            f"and are left out: {_first(problems, names)}. on_error='raise' stops at "
            "the first of them.",
            UserWarning,
            stacklevel=2,
        )

    rows = [k for k in range(len(paths)) if k not in problems]
    target = np.array([labels[k] for k in rows])
    return Bunch(
        images=images,
        target=target,
        target_names=sorted({*target.tolist()} - {unlabeled}),
        filenames=np.array([paths[k] for k in rows]),
    )


def _image_files(folder):
    """Return the paths of the image files in a folder, relative to it and sorted."""
    if not os.path.isdir(folder):
        kind = NotADirectoryError if os.path.exists(folder) else FileNotFoundError
        what = "is a file" if os.path.exists(folder) else "is not there"
        raise kind(f"folder must be a folder of images, but {folder!r} {what}.")
    extensions = image_extensions()
    found, others = [], Counter()
    for name in sorted(_files(folder), key=lambda name: name.split(os.sep)):
        extension = os.path.splitext(name)[1].lower()
        if extension in extensions:
            found.append(name)
        else:
            others[extension or "no extension"] += 1
    if not found:
        content = ", ".join(f"{n} with {x}" for x, n in others.most_common(N_NAMED))
        raise ValueError(
            f"{folder!r} must hold image files, in sub-folders or by themselves, but "
            f"the files in it are {content or 'none, or hidden'}. Extensions of images "
            "are .jpg, .png and others that Pillow registers."
        )
    return found


def _files(folder, inside=""):
    """Yield the files in a folder and below it, hidden ones left out."""
    with os.scandir(os.path.join(folder, inside)) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            name = os.path.join(inside, entry.name)
            # Links further inside could lead back up, and never end.
            if entry.is_dir(follow_symlinks=not inside):
                yield from _files(folder, name)
            else:
                yield name


def _label(name, unlabeled):
    """Return the label of a file: the name of its sub-folder."""
    first, separator, _ = name.partition(os.sep)
    return first if separator else unlabeled


def _check_spelling(labels, unlabeled):
    """Refuse a class whose name says in another spelling that it is none."""
    for label in sorted({*labels} - {unlabeled}):
        if label.lower() in ("unlabeled", "unlabelled"):
            raise ValueError(
                f"The sub-folder {label!r} would be a class, because unlabeled is "
                f"{unlabeled!r}. Set unlabeled={label!r}, or rename the sub-folder."
            )


def _decode(paths, decoding, store, must_read, show):
    """Give the image of each file to a function; return the others' reasons."""
    problems = {}
    with closing(decode_files(paths, decoding, cpu_count())) as results:
        if show:
            results = _with_progress(results, len(paths))
        for position, (image, error) in enumerate(results):
            if error is None:
                store(image)
            elif must_read:
                raise ValueError(unreadable(paths[position], error)) from error
            else:
                problems[position] = reason(error)
    return problems


def _with_progress(results, n_results):
    """Yield results, and show on stderr how many there were."""
    shown = 0
    for count, result in enumerate(results, 1):
        if count == n_results or time.monotonic() - shown > 0.5:
            shown = time.monotonic()
            bar = f"{'=' * (30 * count // n_results):30}"
            text = f"\r[{bar}] {count}/{n_results} images"
            print(text, end="", file=sys.stderr, flush=True)
        yield result
    print(file=sys.stderr)


def _first(problems, names):
    """Name the first files that cannot be read, with the reason of each."""
    first = [f"{names[k]!r} ({problems[k]})" for k in sorted(problems)[:N_NAMED]]
    more = len(problems) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")


def _in_memory(n_files, shape, decode):
    """Return an array of the images and the reasons why others are missing."""
    images = np.empty((n_files, *shape), np.uint8)
    rows = iter(images)

    def store(image):
        next(rows)[...] = image

    problems = decode(range(n_files), store)
    return images[: n_files - len(problems)], problems
