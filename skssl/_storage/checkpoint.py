"""Checkpoints: the state of a running training, on disk.

A training is known by its key, a hash of all that it depends on. What its state holds
is up to the loop of training. A file is trusted only if its checksum is right. The
folder is the user's own: what is in it is pickled.
"""

import contextlib
import glob
import hashlib
import os
import pickle
import uuid
import warnings

CHECKSUM_BYTES = hashlib.sha256().digest_size


def pack(state):
    """Return a state as bytes that begin with their checksum."""
    data = pickle.dumps(state)
    return hashlib.sha256(data).digest() + data


def unpack(packed):
    """Return the state in packed bytes, or None if they are damaged."""
    checksum, data = packed[:CHECKSUM_BYTES], packed[CHECKSUM_BYTES:]
    return pickle.loads(data) if hashlib.sha256(data).digest() == checksum else None


class Checkpoint:
    """The state of one running training, in one file.

    Parameters
    ----------
    folder : str or path-like
        The folder; it is made if it is not there.
    stage : str
        Name of the stage of training, for the file's name and for messages.
    key : str
        Key of the training.
    """

    def __init__(self, folder, stage, key):
        self.folder = os.path.abspath(os.fspath(folder))
        self.stage = stage
        self.path = os.path.join(self.folder, f"{stage}-{key[:32]}.checkpoint")
        self.writable = True

    def read(self):
        """Return the state last written, or None if there is none to go on from."""
        try:
            with open(self.path, "rb") as file:
                state = unpack(file.read())
        except FileNotFoundError:
            self._mention_others()
            return None
        except OSError as error:
            self._warn(f"The checkpoint cannot be read ({error})")
            return None
        if state is None:
            with contextlib.suppress(OSError):
                os.replace(self.path, f"{self.path}.damaged")
            self._warn(
                f"The checkpoint is damaged and set aside as {self.path}.damaged"
            )
        return state

    def _mention_others(self):
        pattern = os.path.join(glob.escape(self.folder), f"{self.stage}-*.checkpoint")
        if glob.glob(pattern):
            self._warn(
                f"checkpoint_dir={self.folder!r} holds checkpoints of other trainings "
                "(other images, network, parameters or versions), which are not used"
            )

    def _warn(self, what):
        warnings.warn(
            f"{what}: {self.stage} starts from its beginning.",
            RuntimeWarning,
            stacklevel=2,
        )

    def write(self, state):
        """Write a state; warn once where that fails."""
        if not self.writable:
            return
        temporary = f"{self.path}.{uuid.uuid4().hex}.tmp"
        try:
            os.makedirs(self.folder, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(pack(state))
            os.replace(temporary, self.path)  # a file is whole or not there
        except OSError as error:
            self.writable = False
            with contextlib.suppress(OSError):
                os.remove(temporary)
            warnings.warn(
                f"No checkpoint can be written to checkpoint_dir={self.folder!r} "
                f"({error}): {self.stage} goes on without.",
                RuntimeWarning,
                stacklevel=2,
            )

    def remove(self):
        """Remove what the training has written, once it is of no more use."""
        for path in [self.path, *glob.glob(f"{glob.escape(self.path)}.*.tmp")]:
            with contextlib.suppress(OSError):
                os.remove(path)
