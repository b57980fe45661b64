"""What both estimators share: how they are saved without pickle.

An estimator owns what it saves. It names its fitted attributes, and it extends
`_from_saved_state` by checks of these, because a stranger may have written the file.
"""

import math
import os
import pickle
import tempfile

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ._networks.packing import reason as error_summary
from ._storage import archive
from ._storage.archive import check_keys, require

# Parameters that are code, or too large: a text that `fit` refuses stands in for them.
REPLACED = ("estimator", "encoder", "pretext", "random_state")
# Folders of this machine, from which joblib unpickles: never taken from a file.
LOCAL = ("memory", "checkpoint_dir")


class SavableMixin:
    """Gives an estimator its `save`.

    Attributes
    ----------
    _saved_network : str
        Name of the fitted attribute that is its network.
    _saved_attributes : tuple of str
        Names of its other fitted attributes that :func:`encode` takes.
    """

    def save(self, path):
        """Save the fitted estimator without pickle.

        What is loaded predicts bit for bit as this one does, on the same machine and
        versions, and has the same fitted attributes. Parameters that are code or carry
        state, namely `estimator`, `encoder`, a `pretext` from outside skssl and a
        `RandomState`, are not saved: a text stands in for them, with which `fit`
        refuses to train, rather than train another network, until they are given anew
        by `set_params`. Not saved either are `memory`, `checkpoint_dir` and the choice
        of `set_output`.

        Parameters
        ----------
        path : str or path-like
            The file; one that is there already is replaced, in one step and only when
            the new one is complete.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        TypeError
            If it cannot be saved without code: a pretext task from outside skssl, a
            layer or function that is not from Keras, labels that are neither numbers,
            booleans nor text. `joblib.dump` saves these, for readers who trust you;
            the error says where it cannot, as with a layer without `get_config`.

        See Also
        --------
        skssl.load : The way back.
        """
        path = os.path.abspath(os.fspath(path))
        name = type(self).__name__
        if "_saved_network" not in vars(type(self)):
            raise TypeError(
                "Only the estimators of skssl themselves can be saved, got "
                f"{self!r}. {_with_pickle(self)}"
            )
        check_is_fitted(self)
        with tempfile.TemporaryDirectory(
            dir=os.path.dirname(path), prefix=".skssl-"
        ) as folder:
            temporary = os.path.join(folder, "estimator")
            try:
                with open(temporary, "w+b") as file:
                    archive.write_archive(file, name, self._saved_state())
                    self._from_saved_state(archive.read_archive(file)[1])
            except OSError:
                raise
            except Exception as error:
                raise TypeError(
                    f"This {name} cannot be saved without pickle: "
                    f"{error_summary(error)}. {_with_pickle(self)}"
                ) from error
            os.replace(temporary, path)

    def _saved_state(self):
        """Return all that the estimator needs to come back."""
        params = self.get_params(deep=False)
        names = getattr(self, "feature_names_in_", None)
        return {
            "params": {
                name: _replaced(name, value) if name in REPLACED else value
                for name, value in params.items()
                if name not in LOCAL
            },
            "network": archive.network_state(getattr(self, self._saved_network)),
            "feature_names_in_": None if names is None else names.tolist(),
            **{name: getattr(self, name) for name in self._saved_attributes},
        }

    @classmethod
    def _from_saved_state(cls, state):
        """Return an estimator from a state, of which it checks what both share."""
        keys = {"params", "network", "feature_names_in_", *cls._saved_attributes}
        check_keys(cls.__name__, state, keys)
        params, names = state["params"], state["feature_names_in_"]
        require(params.keys().isdisjoint(LOCAL), f"it has a parameter of {LOCAL}")
        estimator = cls(**params)
        for name in cls._saved_attributes:
            setattr(estimator, name, state[name])
        model = archive.network_from_state(state["network"])
        setattr(estimator, cls._saved_network, model)
        shape = model.input_shape
        backbone = model.get_layer("backbone")
        require(
            (backbone.input_shape, len(backbone.output_shape)) == (shape, 2)
            and [type(n) for n in shape[1:]] == [int, int, int],
            f"a network in it takes no images, but {shape}, or its backbone others",
        )
        estimator.image_shape_, n_features = shape[1:], estimator.n_features_in_
        require(
            type(n_features) is int and 1 <= n_features <= math.prod(shape[1:]),
            f"it has {n_features!r} features for images of shape {shape[1:]}",
        )
        if names is not None:
            require(
                names == list(map(str, names)) and len(names) == n_features,
                "its feature names are no list of one text per feature",
            )
            estimator.feature_names_in_ = np.array(names, dtype=object)
        return estimator


def _with_pickle(estimator):
    """Say whether an estimator can be saved with pickle."""
    try:
        pickle.dumps(estimator)
    except Exception as error:
        return f"Nor can joblib.dump: {error_summary(error)}."
    return "joblib.dump saves it, for readers who trust you."


def _replaced(name, value):
    """Return a parameter, or a text in its place where it cannot be saved."""
    try:
        archive.encode(value, [])
    except ValueError:
        what = getattr(value, "__name__", type(value).__name__)
        return f"{what}, which was not saved: give {name} anew with set_params"
    return value


def check_outputs(model, expected):
    """Refuse a network from a file that has none of the expected numbers of outputs."""
    require(
        model.output_shape in {(None, n) for n in expected},
        f"a network in it has outputs of shape {model.output_shape}, expected (None, "
        f"{max(expected)})",
    )


def check_history(history):
    """Refuse a history from a file that is no dict of lists of numbers."""
    require(
        all(
            type(values) is list and _is_numeric(values) for values in history.values()
        ),
        "its history is no dict of lists of numbers",
    )


def _is_numeric(value):
    if isinstance(value, list):
        return all(map(_is_numeric, value))
    return np.asarray(value).dtype.kind in "biuf"
