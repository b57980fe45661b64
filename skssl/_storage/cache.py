"""The cache of finished trainings, kept by joblib.

A training is known by its key, a hash of all that it depends on. The folder is the
user's own: what is in it is pickled. Processes that share it, on one machine or on
several, wait for a training that one of them has begun.
"""

import contextlib
import os
import warnings

from sklearn.utils.validation import check_memory

from .checkpoint import pack, unpack
from .lock import shared_lock


def finished_training(key, train):
    """Train, and return the result with its checksum; joblib stores it by the key."""
    return pack(train())


def cached(memory, key, train):
    """Return what `train` returns, from the cache if it is there.

    Parameters
    ----------
    memory : str, path-like or joblib.Memory
        The cache, as elsewhere in scikit-learn.
    key : str
        Key of the training.
    train : callable
        What to do where the cache has nothing.

    Returns
    -------
    result : object
        What `train` returns.
    """
    started, finished = [], []

    def train_once():
        if not finished:
            started.append(True)
            finished.append(train())
        return finished[0]

    try:
        if isinstance(memory, os.PathLike):
            memory = os.fspath(memory)
        store = check_memory(memory)
        memorized = store.cache(finished_training, ignore=["train"])

        def is_known():
            return memorized.check_call_in_cache(key, train_once)

        known = is_known()
        wait = contextlib.nullcontext() if known else _locked(store, key, is_known)
        with wait:
            result = unpack(memorized(key, train_once))
        if result is None:
            memorized.call_and_shelve(key, train_once).clear()
            result = unpack(memorized(key, train_once))
        if known and finished:
            warnings.warn(
                f"An entry of memory={memory!r} was damaged: it was made anew.",
                RuntimeWarning,
                stacklevel=2,
            )
        return result
    except OSError as error:
        if started and not finished:
            raise  # it comes from the training
        warnings.warn(
            f"memory={memory!r} cannot be used ({error}): pretraining is not kept.",
            RuntimeWarning,
            stacklevel=2,
        )
        return train_once()


def _locked(store, key, is_known):
    """Return what keeps others from the same training, where the cache is a folder."""
    is_folder = getattr(store, "backend", None) == "local" and store.location
    if not is_folder:
        return contextlib.nullcontext()
    path = os.path.join(store.location, "skssl-locks", key[:32])
    return shared_lock(path, is_done=is_known)
