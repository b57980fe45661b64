"""The memory of X is the user's: fits and predictions leave every byte of it."""

import gc
import mmap
from contextlib import contextmanager
from multiprocessing import shared_memory

import numpy as np
import pytest
from networks import two_stages
from numpy.testing import assert_array_equal
from sklearn.datasets import load_digits

N_ROWS = 80
CONTENT = load_digits().data[:N_ROWS].astype(np.uint8)  # a page and more
SIZE = CONTENT.nbytes


SHAPE = (N_ROWS, 8, 8, 1)


def from_buffer(buffer):
    return np.frombuffer(buffer, np.uint8).reshape(SHAPE)


def memory_map(path, mode):
    CONTENT.tofile(path)
    X = np.memmap(path, np.uint8, mode, shape=SHAPE)
    if mode == "w+":
        X[:] = CONTENT.reshape(SHAPE)
    if mode in ("r+", "c"):
        X[3] = 16 - X[3]  # not on disk in mode "c"
    return X


def anonymous_map(flags):
    buffer = mmap.mmap(-1, SIZE, flags=flags)
    buffer.write(CONTENT.tobytes())
    return np.ndarray(SHAPE, np.uint8, buffer)


def copy_of_a_file(path):
    CONTENT.tofile(path)
    with open(path, "r+b") as file:
        buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    buffer[: SIZE // 2] = bytes(reversed(buffer[: SIZE // 2]))
    return np.ndarray(SHAPE, np.uint8, buffer)


@contextmanager
def shared(path):
    memory = shared_memory.SharedMemory(create=True, size=SIZE)
    try:
        X = np.ndarray(SHAPE, np.uint8, memory.buf)
        X[:] = CONTENT.reshape(SHAPE)
        yield X
        del X
        gc.collect()  # what still reads it, in a cycle
        memory.close()
    finally:
        memory.unlink()


def of_arrow(path):
    pyarrow = pytest.importorskip("pyarrow")
    return from_buffer(pyarrow.py_buffer(CONTENT.tobytes()))


def not_a_context(make):
    @contextmanager
    def opened(path):
        yield make(path)

    return opened


BUFFERS = {
    **{
        f"memmap {mode}": not_a_context(lambda path, mode=mode: memory_map(path, mode))
        for mode in ("r", "r+", "c", "w+")
    },
    "private anonymous": not_a_context(
        lambda path: anonymous_map(mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    ),
    "shared anonymous": not_a_context(
        lambda path: anonymous_map(mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    ),
    "copy of a file": not_a_context(copy_of_a_file),
    "shared memory": shared,
    "bytes": not_a_context(lambda path: from_buffer(CONTENT.tobytes())),
    "read-only memoryview": not_a_context(
        lambda path: from_buffer(memoryview(bytearray(CONTENT)).toreadonly())
    ),
    "Arrow": not_a_context(of_arrow),
}


@pytest.mark.skipif(not hasattr(mmap, "MAP_PRIVATE"), reason="needs POSIX maps")
@pytest.mark.parametrize("buffer", BUFFERS)
def test_the_bytes_of_X_stay(buffer, quick, tmp_path):
    with BUFFERS[buffer](tmp_path / "images") as X:
        before = X.copy()
        y = np.arange(N_ROWS) % 3 - 1  # some without a label
        clf = two_stages(quick(epochs=1), pretrain_epochs=1)
        clf.fit(X, y)
        assert_array_equal(X, before)
        for method in (clf.predict, clf.transform, clf.predict_pretext):
            method(X)
            assert_array_equal(X, before)
        clf.partial_fit(X, y)
        assert_array_equal(X, before)
        del X
