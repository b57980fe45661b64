"""Callbacks of the user, which act as they are given."""

import contextlib
import pickle

import keras

from .._networks.identity import identity
from .._runtime import interrupted_callbacks

# Callbacks of Keras that act on metrics of epochs only. Blocks of steps, copies of the
# network and layers that are computed beforehand make no difference to them.
EPOCH_CALLBACKS = (
    keras.callbacks.EarlyStopping,
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.ReduceLROnPlateau,
    keras.callbacks.TerminateOnNaN,
)


def act_on_epochs_only(callbacks):
    """Whether no callback sees the network or single steps."""
    return all(type(callback) in EPOCH_CALLBACKS for callback in callbacks)


def callback_state(callback):
    """Return the attributes of a Keras callback that can be kept, by name."""
    kept = {}
    for name, value in vars(callback).items():
        with contextlib.suppress(Exception):  # an open file, a lock: it cannot be kept
            if name != "_model":
                pickle.dumps(value)
                kept[name] = value
    return kept


@contextlib.contextmanager
def callbacks_restored(callbacks, checkpoint):
    """Train with the user's callbacks, then remove the network from them.

    They keep what they have seen. What could be pickled before and cannot be pickled
    now, such as a file that was opened, is removed, too: the estimator can be cloned
    and pickled as before.
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
                interrupted_callbacks[callback] = _identity(callback), before
        raise


def callback_identity(callback):
    """Return what tells a callback from others, for the key of a checkpoint.

    A callback that is as an interrupted training has left it counts as it was before
    that training: the next fit is the same fit, and goes on.
    """
    now = _identity(callback)
    with contextlib.suppress(KeyError, TypeError):
        then, before = interrupted_callbacks[callback]
        if then == now:
            return before
    return now


def _identity(callback):
    functions = {k: v for k, v in vars(callback).items() if callable(v)}
    functions.pop("_model", None)
    return identity(type(callback), {**functions, **callback_state(callback)})
