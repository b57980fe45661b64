import os
from contextlib import contextmanager

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


@pytest.fixture
def interrupted(monkeypatch):
    """Return a context manager in which a stage ends with an exception."""
    import skssl._training.loop

    @contextmanager
    def interrupted(name, error=KeyboardInterrupt, at_its_end=False):
        train = skssl._training.loop.train

        def interrupted_train(stage):
            result = train(stage) if at_its_end or stage.name != name else None
            if stage.name == name:
                raise error
            return result

        with monkeypatch.context() as patch:
            patch.setattr(skssl._training.loop, "train", interrupted_train)
            with pytest.raises(error):
                yield

    return interrupted
