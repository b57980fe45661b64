"""A lock that processes share through a file, and that the dead do not hold.

The owner touches the file while it works. Who waits takes a file over that nobody has
touched for a while. It is only watched, and its time is compared with itself, so that
the clocks of two machines need not agree. Two processes may in rare cases both hold a
lock. So what it guards must be right without it, too, and only be slower.
"""

import contextlib
import os
import threading
import time
import uuid

# Seconds between touches, and without one until a lock counts as left behind.
BEAT = 5.0
PATIENCE = 60.0
# Seconds between looks at a lock of another.
POLL = 0.5


@contextlib.contextmanager
def shared_lock(path, *, is_done=lambda: False):
    """Hold a lock, unless what it is for is done by others meanwhile.

    Parameters
    ----------
    path : str
        File of the lock. Its folder is made if it is not there.
    is_done : callable, default=lambda: False
        Says whether to wait no longer.

    Yields
    ------
    held : bool
        Whether the lock is held.

    Raises
    ------
    OSError
        If the file cannot be made.
    """
    token = uuid.uuid4().hex
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if not _wait(path, token, is_done):
        yield False
        return
    ended = threading.Event()
    keeper = threading.Thread(target=_touch, args=(path, ended), daemon=True)
    keeper.start()
    try:
        yield True
    finally:
        ended.set()
        keeper.join()
        with contextlib.suppress(OSError):
            if _state(path)[0] == token:
                os.remove(path)


def _wait(path, token, is_done):
    """Return True once the lock is made, or False if there is no more need of it."""
    last, since = None, time.monotonic()
    while True:
        try:
            with open(path, "x") as file:
                file.write(token)
            return True
        except FileExistsError:
            pass
        if is_done():
            return False
        try:
            state = _state(path)
        except FileNotFoundError:
            continue
        if state != last:
            last, since = state, time.monotonic()
        elif time.monotonic() - since > PATIENCE:
            left = f"{path}.{token}"
            with contextlib.suppress(FileNotFoundError):
                os.replace(path, left)
                os.remove(left)
            continue
        time.sleep(min(POLL, PATIENCE / 4))


def _state(path):
    """Return who holds the lock, and when it was last touched."""
    with open(path) as file:
        return file.read(), os.fstat(file.fileno()).st_mtime_ns


def _touch(path, ended):
    """Touch the file until the work has ended."""
    while not ended.wait(BEAT):
        with contextlib.suppress(OSError):
            os.utime(path)
