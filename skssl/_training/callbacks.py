"""Callbacks of the user, which act in fine-tuning as they are given."""

import contextlib
import weakref

import keras

from .._networks.identity import Unidentifiable, identity
from .._storage.checkpoint import callback_state

# What a training was interrupted with: callback -> (identity then, identity before).
_interrupted = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def used(callbacks, checkpoint):
    """Train with the callbacks of the user themselves, and give them back.

    They keep what they have seen. The network does not stay in them, and neither does
    what could be pickled before and cannot be pickled now, such as a file that was
    opened: the estimator is to be cloned and pickled as before.
    """
    states = [callback_state(x) for x in callbacks]
    identities = [callback_identity(x) for x in callbacks if checkpoint]
    try:
        try:
            yield
        finally:
            for callback, before in zip(callbacks, states, strict=True):
                keras.callbacks.Callback.set_model(callback, None)
                kept = callback_state(callback)
                lost = {k: v for k, v in before.items() if k not in kept}
                vars(callback).update(lost)
    except BaseException:
        for callback, before in zip(callbacks, identities, strict=False):
            # TypeError: it has no hash, or holds something without an identity.
            with contextlib.suppress(TypeError):
                _interrupted[callback] = _identity(callback), before
        raise


def callback_identity(callback):
    """Return what tells a callback from others, for the key of a checkpoint.

    It is a digest; of a callback without one it is what `training_key` refuses.
    A callback that is as an interrupted training has left it counts as it was before
    that training: the next fit is the same fit, and goes on.
    """
    try:
        now = _identity(callback)
    except Unidentifiable:
        return _parts(callback)
    with contextlib.suppress(KeyError, TypeError):
        then, before = _interrupted[callback]
        if then == now:
            return before
    return now


def _identity(callback):
    return identity(*_parts(callback))


def _parts(callback):
    functions = {k: v for k, v in vars(callback).items() if callable(v)}
    functions.pop("_model", None)
    return [type(callback), {**functions, **callback_state(callback)}]
