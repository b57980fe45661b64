import importlib.util
import os
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["MPLBACKEND"] = "agg"

import numpy as np
import pytest
from sklearn.datasets import load_digits

from skssl import SelfSupervisedClassifier, build_cnn

N_LABELLED = 100


@pytest.fixture(scope="session")
def digits():
    """Images of shape (n, 8, 8) from 0 to 16, and all their labels."""
    X, y = load_digits(return_X_y=True)
    X = X[:600].reshape(-1, 8, 8)
    X.flags.writeable = False
    return X, y[:600]


@pytest.fixture(scope="session")
def few_labels(digits):
    """The same images, all but the first hundred without a label."""
    X, y = digits
    return X, np.where(np.arange(len(y)) < N_LABELLED, y, -1)


@pytest.fixture(scope="session")
def fitted(few_labels):
    """Return a classifier with everything at its default, fitted on few labels."""
    return SelfSupervisedClassifier(random_state=0).fit(*few_labels)


@pytest.fixture(scope="session")
def quick():
    """Return a KerasClassifier of a small network that trains in a few seconds."""
    from scikeras.wrappers import KerasClassifier

    def make(model=build_cnn, **params):
        if model is build_cnn:
            params = {"model__filters": (4,), "model__dense_units": 16, **params}
        return KerasClassifier(
            model,
            **{
                "optimizer__learning_rate": 0.01,
                "optimizer": "adam",
                "batch_size": 32,
                "epochs": 2,
                **params,
            },
        )

    return make


@pytest.fixture(scope="session")
def tiny(quick):
    """Return a wrapper of a network of few weights that trains for one epoch."""
    return quick(model__filters=(2,), model__dense_units=4, epochs=1)


@pytest.fixture
def trainings(monkeypatch):
    """Return a list that grows by the network of each training of Keras.

    A training that goes on after its last epoch, as from a checkpoint, does not count.
    """
    import keras

    trained, fit = [], keras.Model.fit

    def noted(self, *args, **kwargs):
        if kwargs["epochs"] > kwargs.get("initial_epoch", 0):
            trained.append(self)
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(keras.Model, "fit", noted)
    return trained


@pytest.fixture
def interrupted(monkeypatch):
    """Return a context manager in which a training of Keras ends with an exception."""
    import keras

    @contextmanager
    def interrupted(after=0, error=KeyboardInterrupt, at_its_end=False):
        """Interrupt the training that follows so many others."""
        fit, n_finished = keras.Model.fit, 0

        def interrupted_fit(self, *args, **kwargs):
            nonlocal n_finished
            if n_finished == after and not at_its_end:
                raise error
            history = fit(self, *args, **kwargs)
            n_finished += 1
            if n_finished > after:
                raise error
            return history

        with monkeypatch.context() as patch:
            patch.setattr(keras.Model, "fit", interrupted_fit)
            with pytest.raises(error):
                yield

    return interrupted


@pytest.fixture
def written(monkeypatch):
    """Return a list that grows by the name of each checkpoint that is written."""
    names, replace = [], os.replace

    def noted(source, target):
        if str(target).endswith(".checkpoint"):
            names.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", noted)
    return names


@pytest.fixture
def module_of(tmp_path, monkeypatch):
    """Return what makes a module of text, as if it had just been imported."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def module_of(source, name="users_own", file=None):
        path = tmp_path / f"{file or name}.py"
        path.write_text(textwrap.dedent(source))
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return module_of
