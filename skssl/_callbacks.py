"""Callbacks of the user, which act in fine-tuning as they are given."""

import contextlib
import weakref

import joblib
import keras

from ._checkpoint import callback_state

MONITORING = (
    keras.callbacks.EarlyStopping,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.ReduceLROnPlateau,
)
# These add the learning rate to the history.
RATE_CALLBACKS = (
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.ReduceLROnPlateau,
)

# What trainings have left in callbacks, by attribute: hashes from before and after.
_left = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def used(callbacks):
    """Train with the callbacks of the user themselves, and give them back.

    They keep what they have seen. Only the network, and what could be copied before and
    cannot be copied now, such as a file that was opened, do not stay: the estimator is
    to be cloned and pickled as before.
    """
    before = [(dict(vars(x)), callback_settings(x)) for x in callbacks]
    try:
        yield
    finally:
        for callback, (attributes, settings) in zip(callbacks, before, strict=True):
            now = vars(callback)
            for name, value in attributes.items():
                if name == "_model" or (
                    now.get(name) is not value
                    and name in settings
                    and name not in callback_state(callback)
                ):
                    now[name] = value
            hashes = _attribute_hashes(callback)
            left = {k: (settings.get(k), v) for k, v in hashes.items()}
            with contextlib.suppress(TypeError):  # it has no hash, or no weak reference
                _left[callback] = left


def callback_settings(callback):
    """Return what tells a callback from others, by attribute.

    What a training has left in it is not among that: a fit that was interrupted, and is
    called again with the same callback, is the same fit.
    """
    try:
        left = _left.get(callback, {})
    except TypeError:
        left = {}
    settings = {}
    for name, value in _attribute_hashes(callback).items():
        before, after = left.get(name, (value, value))
        value = before if value == after else value
        if value is not None:
            settings[name] = value
    return settings


def _attribute_hashes(callback):
    return {k: joblib.hash(v) for k, v in callback_state(callback).items()}


def check_monitors(callbacks, directions, validated):
    """Refuse callbacks that wait for a metric which never comes.

    Parameters
    ----------
    callbacks : list of keras.callbacks.Callback
        The callbacks of fine-tuning.
    directions : dict of str to bool
        As :func:`try_settings` returns it.
    validated : bool
        Whether there are validation data.

    Raises
    ------
    ValueError
        If a callback of Keras monitors what is not in the history, or what Keras does
        not know the direction of.
    """
    known = dict(directions)
    if validated:
        known |= {f"val_{name}": known[name] for name in directions}
    own = False  # whether code of the user may have added to what is monitored
    for callback in callbacks:
        if isinstance(callback, RATE_CALLBACKS):
            known["learning_rate"] = False
        if isinstance(callback, MONITORING) and _monitors(callback):
            name, kind = callback.monitor, type(callback).__name__
            expected = own and name.removeprefix("val_") not in known
            if name not in known and not expected:
                raise ValueError(
                    f"{kind} monitors {name!r}, but the metrics are {sorted(known)}. "
                    + (
                        "Give validation_split or fit__validation_data."
                        if name.startswith("val_") and not validated
                        else "Correct monitor=, or add to metrics."
                    )
                )
            if callback.mode == "auto" and not known.get(name, True):
                raise ValueError(
                    f"{kind} monitors {name!r}, of which Keras does not know whether "
                    "it should rise or fall: set its mode to 'max' or 'min'."
                )
        own = own or not type(callback).__module__.startswith("keras.")


def _monitors(callback):
    """Whether a callback reads what it monitors."""
    return getattr(callback, "save_best_only", True)
