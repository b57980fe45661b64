"""Fitted estimators as files without pickle, safe to load from strangers.

A file is an uncompressed zip of one JSON, which owns all that is not a network, and of
networks in the `.keras` format of Keras. No file is trusted: `_archive` checks what it
holds before Keras builds a network. Nothing in a file is ever run or imported. `save`
reads back what it wrote, so what was saved can be loaded.
"""

import importlib
import json
import math
import os
import pickle
import re
import tempfile
from numbers import Real

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .._data.labels import is_missing
from .._networks.packing import error_summary
from .archive import (
    expect,
    expect_keys,
    load_network,
    network_bytes,
    read_zip,
    write_zip,
)

FORMAT_VERSION = 1
STATE, MODEL, PRETEXT_MODEL = "estimator.json", "model.keras", "pretext_model.keras"
VERSIONED = ("skssl", "keras", "tensorflow", "sklearn", "numpy")
MAX_CLASS_BYTES = 2**26

ESTIMATORS = ("SelfSupervisedClassifier", "SelfSupervisedEncoder")


class _Lazy(dict):
    def fill(self):
        import skssl.pretext as p

        self.update(RotationPretext=p.RotationPretext, GivenViews=p.GivenViews)
        return self


PRETEXTS = _Lazy()
# Parameters that are code, or too large: a text that `fit` refuses stands in for them.
REPLACED = ("estimator", "encoder", "pretext", "random_state")
# Folders of this machine, from which joblib unpickles: never taken from a file.
LOCAL = ("memory", "checkpoint_dir")


class SaveMixin:
    """Gives an estimator its `save`."""

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
        if name not in ESTIMATORS or type(self) is not _estimator_class(name):
            raise TypeError(
                f"Only {' and '.join(ESTIMATORS)} themselves can be saved, got "
                f"{self!r}. {_with_pickle(self)}"
            )
        check_is_fitted(self)
        with tempfile.TemporaryDirectory(
            dir=os.path.dirname(path), prefix=".skssl-"
        ) as folder:
            temporary = os.path.join(folder, "estimator")
            try:
                _write(self, temporary, folder)
                with open(temporary, "rb") as file:
                    _read(file)
            except OSError:
                raise
            except Exception as error:
                raise TypeError(
                    f"This {name} cannot be saved without pickle: "
                    f"{error_summary(error)}. {_with_pickle(self)}"
                ) from error
            os.replace(temporary, path)


def _with_pickle(estimator):
    """Say whether an estimator can be saved with pickle."""
    try:
        pickle.dumps(estimator)
    except Exception as error:
        return f"Nor can joblib.dump: {error_summary(error)}."
    return "joblib.dump saves it, for readers who trust you."


def load(path):
    """Load a saved estimator; the file need not be trusted.

    No code in the file is run. Memory is bounded by a small multiple of its size; that
    of later predictions is what the network in it asks for.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    estimator : SelfSupervisedClassifier or SelfSupervisedEncoder
        The fitted estimator; for parameters that are not saved see its `save`.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is damaged, from a newer version, or holds anything that `save` does not
        write.

    See Also
    --------
    SelfSupervisedClassifier.save : Write the file.
    SelfSupervisedEncoder.save : Write the file.

    Examples
    --------
    >>> import os, tempfile
    >>> from sklearn.datasets import load_digits
    >>> import skssl
    >>> X, _ = load_digits(return_X_y=True)
    >>> encoder = skssl.SelfSupervisedEncoder(epochs=1).fit(X[:50])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "digits.skssl")
    ...     encoder.save(path)
    ...     loaded = skssl.load(path)
    >>> bool((loaded.transform(X[:5]) == encoder.transform(X[:5])).all())
    True
    """
    with open(path, "rb") as file:
        try:
            return _read(file)
        except Exception as error:
            raise ValueError(
                f"{os.fspath(path)!r} cannot be loaded: {error_summary(error)}. Only "
                "unchanged files from the save method of skssl can."
            ) from error


def _estimator_class(name):
    # By its public name: the estimators import this module, not the reverse.
    return getattr(importlib.import_module("skssl"), name)


# From an estimator to a file


def _write(estimator, path, folder):
    networks = {}
    if hasattr(estimator, "classes_"):
        state, networks[MODEL] = _classifier_state(estimator), estimator.model_
        encoder = estimator.encoder_
    else:
        state, encoder = _encoder_state(estimator), estimator
    if encoder is not None:
        networks[PRETEXT_MODEL] = encoder.pretext_model_
    versions = {x: importlib.import_module(x).__version__ for x in VERSIONED}
    header = {"format": FORMAT_VERSION, "kind": type(estimator).__name__}
    state = {**header, "versions": versions, "state": state}
    members = {name: network_bytes(x, folder) for name, x in networks.items()}
    members[STATE] = json.dumps(state, default=lambda x: x.tolist()).encode()
    with open(path, "wb") as file:
        write_zip(file, members)


def _classifier_state(classifier):
    classes, encoder = classifier.classes_, classifier.encoder_
    return {
        **_common_state(classifier),
        "classes": {"dtype": classes.dtype.str, "labels": classes.tolist()},
        "finetune_history": classifier.finetune_history_,
        "encoder": None if encoder is None else _encoder_state(encoder),
    }


def _encoder_state(encoder):
    return {
        **_common_state(encoder),
        "pretext": _encode(encoder.pretext_),
        "history": encoder.history_,
    }


def _common_state(estimator):
    names = getattr(estimator, "feature_names_in_", None)
    params = estimator.get_params(deep=False)
    return {
        "params": {
            name: _encode_param(name, value)
            for name, value in params.items()
            if name not in LOCAL
        },
        "image_shape": estimator.image_shape_,
        "n_features_in": estimator.n_features_in_,
        "feature_names_in": names,
    }


def _encode_param(name, value):
    try:
        return _encode(value)
    except ValueError:
        if name not in REPLACED:
            raise
        what = getattr(value, "__name__", type(value).__name__)
        return f"{what}, which was not saved: give {name} anew with set_params"


def _encode(value):
    """Return a value in a form that JSON holds, types included."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is not None and is_missing(value):
        return math.nan  # pd.NA marks the same rows
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind in (tuple, list):
        return {kind.__name__: [_encode(item) for item in value]}
    if kind is dict:  # as pairs: the keys of JSON are text
        return {"dict": [[_encode(k), _encode(v)] for k, v in value.items()]}
    if kind in PRETEXTS.fill().values():
        params = value.get_params(deep=False)
        return {"pretext": [kind.__name__, {k: _encode(v) for k, v in params.items()}]}
    raise ValueError(f"{value!r} is neither of skssl nor plain numbers and text")


# From a file to an estimator


def _read(file):
    """Return the estimator in an open file."""
    members = read_zip(file)
    expect(STATE in members, f"it holds no {STATE}")
    header = json.loads(members.pop(STATE))
    version = header["format"]
    expect(
        type(version) is int and 1 <= version <= FORMAT_VERSION,
        f"it has format {version!r}, but this version of skssl reads formats up to "
        f"{FORMAT_VERSION}: update skssl",
    )
    expect_keys(STATE, header, {"format", "kind", "versions", "state"})
    kind, state = header["kind"], header["state"]
    expect(kind in ESTIMATORS, f"it holds an estimator of unknown kind {kind!r}")
    expected = {PRETEXT_MODEL}
    if kind == "SelfSupervisedClassifier":
        expected = {MODEL} if state["encoder"] is None else {MODEL, PRETEXT_MODEL}
    expect_keys("it", members, expected)
    keras_version = header["versions"]["keras"]
    networks = {
        name: load_network(name, data, keras_version) for name, data in members.items()
    }
    if kind == "SelfSupervisedClassifier":
        return _restored_classifier(state, networks)
    return _restored_encoder(state, networks)


def _restored_classifier(state, networks):
    keys = {"classes", "finetune_history", "encoder"}
    classifier = _restored("SelfSupervisedClassifier", state, keys)
    classifier.classes_ = _classes(**state["classes"])
    classifier.finetune_history_ = _history(state["finetune_history"])
    classifier.encoder_ = classifier.pretrain_history_ = None
    if state["encoder"] is not None:
        classifier.encoder_ = _restored_encoder(state["encoder"], networks)
        classifier.pretrain_history_ = classifier.encoder_.history_
        expect(
            classifier.encoder_.image_shape_ == classifier.image_shape_,
            "its encoder takes images of another shape",
        )
    classifier.model_ = networks[MODEL]
    n_classes = len(classifier.classes_)
    units = {n_classes, 1} if n_classes == 2 else {n_classes}
    _check_network(classifier.model_, classifier.image_shape_, units)
    return classifier


def _restored_encoder(state, networks):
    encoder = _restored("SelfSupervisedEncoder", state, {"pretext", "history"})
    batch_size = encoder.batch_size  # the one parameter that is used after fit
    expect(
        type(batch_size) is int and batch_size >= 1,
        f"its batch_size is {batch_size!r}",
    )
    encoder.history_ = _history(state["history"])
    pretext = _decode(state["pretext"])
    expect(type(pretext) in PRETEXTS.fill().values(), "it names no pretext task")
    # As in `fit`, which checks the images' shape; and bytes that take no memory.
    images = np.broadcast_to(np.uint8(0), (1, *encoder.image_shape_))
    encoder.pretext_ = pretext.fit(images)
    expect(type(pretext.n_views) is int, f"it has {pretext.n_views!r} views")
    encoder.pretext_model_ = networks[PRETEXT_MODEL]
    encoder.backbone_ = _check_network(
        encoder.pretext_model_, encoder.image_shape_, {pretext.n_views}
    )
    return encoder


def _restored(name, state, keys):
    """Return an estimator with what all of them have in common."""
    common = {"params", "image_shape", "n_features_in", "feature_names_in"}
    expect_keys(name, state, common | keys)
    cls, params = _estimator_class(name), state["params"]
    unknown = set(params) - (set(cls().get_params(deep=False)) - set(LOCAL))
    expect(not unknown, f"it has unknown parameters: {sorted(unknown)}")
    estimator = cls(**{key: _decode(value) for key, value in params.items()})
    shape, names = tuple(state["image_shape"]), state["feature_names_in"]
    expect(
        len(shape) == 3 and all(type(n) is int and n > 0 for n in shape),
        f"it has the image shape {shape}",
    )
    n_features = state["n_features_in"]
    expect(
        type(n_features) is int and 1 <= n_features <= math.prod(shape),
        f"it has {n_features!r} features for images of shape {shape}",
    )
    estimator.image_shape_, estimator.n_features_in_ = shape, n_features
    if names is not None:
        expect(
            isinstance(names, list)
            and len(names) == n_features
            and all(isinstance(name, str) for name in names),
            "its feature names are no list of one text a feature",
        )
        estimator.feature_names_in_ = np.array(names, dtype=object)
    return estimator


def _decode(value):
    if not isinstance(value, dict):
        expect(not isinstance(value, list), f"it holds {value!r} out of place")
        return value
    ((kind, items),) = value.items()
    if kind in ("tuple", "list"):
        return {"tuple": tuple, "list": list}[kind](_decode(item) for item in items)
    if kind == "dict":
        return {_decode(key): _decode(item) for key, item in items}
    expect(kind == "pretext", f"it holds a value of the unknown type {kind!r}")
    name, params = items
    expect(name in PRETEXTS.fill(), f"it names the unknown pretext task {name!r}")
    return PRETEXTS[name](**{key: _decode(item) for key, item in params.items()})


def _classes(dtype, labels):
    expect(
        re.fullmatch(r"[<>|][biufU]\d+", dtype),
        f"its classes are neither numbers, booleans nor text, but {dtype!r}",
    )
    n_bytes = np.dtype(dtype).itemsize * len(labels)
    expect(n_bytes <= MAX_CLASS_BYTES, f"its classes take {n_bytes} bytes")
    classes = np.array(labels, dtype=dtype)
    expect(
        classes.tolist() == labels
        and len(classes) >= 2
        and np.array_equal(np.unique(classes), classes),
        f"its classes are no sorted list of distinct labels of dtype {dtype}",
    )
    return classes


def _history(history):
    def numeric(value):
        if isinstance(value, list):
            return all(map(numeric, value))
        return isinstance(value, Real)

    expect(
        all(isinstance(v, list) and numeric(v) for v in history.values()),
        "its history is no dict of lists of numbers",
    )
    return history


def _check_network(model, image_shape, units):
    """Return the backbone of a network that has the shapes which the state says."""
    import keras

    expected = (None, *image_shape)
    shapes = model.input_shape, model.output_shape
    expect(
        shapes[0] == expected and shapes[1] in {(None, n) for n in units},
        f"a network in it maps {shapes[0]} to {shapes[1]}, expected {expected} to "
        f"(None, {max(units)})",
    )
    backbone = model.get_layer("backbone")
    expect(
        isinstance(backbone, keras.Model)
        and backbone.input_shape == expected
        and len(backbone.output_shape) == 2,
        "a network in it has a backbone of other shapes",
    )
    return backbone
