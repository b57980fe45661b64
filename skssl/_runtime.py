"""State of the whole process: the backend of Keras, forks, threads and seeds.

Nothing here imports TensorFlow before :func:`prepare_tensorflow` is called.
"""

import contextlib
import os
import random
import sys
import threading
import uuid
import weakref

import numpy as np

# Held while one thread traces a network, or swaps the generators of the process.
LOCK = threading.RLock()

# Where Keras keeps the generator that the functions of `keras.random` share.
SHARED_GENERATOR = "global_seed_generator"

# Compiled copies of networks that wait for the next training, by architecture.
kept_copies = {}

# For each callback of an interrupted training: its identity then, and before it.
interrupted_callbacks = weakref.WeakKeyDictionary()

_of_thread = threading.local()
_process_of_tensorflow = None


def check_backend():
    """Refuse a backend of Keras other than TensorFlow, before Keras is imported."""
    keras = sys.modules.get("keras")
    if keras is not None and hasattr(keras, "config"):
        backend = keras.config.backend()
    else:
        backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if backend != "tensorflow":
        raise RuntimeError(
            "skssl trains with TensorFlow, but Keras is set to the backend "
            f"{backend!r}. Set the environment variable KERAS_BACKEND=tensorflow "
            "before Keras is imported, and restart Python."
        )


def check_process():
    """Refuse to run TensorFlow in a forked process, where it would wait forever."""
    if _process_of_tensorflow not in (None, os.getpid()):
        raise RuntimeError(
            "TensorFlow was imported before this process was forked, and would wait "
            "here forever. Use processes that start afresh: joblib's default backend "
            "'loky', or the start methods 'spawn' or 'forkserver' of multiprocessing."
        )


def prepare_tensorflow():
    """Import TensorFlow and Keras, and set them up for workers and threads, once."""
    global _process_of_tensorflow

    if _process_of_tensorflow is not None:
        return
    check_backend()
    import tensorflow as tf
    from keras.src.random import seed_generator

    check_backend()  # the configuration file of Keras may name another one
    # Give TensorFlow as many threads as joblib allows each worker, in OMP_NUM_THREADS.
    n_threads = os.environ.get("OMP_NUM_THREADS", "")
    threads = tf.config.threading
    if n_threads.isdigit() and not threads.get_intra_op_parallelism_threads():
        with contextlib.suppress(RuntimeError):  # TensorFlow runs already
            threads.set_intra_op_parallelism_threads(int(n_threads))
            threads.set_inter_op_parallelism_threads(int(n_threads))
    # Keras draws every default seed from this name, and has no public way to set them.
    seed_generator.python_random = _SeedSource()
    _process_of_tensorflow = os.getpid()


def clear_session():
    """Delete the networks that are kept for the next fit.

    Keras takes longer to compile a small network than to train it. So each fit keeps
    the compiled networks it has trained for later fits of the same network, at most 8
    of them with 256 MiB in all. A later fit after this call compiles anew, and gives
    the same result.

    See Also
    --------
    keras.utils.clear_session : Delete the global state of Keras.

    Examples
    --------
    >>> import skssl
    >>> skssl.clear_session()
    """
    with LOCK:
        kept_copies.clear()


class _SeedSource:
    """Replaces the module `random` where Keras draws its default seeds.

    Inside :func:`seeded` they come from the generator of the thread.
    """

    def randint(self, low, high):
        """Return a random int from `low` to `high`, both included."""
        return getattr(_of_thread, "generator", random).randint(low, high)


def noted_policy(carried=None):
    """Return the dtype policy of Keras in this thread, to be carried to others.

    Parameters
    ----------
    carried : tuple, default=None
        What this function returned in another thread. It stays as it is where this
        thread has no policy of its own.

    Returns
    -------
    noted : tuple of (str, dict), or None
        A name of the thread, and its policy in plain values; None for the default one.
    """
    policy = _own_policy()
    if policy is None:
        return None if carried is None or _is_of_this_thread(carried) else carried
    if not hasattr(_of_thread, "name"):
        _of_thread.name = uuid.uuid4().hex
    return _of_thread.name, sys.modules["keras"].dtype_policies.serialize(policy)


def _own_policy():
    """Return the dtype policy of this thread, or None where it is the default one."""
    keras = sys.modules.get("keras")
    if keras is None or not hasattr(keras, "config"):
        return None
    policy = keras.config.dtype_policy()
    return None if policy.name == keras.config.floatx() else policy


def _is_of_this_thread(noted):
    return noted[0] == getattr(_of_thread, "name", None)


@contextlib.contextmanager
def carried_policy(noted):
    """Train under the policy of another thread, unless this one has its own.

    Keras keeps the policy for each thread, so a worker starts with the default one.

    Parameters
    ----------
    noted : tuple or None
        What :func:`noted_policy` returned there.
    """
    if noted is None or _is_of_this_thread(noted) or _own_policy() is not None:
        yield
        return
    import keras

    default = keras.config.dtype_policy()
    keras.config.set_dtype_policy(keras.dtype_policies.deserialize(noted[1]))
    try:
        yield
    finally:
        keras.config.set_dtype_policy(default)


def shared_seeds(model, seed=0):
    """Return the generator behind the functions of `keras.random` in a network.

    A traced function keeps using the generator that it was traced with. So a network
    keeps its generator.

    Parameters
    ----------
    model : keras.Model
        The network.
    seed : int, default=0
        Where a new generator starts.

    Returns
    -------
    generator : keras.random.SeedGenerator
        The generator, to be given to :func:`seeded`.
    """
    import keras

    attributes = vars(model)
    if "_skssl_shared_seeds" not in attributes:
        attributes["_skssl_shared_seeds"] = keras.random.SeedGenerator(seed)
    return attributes["_skssl_shared_seeds"]


@contextlib.contextmanager
def seeded(seed, shared=None):
    """Draw Keras's default seeds in this thread from `seed`.

    Layers, initializers and the functions of `keras.random` use these where they were
    given no seed. The generators of the caller are not changed.

    Parameters
    ----------
    seed : int
        Seed of the generator that they are drawn from.
    shared : keras.random.SeedGenerator, default=None
        What the functions of `keras.random` draw from; None is a new one.
    """
    prepare_tensorflow()
    import keras
    from keras.src.backend.common import global_state

    outer_source = getattr(_of_thread, "generator", random)
    outer_shared = global_state.get_global_attribute(SHARED_GENERATOR)
    _of_thread.generator = random.Random(seed)
    shared = shared or keras.random.SeedGenerator(seed)
    global_state.set_global_attribute(SHARED_GENERATOR, shared)
    try:
        yield
    finally:
        _of_thread.generator = outer_source
        global_state.set_global_attribute(SHARED_GENERATOR, outer_shared)


@contextlib.contextmanager
def seeded_process(seed):
    """Seed every generator while code of the user runs that may use any of them.

    `random` and `numpy.random` belong to the whole process, so other threads wait
    here. Both are restored afterwards.
    """
    with LOCK, seeded(seed):
        python_state, numpy_state = random.getstate(), np.random.get_state()
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
