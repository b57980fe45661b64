import io
import json
import os
import pickle
import random
import re
import subprocess
import sys
import time
import warnings
import zipfile
from copy import copy

import joblib
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from networks import two_stages
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from skssl import (
    RotationPretext,
    SelfSupervisedClassifier,
    SelfSupervisedEncoder,
    load,
)

X, Y = load_digits(return_X_y=True)
X, Y = X[:100], Y[:100]
ROTATION = RotationPretext((0, 180), image_shape=(8, 8))


@pytest.fixture(scope="module")
def classifier(tiny):
    return two_stages(
        tiny,
        pretext=ROTATION,
        image_shape=(8, 8),
        pretrain_epochs=1,
        class_weight={digit: 1.0 + digit for digit in range(10)},
        random_state=0,
    ).fit(X, Y)


@pytest.fixture(scope="module")
def encoder(tiny):
    return SelfSupervisedEncoder(tiny, epochs=1, random_state=0).fit(X)


@pytest.fixture(scope="module")
def binary(tiny):
    """Return a classifier of two classes, without pretraining."""
    return two_stages(tiny, pretrain_epochs=0).fit(X, Y % 2)


@pytest.fixture(scope="module")
def path(classifier, tmp_path_factory):
    """Return a file of the classifier, which no test changes."""
    path = tmp_path_factory.mktemp("saved") / "digits.skssl"
    classifier.save(path)
    return path


def supervised(estimator, y=Y, **params):
    """Return a classifier after one epoch without pretraining."""
    from scikeras.wrappers import KerasClassifier

    wrapper = KerasClassifier(estimator, epochs=1, optimizer="adam")
    params = {"pretrain_epochs": 0, "random_state": 0, **params}
    return two_stages(wrapper, **params).fit(X, y)


def reloaded(estimator, tmp_path):
    estimator.save(tmp_path / "estimator")
    return load(tmp_path / "estimator")


def assert_same(loaded, saved, X=X, methods=("predict_pretext", "transform")):
    """Check that both predict the same, bit for bit, and have the same attributes."""
    assert type(loaded) is type(saved)
    for method in methods:
        assert_array_equal(getattr(loaded, method)(X), getattr(saved, method)(X))
    assert vars(loaded).keys() == vars(saved).keys() - {"_seconds"}  # of the training
    for name in ("image_shape_", "n_features_in_"):
        assert getattr(loaded, name) == getattr(saved, name)


def read_zip(file):
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_zip(file, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def changed_state(path, target, change, all_arrays=False):
    """Write a copy of a file in which `change` was applied to the JSON.

    Arrays that the JSON names no more are left out, unless all are to stay.
    """
    members = read_zip(path)
    header = json.loads(members["estimator.json"])
    change(header)
    text = members["estimator.json"] = json.dumps(header)
    named = {"estimator.json"} | {
        f"arr_{position}.npy"
        for position in re.findall(r'"ndarray", "items": (\d+)', text)
    }
    write_zip(target, {x: members[x] for x in members if all_arrays or x in named})
    return target


def typed(kind, items):
    """Return how the JSON holds a value of a type that JSON does not have."""
    return {"__type__": kind, "items": items}


def network_in(header, of):
    """Return what the JSON holds of the network of the classifier or its encoder."""
    state = header["state"] if of == "classifier" else header["state"]["encoder_"]
    return state["network"]


def changed_config(path, target, change, of="classifier"):
    """Write a copy in which `change` was applied to the architecture of a network."""

    def change_config(header):
        network = network_in(header, of)
        config = json.loads(network["config"])
        change(config)
        network["config"] = json.dumps(config)

    return changed_state(path, target, change_config)


def changed_array(path, target, change, choose=lambda header: first_kernel(header)):
    """Write a copy in which `change` was applied to the bytes of an array."""
    members = read_zip(path)
    name = f"arr_{choose(json.loads(members['estimator.json']))['items']}.npy"
    write_zip(target, {**members, name: change(members[name])})
    return target


def first_kernel(header):
    """Return the reference to a variable of three rows, three columns and more."""
    return network_in(header, "classifier")["variables"][3]


def npy(array, **kwargs):
    buffer = io.BytesIO()
    np.save(buffer, array, **kwargs)
    return buffer.getvalue()


def npy_header(descr, shape):
    """Return a .npy file that declares an array, and holds none of its bytes."""
    buffer = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def layers_of(config, class_name):
    """Return the configurations of all layers of a class, however deep."""
    if isinstance(config, list):
        return [layer for item in config for layer in layers_of(item, class_name)]
    if not isinstance(config, dict):
        return []
    found = [config] if config.get("class_name") == class_name else []
    return found + layers_of(list(config.values()), class_name)


# What comes back


def test_a_classifier_comes_back_as_it_was(classifier, path):
    loaded = load(path)
    methods = ("predict", "predict_proba", "transform", "predict_pretext")
    assert_same(loaded, classifier, methods=(*methods, "score_pretext"))
    assert loaded.score(X, Y) == classifier.score(X, Y)
    assert_array_equal(loaded.classes_, classifier.classes_)
    assert loaded.classes_.dtype == classifier.classes_.dtype
    assert loaded.finetune_history_ == classifier.finetune_history_
    assert loaded.pretrain_history_ == classifier.pretrain_history_
    assert_same(loaded.encoder_, classifier.encoder_)
    assert loaded.encoder_.history_ is loaded.pretrain_history_
    assert vars(loaded.encoder_.pretext_) == vars(classifier.encoder_.pretext_)


def test_another_process_predicts_the_same_bits(classifier, path, tmp_path):
    np.save(tmp_path / "X.npy", X)
    code = (
        "import sys, numpy as np\n"
        "from skssl import load\n"
        "loaded, X = load(sys.argv[1]), np.load(sys.argv[2])\n"
        "np.savez(sys.argv[3], loaded.predict_proba(X), loaded.predict_pretext(X))\n"
    )
    files = [path, tmp_path / "X.npy", tmp_path / "predicted.npz"]
    subprocess.run([sys.executable, "-c", code, *files], check=True)
    with np.load(files[-1]) as predicted:
        assert_array_equal(predicted["arr_0"], classifier.predict_proba(X))
        assert_array_equal(predicted["arr_1"], classifier.predict_pretext(X))


def test_an_encoder_comes_back_as_it_was(encoder, tmp_path):
    pickle.loads(pickle.dumps(encoder))  # scikeras registers classes at that
    loaded = reloaded(encoder, tmp_path)
    assert_same(loaded, encoder)
    assert loaded.score(X) == encoder.score(X)
    assert loaded.history_ == encoder.history_
    assert_array_equal(loaded.get_feature_names_out(), encoder.get_feature_names_out())


def test_ready_views_stay_the_task(tiny, tmp_path):
    views = ROTATION.fit_transform(X.reshape(-1, 8, 8, 1))
    encoder = SelfSupervisedEncoder(tiny, epochs=1).fit(views)
    loaded = reloaded(encoder, tmp_path)
    assert_same(loaded, encoder, views)
    assert loaded.score(views) == encoder.score(views)


def test_nothing_pretrained_stays_nothing(tiny, tmp_path):
    frame = pd.DataFrame(X[:, :60], columns=[f"pixel {k}" for k in range(60)])
    classifier = two_stages(tiny, pretrain_epochs=0)
    with pytest.warns(UserWarning, match="padded"):
        classifier.fit(frame, np.array(["even", "odd"], object)[Y % 2])
    loaded = reloaded(classifier, tmp_path)
    assert_same(loaded, classifier, frame, ["predict", "predict_proba", "transform"])
    assert loaded.encoder_ is None and loaded.pretrain_history_ is None
    assert not hasattr(loaded, "predict_pretext")
    assert_array_equal(loaded.feature_names_in_, frame.columns)
    assert loaded.feature_names_in_.dtype == object
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(frame.rename(columns={"pixel 0": "other"}))


@pytest.mark.parametrize(
    "classes",
    [
        np.array([3, 7], np.uint8),
        np.array([-3, 7], ">i4"),
        np.array(["no", "yes, indeed"]),
        np.array([False, True]),
        np.array([0.1, 2.0], np.float32),
    ],
    ids=["bytes", "big-endian", "text", "booleans", "floats"],
)
def test_classes_keep_their_dtype(classes, binary, tmp_path):
    classifier = copy(binary)
    classifier.classes_ = classes
    loaded = reloaded(classifier, tmp_path)
    assert loaded.classes_.dtype == classes.dtype
    assert_array_equal(loaded.classes_, classes)
    assert loaded.predict(X).dtype == classifier.predict(X).dtype


def test_one_sigmoid_unit_stays_two_classes(tmp_path):
    import keras

    def build_sigmoid(meta):
        layers = [keras.layers.Flatten(), keras.layers.Dense(1, activation="sigmoid")]
        return keras.Sequential([keras.Input((8, 8, 1)), *layers])

    classifier = supervised(build_sigmoid, Y % 2)
    loaded = reloaded(classifier, tmp_path)
    assert_same(loaded, classifier, methods=["predict", "predict_proba"])


def test_harmless_networks_come_back(tmp_path):
    import keras
    from keras import layers

    def build_residual(meta):
        inputs = keras.Input((8, 8, 1))
        x = layers.RandomFlip()(layers.RandomRotation(0.1)(inputs))
        x = layers.Conv2D(2, 3, kernel_regularizer="l2", bias_constraint="non_neg")(x)
        x = keras.ops.relu(x * 2 + layers.BatchNormalization()(x))
        inner = keras.Sequential([keras.Input((6, 6, 2)), layers.DepthwiseConv2D(2)])
        inner.compile("adam", "mse")  # settings of training, which are left out
        x = layers.Reshape((-1, 2))(inner(x))
        x = layers.Dropout(0.5)(layers.MultiHeadAttention(1, 2)(x, x))
        x = layers.LayerNormalization()(x)[:, 0]
        return keras.Model(inputs, layers.Dense(10)(x))

    classifier = supervised(build_residual, frozen_layers=2)
    loaded = reloaded(classifier, tmp_path)
    assert_same(loaded, classifier, methods=["predict_proba", "transform"])

    def trainable(classifier):
        return [w.shape for w in classifier.model_.trainable_weights]

    assert trainable(loaded) == trainable(classifier)


def test_networks_of_other_dtypes_come_back(tmp_path):
    import keras
    from keras import layers

    def build_mixed(meta):
        inputs = keras.Input((8, 8, 1))
        x = layers.Conv1D(2, 3, dtype="bfloat16", trainable=False)(
            layers.Flatten()(inputs)[..., None]
        )
        x = layers.Dense(3, dtype="float64")(layers.GlobalMaxPooling1D()(x))
        return keras.Model(inputs, layers.Dense(10, dtype="float32")(x))

    classifier = supervised(build_mixed)
    loaded = reloaded(classifier, tmp_path)
    assert_same(loaded, classifier, methods=["predict_proba", "transform"])
    dtypes = [variable.dtype for variable in classifier.model_.variables]
    assert {"bfloat16", "float64", "float32"} <= set(dtypes)
    assert [variable.dtype for variable in loaded.model_.variables] == dtypes


def test_missing_values_in_a_history_come_back(binary, tmp_path):
    classifier = copy(binary)
    classifier.finetune_history_ = {"loss": [float("nan"), 0.5], "recall": [[1.0, 0.0]]}
    loaded = reloaded(classifier, tmp_path)
    assert_array_equal(loaded.finetune_history_["loss"], [np.nan, 0.5])
    assert loaded.finetune_history_["recall"] == [[1.0, 0.0]]


# Parameters


def test_parameters_come_back_with_their_types(classifier, path):
    loaded, saved = load(path).get_params(), classifier.get_params()
    names = set(classifier.get_params(deep=False)) - {"estimator", "pretext"}
    assert {name: loaded[name] for name in names} == {
        name: saved[name] for name in names
    }
    assert list(loaded["class_weight"]) == list(range(10))  # not "0", "1", …
    assert repr(loaded["pretext"]) == repr(ROTATION)
    assert isinstance(loaded["pretext"].angles, tuple)


@pytest.mark.parametrize("unlabeled_label", [np.int64(-1), "none", 2.5, None])
def test_the_mark_of_unlabelled_rows_comes_back(unlabeled_label, binary, tmp_path):
    classifier = copy(binary).set_params(unlabeled_label=unlabeled_label)
    assert reloaded(classifier, tmp_path).unlabeled_label == unlabeled_label


def test_a_refit_fails_rather_than_train_another_network(path):
    loaded = load(path)
    assert "KerasClassifier, which was not saved" in loaded.estimator
    before = loaded.predict_proba(X)
    with pytest.raises(TypeError, match="give estimator anew with set_params"):
        loaded.fit(X, Y)
    with pytest.raises(TypeError, match="give estimator anew with set_params"):
        clone(loaded).fit(X, Y)
    assert_array_equal(loaded.predict_proba(X), before)


def test_a_refit_with_the_same_estimator_is_the_same(classifier, tiny, path):
    loaded = load(path).set_params(estimator=tiny).fit(X, Y)
    assert_array_equal(loaded.predict_proba(X), classifier.predict_proba(X))


def test_what_carries_state_is_not_saved(encoder, tmp_path):
    classifier = two_stages(
        encoder.estimator,
        encoder=FrozenEstimator(encoder),
        random_state=np.random.RandomState(0),
    ).fit(X, Y)
    loaded = reloaded(classifier, tmp_path)
    assert_same(loaded.encoder_, encoder)
    loaded.set_params(estimator=encoder.estimator)
    with pytest.raises(ValueError, match="give random_state anew with set_params"):
        loaded.fit(X, Y)
    with pytest.raises(TypeError, match="give encoder anew with set_params"):
        loaded.set_params(random_state=0).fit(X, Y)


def test_what_was_loaded_can_be_saved_again(path, tmp_path):
    loaded = load(path)
    again = reloaded(loaded, tmp_path)
    assert_same(again, loaded, methods=["predict_proba", "predict_pretext"])
    assert again.estimator == loaded.estimator


# Saving


@pytest.mark.parametrize("kind", [SelfSupervisedClassifier, SelfSupervisedEncoder])
def test_nothing_unfitted_is_saved(kind, tmp_path):
    with pytest.raises(NotFittedError):
        kind().save(tmp_path / "estimator")
    assert os.listdir(tmp_path) == []


class UserPretext(RotationPretext):
    pass


def test_what_json_cannot_hold_is_not_saved(tiny, binary, tmp_path):
    class Sub(SelfSupervisedEncoder):
        pass

    encoder = SelfSupervisedEncoder(tiny, pretext=UserPretext(), epochs=1).fit(X)
    target = tmp_path / "estimator"
    target.write_text("what was there")
    with pytest.raises(TypeError, match=r"UserPretext\(\) is neither.*joblib"):
        encoder.save(target)
    with pytest.raises(TypeError, match=r"themselves can be saved, got Sub.*joblib"):
        Sub().save(target)
    marked = copy(binary).set_params(unlabeled_label=object())
    with pytest.raises(TypeError, match=r"object object at .* is neither.*joblib"):
        marked.save(target)
    dated = copy(binary)
    dated.classes_ = np.array(["2020-01-01", "2021-01-01"], "M8[D]")
    with pytest.raises(TypeError, match=r"cannot be saved without pickle.*joblib"):
        dated.save(target)
    assert target.read_text() == "what was there"
    assert os.listdir(tmp_path) == ["estimator"]


def test_a_network_with_code_is_not_saved(tmp_path):
    import keras

    @keras.saving.register_keras_serializable("test_persistence")
    class Registered(keras.layers.Layer):
        def call(self, inputs):
            return inputs

    def build_with(layer):
        def build_network(meta):
            layers = [layer(), keras.layers.Flatten(), keras.layers.Dense(10)]
            return keras.Sequential([keras.Input((8, 8, 1)), *layers])

        return build_network

    def double(x):
        return x * 2

    for layer, message in [
        (Registered, "Registered from"),
        (lambda: keras.layers.Lambda(double), "Lambda from keras.layers"),
        (lambda: keras.layers.Activation(double), "function 'double' from"),
        (lambda: keras.layers.Activation(lambda x: x), "includes a `lambda`"),
    ]:
        classifier = supervised(build_with(layer))
        message = f"cannot be saved .*{message}.*joblib.dump saves it, for readers"
        with pytest.raises(TypeError, match=message):
            classifier.save(tmp_path / "estimator")
        assert os.listdir(tmp_path) == []
        joblib.dump(classifier, tmp_path / "dump")
        again = joblib.load(tmp_path / "dump")
        assert_array_equal(again.predict_proba(X), classifier.predict_proba(X))
        os.remove(tmp_path / "dump")


def test_where_joblib_cannot_save_either_it_is_said(tmp_path):
    import keras
    from networks import Undescribed

    def build_network(meta):
        layers = [Undescribed(abs), keras.layers.Flatten(), keras.layers.Dense(10)]
        return keras.Sequential([keras.Input((8, 8, 1)), *layers])

    message = "(?s)cannot be saved .*get_config.*Nor can joblib.dump: .*get_config"
    with pytest.raises(TypeError, match=message):
        supervised(build_network).save(tmp_path / "estimator")


def test_saving_leaves_one_file_of_known_members(path, tmp_path, classifier):
    classifier.save(tmp_path / "estimator")
    classifier.save(tmp_path / "estimator")  # over the first
    assert os.listdir(tmp_path) == ["estimator"]
    members = read_zip(path)
    arrays = {f"arr_{position}.npy" for position in range(len(members) - 1)}
    assert set(members) == {"estimator.json"} | arrays
    for name in arrays:
        np.load(io.BytesIO(members[name]), allow_pickle=False)
    versions = json.loads(members["estimator.json"])["versions"]
    assert versions["numpy"] == np.__version__


def test_loading_leaves_nothing_behind(path, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    random_state, numpy_state = random.getstate(), np.random.get_state()[1].tolist()
    load(path)
    bad = changed_config(path, tmp_path / "bad", lambda config: config.clear())
    with pytest.raises(ValueError, match="cannot be loaded"):
        load(bad)
    assert os.listdir(tmp_path) == ["bad"]
    assert random.getstate() == random_state
    assert np.random.get_state()[1].tolist() == numpy_state


# Archives that are refused


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing")


def test_no_zip_is_refused(path, tmp_path):
    target = tmp_path / "estimator"
    for data in (b"", b"no zip at all", path.read_bytes()[:1000]):
        target.write_bytes(data)
        with pytest.raises(ValueError, match="cannot be loaded: BadZipFile"):
            load(target)
    target.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cannot be loaded: BadZipFile"):
        load(target)
    # The end of another zip passes for the end of the file.
    write_zip(target, {"arr_0.npy": npy(np.zeros(3))})
    target.write_bytes(path.read_bytes() + target.read_bytes())
    with pytest.raises(ValueError, match=r"it holds no estimator\.json"):
        load(target)


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/evil", "data.pkl", "arr_0.npy/", "ESTIMATOR.json", "arr_999.npy"],
)
def test_unexpected_members_are_refused(name, path, tmp_path):
    target = tmp_path / "estimator"
    write_zip(target, {**read_zip(path), name: b"cos\nsystem\n(S'true'\ntR."})
    with pytest.raises(ValueError, match=f"holds members that it does not .*{name}"):
        load(target)
    changed_state(path, target, lambda h: h["state"]["network"].update({name: ""}))
    with pytest.raises(ValueError, match=f"network in it holds .*{name}.*, not "):
        load(target)


def test_arrays_that_nothing_names_are_refused(path, tmp_path):
    def change(header):
        header["state"]["encoder_"] = None

    load(changed_state(path, tmp_path / "estimator", change))
    changed_state(path, tmp_path / "estimator", change, all_arrays=True)
    with pytest.raises(
        ValueError, match=r"members that it does not name: \['arr_\d+\.npy"
    ):
        load(tmp_path / "estimator")


@pytest.mark.parametrize("of", ["classifier", "encoder"])
@pytest.mark.parametrize("key", ["keras", "config", "variables"])
def test_networks_without_a_part_are_refused(key, of, path, tmp_path):
    target = changed_state(
        path, tmp_path / "estimator", lambda header: network_in(header, of).pop(key)
    )
    with pytest.raises(ValueError, match=rf"network in it holds \[.*\], not .*{key}"):
        load(target)


def test_missing_members_are_refused(path, tmp_path):
    target, members = tmp_path / "estimator", read_zip(path)
    for name in members:
        write_zip(target, {x: members[x] for x in members if x != name})
        message = f"it holds no {name}"
        with pytest.raises(ValueError, match=message.replace(".", r"\.")):
            load(target)


def test_members_twice_are_refused(path, tmp_path):
    target = tmp_path / "estimator"
    target.write_bytes(path.read_bytes())
    with zipfile.ZipFile(target, "a") as archive:
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("arr_0.npy", b"")
    with pytest.raises(ValueError, match="it holds members twice"):
        load(target)


def test_bombs_are_refused(path, tmp_path):
    target = tmp_path / "estimator"
    bomb = {**read_zip(path), "estimator.json": b" " * 10**7}
    write_zip(target, bomb, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="it has compressed members"):
        load(target)
    # Both sizes of a stored member in the central directory: 1 GiB in a small file.
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 20 : entry + 28] = (2**30).to_bytes(4, "little") * 2
    target.write_bytes(data)
    with pytest.raises(ValueError, match="declare more bytes than it has"):
        load(target)


# JSON that is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.update(format=3), "format 3, but .* reads format 2: update"),
        (lambda h: h.update(format=1), "format 1, but .* reads format 2: .*save anew"),
        (lambda h: h.update(format="2"), "format '2', but .*save anew"),
        (lambda h: h.update(format=None), "format None, but .*save anew"),
        (lambda h: h.update(kind="os"), "unknown kind 'os'"),
        (lambda h: h.update(more=1), "estimator.json holds .*more"),
        (lambda h: h["state"].pop("classes_"), "holds .*, not .*classes"),
        (lambda h: h["state"].pop("network"), "holds .*, not .*network"),
        (lambda h: h["state"].update(n_features_in_=65), "65 features"),
        (lambda h: h["state"].update(feature_names_in_=["a"]), "feature names"),
        (lambda h: h["state"].update(feature_names_in_="a" * 64), "feature names"),
        (lambda h: h["state"].update(finetune_history_={"a": ["b"]}), "its history"),
        (lambda h: h["state"].update(finetune_history_={"a": 1}), "its history"),
        (lambda h: h["state"]["params"].update(evil=1), "unexpected keyword .*'evil'"),
        (lambda h: h["state"]["params"].update(memory="/"), "a parameter of .*memory"),
        (
            lambda h: h["state"]["params"].update(checkpoint_dir="/"),
            "a parameter of .*checkpoint_dir",
        ),
        (lambda h: h["state"]["params"].update(verbose=typed("list", [1])), "'list'"),
        (
            lambda h: h["state"]["params"].update(estimator=typed("object", "os")),
            "unknown type 'object'",
        ),
        (
            lambda h: h["state"]["params"].update(pretext=typed("Popen", {})),
            "unknown type 'Popen'",
        ),
        (
            lambda h: h["state"]["params"].update(pretext=typed("PretextTask", {})),
            "unknown type 'PretextTask'",
        ),
        (
            lambda h: h["state"]["params"].update(verbose=typed("ndarray", "../evil")),
            r"it holds no arr_\.\./evil\.npy",
        ),
        (
            lambda h: h["state"]["params"].update(verbose=h["state"]["classes_"]),
            r"it holds no arr_\d+\.npy",
        ),
    ],
)
def test_a_wrong_state_is_refused(change, message, path, tmp_path):
    target = changed_state(path, tmp_path / "estimator", change)
    with pytest.raises(ValueError, match=f"cannot be loaded: .*{message}"):
        load(target)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (
            npy(np.array([print] * 10)),
            r"must hold booleans, numbers or text .* declares \|O",
        ),
        (npy(np.arange(10).astype("M8[D]")), "must hold .* declares <M8"),
        (npy(np.zeros(10, "i4,i4")), r"must hold .* declares \|V8"),
        (npy_header("<U0", (10**12,)), "must hold .* declares <U0"),
        (npy(np.arange(-10, 0, dtype="<i4").view("<U1")), "holds no text"),
        (npy(np.arange(-10, 0, dtype=">i4").view(">U1")), "holds no text"),
        (npy(np.arange(9, -1, -1)), "no sorted array of distinct labels"),
        (npy(np.zeros(10, int)), "no sorted array of distinct labels"),
        (npy(np.arange(10.0)[:, np.newaxis]), "no sorted array of distinct labels"),
        (npy(np.arange(1)), "no sorted array of distinct labels"),
        (npy(np.float64(7)), "TypeError|no sorted array"),
        (npy_header("<U99999999", (10,)), "in 0 bytes, but declares <U99999999"),
        (npy_header("<i8", (-1, -10)), "in 0 bytes, but declares <i8"),
        (npy_header("<i8", (10**30,)), "in 0 bytes, but declares <i8"),
        (npy(np.arange(9)), r"outputs of shape \(None, 10\), expected \(None, 9\)"),
        (npy(np.arange(10)) + bytes(8), "in 88 bytes, but declares <i8"),
        (npy(np.arange(10))[:-1], "in 79 bytes, but declares <i8"),
        (npy(np.arange(10))[:20], "ValueError|EOF|expected"),
        (b"", "magic string"),
        (pickle.dumps(np.arange(10)), "magic string"),
        (b"\x93NUMPY\x03\x00" + npy(np.arange(10))[8:], "is no array"),
        (b"\x93NUMPY\x01\x00\x08\x00" + b"[[[[[[[[", "EOF|Cannot parse|Error"),
    ],
)
def test_wrong_classes_are_refused(classes, message, path, tmp_path):
    target = changed_array(
        path,
        tmp_path / "estimator",
        lambda _: classes,
        lambda h: h["state"]["classes_"],
    )
    with pytest.raises(ValueError, match=f"cannot be loaded: .*({message})"):
        load(target)


def test_classes_that_are_no_array_are_refused(path, tmp_path):
    for classes in (list(range(10)), None, typed("tuple", [0, 1])):
        target = changed_state(
            path,
            tmp_path / "estimator",
            lambda header, classes=classes: header["state"].update(classes_=classes),
        )
        with pytest.raises(ValueError, match="no sorted array of distinct labels"):
            load(target)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e["params"].update(batch_size=0), "its batch_size is 0"),
        (lambda e: e["params"].update(batch_size="64"), "its batch_size is '64'"),
        (lambda e: e.update(pretext_=7), "'int' object has no attribute 'fit'"),
        (
            lambda e: e.update(pretext_=typed("GivenViews", {"n_views": 2.0})),
            "it has 2.0 views",
        ),
        (
            lambda e: e.update(pretext_=typed("RotationPretext", {"angles": [0, 45]})),
            "angles must be multiples of 90",
        ),
        (
            lambda e: e.update(pretext_=typed("RotationPretext", {})),
            r"outputs of shape \(None, 2\), expected \(None, 4\)",
        ),
    ],
)
def test_a_wrong_encoder_is_refused(change, message, path, tmp_path):
    def change_encoder(header):
        change(header["state"]["encoder_"])

    target = changed_state(path, tmp_path / "estimator", change_encoder)
    with pytest.raises(ValueError, match=f"cannot be loaded: .*{message}"):
        load(target)


def test_json_that_is_none_is_refused(path, tmp_path):
    target = tmp_path / "estimator"
    members = read_zip(path)
    for data in (b"", b"{", b"\xff", b"[" * 100_000, b"null", b"[1]", b"{}"):
        write_zip(target, {**members, "estimator.json": data})
        with pytest.raises(ValueError, match="cannot be loaded"):
            load(target)


# Networks that are refused


def dense(config):
    """Return the configuration of the layer before the class head."""
    return layers_of(config, "Dense")[0]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"class_name": "Lambda"}, "Lambda from keras.layers"),
        ({"class_name": "TFSMLayer"}, "TFSMLayer from keras.layers"),
        ({"class_name": "StringLookup"}, "StringLookup from keras.layers"),
        ({"module": "os", "class_name": "system"}, "system from os"),
        ({"module": "keras.utils", "class_name": "get_file"}, "get_file from"),
        ({"module": None}, "Dense from None"),
        ({"registered_name": "test>Dense"}, "'registered_name'}, which save never"),
        ({"compile_config": {"optimizer": "adam"}}, "'compile_config'}, which save"),
        ({"module": "keras.src.ops.numpy", "class_name": "np"}, "np from keras"),
        (
            {"module": "builtins", "class_name": "function", "config": "eval"},
            "function 'eval' from builtins",
        ),
    ],
)
def test_a_layer_that_is_not_known_to_be_harmless_is_refused(
    part, message, path, tmp_path
):
    for of in ("classifier", "encoder"):
        target = changed_config(
            path, tmp_path / "estimator", lambda c: dense(c).update(part), of
        )
        with pytest.raises(ValueError, match=f"cannot be loaded: .*{message}"):
            load(target)


@pytest.mark.parametrize(
    "activation",
    [
        {"class_name": "__lambda__", "config": {"value": ["4wAA", None, None]}},
        {"class_name": "__numpy__", "config": {"value": ["a"], "dtype": "S99999999"}},
        {"module": "keras.initializers", "class_name": "get", "config": {}},
    ],
)
def test_code_in_the_settings_of_a_layer_is_refused(activation, path, tmp_path):
    def change(config):
        dense(config)["config"]["activation"] = activation

    target = changed_config(path, tmp_path / "estimator", change)
    with pytest.raises(ValueError, match=f"harmless: {activation['class_name']}"):
        load(target)


def test_more_weights_than_the_file_holds_are_refused_before_they_are_made(
    path, tmp_path
):
    def change(config):
        dense(config)["config"]["units"] = 10**12
        for layer in layers_of(config, "Dense"):
            del layer["build_config"]  # the next layer would not fit

    target = changed_config(path, tmp_path / "estimator", change)
    with pytest.raises(ValueError, match=f"but it takes .*{10**12}"):
        load(target)


def test_networks_that_double_at_every_depth_are_refused(path, tmp_path):
    def change(config):
        inner = dense(config)
        for _ in range(40):
            nodes = [{"args": [], "kwargs": {}}] * 2
            inner["inbound_nodes"] = nodes
            inner = {**inner, "config": {"layers": [inner]}}
        config["config"]["layers"].append(inner)

    target = changed_config(path, tmp_path / "estimator", change)
    start = time.perf_counter()
    with pytest.raises(ValueError, match="calls more than 20000 layers"):
        load(target)
    assert time.perf_counter() - start < 10


def test_an_encoder_for_other_images_is_refused(encoder, path, tmp_path):
    """Put an encoder of larger images into the file of a classifier."""
    other = SelfSupervisedEncoder(
        encoder.estimator, image_shape=(4, 16), pretext=ROTATION, epochs=1
    )
    other.set_params(pretext=RotationPretext((0, 180), image_shape=(4, 16))).fit(X)
    other.save(tmp_path / "other")
    members, others = read_zip(path), read_zip(tmp_path / "other")
    header = json.loads(members["estimator.json"])
    state = json.loads(others["estimator.json"])["state"]
    for k, reference in enumerate(state["network"]["variables"]):
        members[f"arr_{1000 + k}.npy"] = others[f"arr_{reference['items']}.npy"]
        reference["items"] = 1000 + k
    for reference in header["state"]["encoder_"]["network"]["variables"]:
        del members[f"arr_{reference['items']}.npy"]
    header["state"]["encoder_"] = state
    write_zip(tmp_path / "both", {**members, "estimator.json": json.dumps(header)})
    with pytest.raises(ValueError, match="encoder takes images of another shape"):
        load(tmp_path / "both")


def test_more_features_than_the_images_have_are_refused(path, tmp_path):
    for n_features in (0, -1, 65, 10**30, 64.0, True, "64", None):
        target = changed_state(
            path,
            tmp_path / "estimator",
            lambda header, n=n_features: header["state"].update(n_features_in_=n),
        )
        with pytest.raises(ValueError, match=r"features for images of shape \(8, 8, 1"):
            load(target)


def test_a_network_without_backbone_is_refused(path, tmp_path):
    def change(config):
        text = json.dumps(config).replace('"backbone"', '"spine"')
        config.update(json.loads(text))

    target = changed_config(path, tmp_path / "estimator", change)
    with pytest.raises(ValueError, match="No such layer: backbone"):
        load(target)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda data: npy(np.load(io.BytesIO(data)).astype("f8")),
            "float64.*, but it takes",
        ),
        (
            lambda data: npy(np.load(io.BytesIO(data)).view("u4")),
            "uint32.*, but it takes",
        ),
        (
            lambda data: npy(np.load(io.BytesIO(data)).astype(">f4")),
            ">f4.*, but it takes",
        ),
        (lambda data: npy(np.load(io.BytesIO(data))[:2]), r"stored is \(\(2, 3"),
        (lambda data: npy(np.load(io.BytesIO(data)).ravel()), r"stored is \(\(18,\)"),
        (
            lambda data: npy(np.load(io.BytesIO(data)).astype(object)),
            r"must hold .* declares \|O",
        ),
        (lambda data: npy_header("|O", (3, 3, 1, 2)), r"must hold .* declares \|O"),
        (lambda data: npy_header("<f4", (3, 3, 1, 2)), "in 0 bytes, but declares <f4"),
        (
            lambda data: npy_header("<f4", (10**6, 10**6)),
            "in 0 bytes, but declares <f4",
        ),
        (lambda data: data + bytes(4), "in 76 bytes, but declares <f4"),
        (lambda data: data[:-4], "in 68 bytes, but declares <f4"),
    ],
)
def test_other_arrays_than_the_network_takes_are_refused(
    change, message, path, tmp_path
):
    target = changed_array(path, tmp_path / "estimator", change)
    with pytest.raises(ValueError, match=f"cannot be loaded: .*{message}"):
        load(target)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda variables: variables.append(variables.pop(0)),
            "stored is .*, but it takes",
        ),
        (lambda variables: variables.append(0.5), "'float' object has no attribute"),
        (lambda variables: variables.pop(), "stored is None, but it takes"),
        (
            lambda variables: variables.insert(0, variables[0]),
            r"it holds no arr_\d+\.npy",
        ),
        (
            lambda variables: variables.__setitem__(0, [0.5] * 9),
            "'list' object has no attribute 'shape'",
        ),
        (lambda variables: variables.clear(), "stored is None, but it takes"),
    ],
)
def test_other_variables_than_the_network_has_are_refused(
    change, message, path, tmp_path
):
    target = changed_state(
        path,
        tmp_path / "estimator",
        lambda header: change(network_in(header, "classifier")["variables"]),
    )
    with pytest.raises(ValueError, match=f"cannot be loaded: .*{message}"):
        load(target)


def test_other_weights_than_the_network_takes_are_refused(path, tmp_path):
    def change(config):
        dense(config)["config"]["units"] = 3

    target = changed_config(path, tmp_path / "estimator", change)
    with pytest.raises(ValueError, match="Keras .* cannot build a network in it"):
        load(target)


def test_damaged_files_are_refused_or_harmless(path, tmp_path):
    """Flip or cut at random places, with checksums that stay wrong or are mended."""
    rng = np.random.default_rng(0)
    target = tmp_path / "estimator"
    original = path.read_bytes()
    members = read_zip(path)
    outcomes = {True: 0, False: 0}
    for trial in range(150):
        if trial % 3 == 0:  # anywhere in the file
            data = bytearray(original)
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
            target.write_bytes(data)
        elif trial % 3 == 1:  # the end is missing
            target.write_bytes(original[: rng.integers(len(original))])
        else:  # in the JSON, under a right checksum
            data = bytearray(members["estimator.json"])
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
            write_zip(target, {**members, "estimator.json": bytes(data)})
        try:
            load(target)
            outcomes[True] += 1
        except ValueError as error:
            assert "cannot be loaded" in str(error)
            outcomes[False] += 1
    assert outcomes[False] > 100


def test_an_exported_network_predicts_the_same(classifier, tmp_path):
    expected = classifier.predict_proba(X[:5])
    images = X[:5].reshape(-1, 8, 8, 1).astype(np.float32)
    model = classifier.model_

    model.export(tmp_path / "model", format="tf_saved_model", verbose=False)
    exported = tf.saved_model.load(tmp_path / "model")
    assert_allclose(exported.serve(images), expected, atol=1e-6)

    lite = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow names a package that follows it
        interpreter = tf.lite.Interpreter(model_content=lite)
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(inputs[0]["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(inputs[0]["index"], images)
    interpreter.invoke()
    assert_allclose(interpreter.get_tensor(outputs[0]["index"]), expected, atol=1e-6)


def test_a_network_converted_to_onnx_predicts_the_same(classifier, tmp_path):
    tf2onnx = pytest.importorskip("tf2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    path = str(tmp_path / "digits.onnx")
    tf2onnx.convert.from_keras(classifier.model_, output_path=path)
    session = onnxruntime.InferenceSession(path)
    (images,) = session.get_inputs()
    assert images.shape[1:] == [8, 8, 1]
    for n in (5, 1):  # any number of images
        rows = X[:n].reshape(-1, 8, 8, 1).astype(np.float32)
        (found,) = session.run(None, {images.name: rows})
        assert_allclose(found, classifier.predict_proba(X[:n]), atol=1e-5)
