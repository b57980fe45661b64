"""What the estimators share: input checks, all-or-nothing fits, pickles, files."""

import functools
import math
import os
import pickle
import tempfile
from copy import copy, deepcopy

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ._data.images import (
    channels_first_hint,
    check_pixels,
    rows_to_images,
    shape_images,
)
from ._html import training_table
from ._networks.packing import code_packed, error_summary, packed, unpacked
from ._runtime import carried_policy, check_backend, noted_policy
from ._storage import archive
from ._storage.archive import check_keys, require

# Parameters that are code, or too large: a text that `fit` refuses stands in for them.
REPLACED = (
    "estimator",
    "encoder",
    "pretext",
    "random_state",
    "optimizer",
    "pretrain_optimizer",
    "augmentation",
    "self_training",
    "callbacks",
)
# Folders of this machine, from which joblib unpickles: never taken from a file.
LOCAL = ("memory", "checkpoint_dir")
# Attributes that are rebuilt from others.
REBUILT_ATTRIBUTES = "_network", "backbone_"


def all_or_nothing(fit):
    """Decorate a fit method: it works on a copy, so a failed fit changes nothing.

    In a worker it trains under the dtype policy of where the estimator was cloned.
    """

    @functools.wraps(fit)
    def fit_copy(self, *args, **kwargs):
        copied = object.__new__(type(self))
        vars(copied).update(vars(self))
        check_backend()
        with carried_policy(vars(self).get("_policy")):
            fit(copied, *args, **kwargs)
        self.__dict__ = vars(copied)
        return self

    return fit_copy


class ImageEstimator(BaseEstimator):
    """Base of the estimators that take images as X."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _fit_images(self, X, allow_views=False):
        """Return X as images, and set what is known of the input."""
        return validate_images(
            self, X, image_shape=self.image_shape, reset=True, allow_views=allow_views
        )

    def _check_images(self, X, allow_views=False):
        """Return X as images of the shape seen in `fit`."""
        check_is_fitted(self)
        return validate_images(self, X, reset=False, allow_views=allow_views)


def validate_images(estimator, X, *, image_shape=None, reset, allow_views=False):
    """Return X as images, and set or check what an estimator knows of its input.

    Parameters
    ----------
    estimator : estimator
        Gets `n_features_in_`, `image_shape_` and, for a DataFrame,
        `feature_names_in_` where `reset` is true, and is checked against them
        where it is not.
    X, image_shape, allow_views
        As in :func:`~skssl._data.images.as_images`, errors included.
    reset : bool
        Whether this is a fit.

    Returns
    -------
    images : ndarray of shape (n_samples, [n_views,] height, width, channels)
        The images.
    """
    pixels = check_pixels(X, image_shape, allow_views)
    if pixels.ndim == 2:
        table = X if hasattr(X, "columns") else pixels  # a DataFrame has names
        validate_data(estimator, table, reset=reset, skip_check_array=True)
    if pixels.ndim == 2 and not reset:
        images = rows_to_images(pixels, estimator.image_shape_)
    else:
        images = shape_images(pixels, image_shape)
    if reset:
        estimator.image_shape_ = images.shape[-3:]
        if pixels.ndim > 2:
            estimator.n_features_in_ = math.prod(estimator.image_shape_)
            vars(estimator).pop("feature_names_in_", None)
    elif images.shape[-3:] != estimator.image_shape_:
        raise ValueError(
            f"X has images of shape {images.shape[-3:]}, but "
            f"{type(estimator).__name__} was fitted on images of shape "
            f"{estimator.image_shape_}. Resize or crop them; give a single image as "
            f"X[np.newaxis].{channels_first_hint(images.shape)}"
        )
    return images


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
        state, namely `estimator`, `encoder`, `callbacks`, a `pretext` from outside
        skssl and a `RandomState`, are not saved: a text stands in for them, with which
        `fit` refuses to train, rather than train another network, until they are given
        anew by `set_params`. Not saved either are `memory`, `checkpoint_dir`, the
        choice of `set_output` and the time that each stage took.

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
        skssl.load : Loads the file.
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


class SelfSupervisedEstimator(
    SavableMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    ImageEstimator,
):
    """Base of the estimators that hold a pretrained network.

    Pickles, copies and clones hold the user's code that the networks consist of.
    """

    _packs_networks = True

    def __getstate__(self):
        state = super().__getstate__().copy()
        for name in REBUILT_ATTRIBUTES:
            state.pop(name, None)
        return {name: code_packed(value) for name, value in packed(state).items()}

    def __setstate__(self, state):
        super().__setstate__(unpacked(state))
        if hasattr(self, "pretext_model_"):
            self.backbone_ = self.pretext_model_.get_layer("backbone")

    def __copy__(self):
        copied = type(self).__new__(type(self))
        vars(copied).update(vars(self))
        vars(copied).pop("_network", None)  # only one of the two may train it further
        return copied

    def __sklearn_clone__(self):
        stripped = copy(self)
        vars(stripped).update(packed(self.get_params(deep=False)))
        cloned = super(SelfSupervisedEstimator, stripped).__sklearn_clone__()
        vars(cloned).update(unpacked(cloned.get_params(deep=False)))
        policy = noted_policy(vars(self).get("_policy"))
        if policy is not None:
            cloned._policy = policy  # for a worker that the clone is sent to
        return cloned

    def _repr_mimebundle_(self, **kwargs):
        """Return what notebooks show: scikit-learn's diagram, and the training."""
        bundle = super()._repr_mimebundle_(**kwargs)
        if "text/html" in bundle:
            bundle["text/html"] += self._training_html()
        return bundle

    def _repr_html_inner(self):
        """Return the same for tools that ask for `_repr_html_`, such as galleries."""
        return super()._repr_html_inner() + self._training_html()

    def _training_html(self):
        if not hasattr(self, self._saved_network):
            return ""
        return training_table(self._stage_histories(), vars(self).get("_seconds", ()))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # Embeddings are float32, whatever the images are.
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _check_standardize(self):
        choices = True, False, "auto"
        if (
            not isinstance(self.standardize, bool | str)
            or self.standardize not in choices
        ):
            raise ValueError(
                f"standardize must be True, False or 'auto', got {self.standardize!r}."
            )

    def _check_callbacks(self):
        if self.callbacks is None:
            return
        from keras.callbacks import Callback

        if not isinstance(self.callbacks, list | tuple) or not all(
            isinstance(callback, Callback) for callback in self.callbacks
        ):
            raise TypeError(
                "callbacks must be a list of keras.callbacks.Callback, or None, got "
                f"{self.callbacks!r}."
            )

    def _draw_seeds(self, n_seeds, wrapper):
        """Return seeds; without a random_state from that of the user's wrapper."""
        random_state = check_random_state(self._random_source(wrapper))
        return random_state.randint(np.iinfo(np.int32).max, size=n_seeds).tolist()

    def _random_source(self, wrapper):
        if self.random_state is None:
            return deepcopy(getattr(wrapper, "random_state", None))
        return self.random_state


def joined_histories(history, more):
    """Return one history of both, NaN where an epoch has no value.

    Either may be None.
    """
    if not history or not more:
        return history or more
    empty, no_more = (
        [math.nan] * len(next(iter(x.values()), ())) for x in (history, more)
    )
    return {
        key: [*history.get(key, empty), *more.get(key, no_more)]
        for key in {**history, **more}
    }
