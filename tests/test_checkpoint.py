import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import joblib
import keras
import numpy as np
import pytest
from networks import Undescribed, assert_same_weights, two_stages, weights_of
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from skssl import RotationPretext, SelfSupervisedClassifier, SelfSupervisedEncoder
from skssl._networks.identity import training_key
from skssl._storage.cache import cached
from skssl._storage.checkpoint import Checkpoint, pack, unpack
from skssl.self_training import FixMatch

SCRIPT = Path(__file__).with_name("killed_fit.py")


@pytest.fixture
def keys():
    """Return a list that grows by the key of each training looked for in `KeyMemory`.

    No training follows.
    """
    KeyMemory.keys = []
    return KeyMemory.keys


class Stop(Exception):
    """Says that a training would have begun."""


class KeyMemory:
    """Takes the place of a joblib.Memory, and keeps keys alone."""

    def cache(self, function, **params):
        return self

    def check_call_in_cache(self, key, *args):
        self.keys.append(key)
        raise Stop


# Keys and files


def test_a_key_tells_all_its_parts_apart():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))

    def key(*parts, **settings):
        return training_key("pretraining", model, settings, lambda: parts)

    base = [np.arange(3), "text", {"a": None, "b": 1}]
    first = key(*base, loss="mse", optimizer="sgd")
    assert key(np.arange(3), *base[1:], optimizer="sgd", loss="mse") == first
    others = [
        [np.arange(4), *base[1:]],
        [np.arange(3.0), *base[1:]],
        [np.arange(3)[:, None], *base[1:]],
        [base[0], "texts", base[2]],
        [*base[:2], {"b": 2, "a": None}],
        base[:2],
    ]
    keys = {key(*parts, loss="mse", optimizer="sgd") for parts in others}
    keys |= {first, key(*base, loss="mae", optimizer="sgd")}
    model.set_weights([weight + 1 for weight in model.get_weights()])
    keys.add(key(*base, loss="mse", optimizer="sgd"))
    assert len(keys) == len(others) + 3


def test_the_precision_is_in_the_key():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    first = training_key("pretraining", model, {})
    policy = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        assert training_key("pretraining", model, {}) != first
    finally:
        keras.config.set_dtype_policy(policy)
    assert training_key("pretraining", model, {}) == first


def test_damaged_bytes_are_not_unpacked():
    packed = pack({"values": np.arange(5)})
    assert_array_equal(unpack(packed)["values"], np.arange(5))
    for position in [0, 31, 32, len(packed) - 1]:
        damaged = bytearray(packed)
        damaged[position] ^= 1
        assert unpack(bytes(damaged)) is None
    assert unpack(packed[:-1]) is None
    assert unpack(b"") is None


# Checkpoints


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: bytes(len(data))]
)
def test_a_damaged_checkpoint_is_set_aside(damage, tmp_path):
    checkpoint = Checkpoint(tmp_path, "pretraining", "abc")
    checkpoint.write({"epoch": 1})
    assert checkpoint.read() == {"epoch": 1}
    path = Path(checkpoint.path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(
        RuntimeWarning, match="damaged and set aside as .*pretraining st"
    ):
        assert checkpoint.read() is None
    assert [x.suffix for x in tmp_path.iterdir()] == [".damaged"]
    assert checkpoint.read() is None


def test_a_checkpoint_of_another_training_is_not_used(few_labels, quick, tmp_path):
    X, y = few_labels
    Checkpoint(tmp_path, "pretraining", "other").write({"epoch": 1})
    encoder = SelfSupervisedEncoder(
        quick(), epochs=1, checkpoint_dir=tmp_path, random_state=0
    )
    with pytest.warns(RuntimeWarning, match="other trainings .*which are not used"):
        encoder.fit(X)
    assert [x.name for x in tmp_path.iterdir()] == ["pretraining-other.checkpoint"]
    expected = clone(encoder).set_params(checkpoint_dir=None).fit(X)
    assert_array_equal(encoder.transform(X), expected.transform(X))


@pytest.mark.parametrize(
    "change",
    [
        {"pretext": RotationPretext((0, 180))},
        {"random_state": 1},
        {"epochs": 3},
        {"batch_size": 32},
        {"optimizer": "sgd"},
        {"estimator__model__filters": (5,)},
    ],
)
def test_every_parameter_is_in_the_key(change, few_labels, quick, keys):
    X, _ = few_labels
    memory = KeyMemory()
    encoder = SelfSupervisedEncoder(quick(), epochs=2, memory=memory, random_state=0)
    for variant, images in [
        (encoder, X),
        (clone(encoder), X[::-1]),  # the same images
        (clone(encoder).set_params(**change), X),
        (clone(encoder), X[1:]),
        (clone(encoder), X.astype(np.uint8)),
    ]:
        with pytest.raises(Stop):
            variant.fit(images)
    assert keys[0] == keys[1]
    assert len(set(keys[1:])) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"estimator__optimizer__learning_rate": 0.02},
        {"augmentation": keras.layers.RandomFlip()},
        {"self_training": FixMatch(n_steps=3)},
        {"frozen_layers": 1, "unfreeze_epochs": 2},
    ],
)
def test_what_only_fine_tuning_reads_is_not_in_the_key(change, few_labels, quick, keys):
    classifier = SelfSupervisedClassifier(
        quick(), pretrain_epochs=1, memory=KeyMemory(), random_state=0
    )
    for variant in (classifier, clone(classifier).set_params(**change)):
        with pytest.raises(Stop):
            variant.fit(*few_labels)
    assert keys[0] == keys[1]


USERS_CODE = """
import keras
from skssl.pretext import PretextTask

FACTOR = 2.0


@keras.saving.register_keras_serializable("users")
def activation(x):
    return keras.ops.relu(x) * FACTOR


@keras.saving.register_keras_serializable("users")
class Layer(keras.layers.Layer):
    def call(self, x):
        return x * 3.0


class Task(PretextTask):
    def make_batch(self, images, seed):
        images = keras.ops.cast(images, "float32")
        return images, keras.ops.mean(images, (1, 2, 3)) * 4.0

    def build_head(self, features, image_shape):
        return keras.layers.Dense(1)(features)

    def loss_and_metrics(self):
        return loss, []


def loss(y_true, y_pred):
    return keras.ops.mean((y_true - y_pred) ** 2) * 5.0


def final_loss(y_true, y_pred):
    return keras.losses.sparse_categorical_crossentropy(y_true, y_pred) * 6.0


class Watch(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        logs["seven"] = 7.0


def build(meta):
    inputs = keras.Input(meta["X_shape_"][1:])
    x = keras.layers.Lambda(lambda x: x / 8.0)(inputs)
    x = Layer()(keras.layers.Flatten()(x))
    x = keras.layers.Dense(4, activation=activation)(x)
    x = keras.layers.Dense(4, activation=lambda x: x + 9.0)(x)
    x = keras.layers.Dense(meta["n_classes_"], activation="softmax")(x)
    return keras.Model(inputs, x)
"""


@pytest.fixture
def own_classifier(module_of):
    """Return what makes a classifier of the user's own code, imported afresh."""
    from scikeras.wrappers import KerasClassifier

    def make(source=USERS_CODE, **params):
        module = module_of(source)
        wrapper = KerasClassifier(
            module.build,
            optimizer="adam",
            epochs=1,
            loss=module.final_loss,
            callbacks=[module.Watch()],
        )
        return two_stages(
            wrapper, pretext=module.Task(), pretrain_epochs=1, random_state=0, **params
        )

    return make


# Keras says that it is about to look at the code of a lambda, to write it.
@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
@pytest.mark.parametrize(
    "number, pretrains",
    [(f"{k}.0", k not in (6, 7)) for k in range(2, 10)],  # 6 and 7 only fine-tune
)
def test_a_change_of_the_users_code_is_another_training(
    number, pretrains, own_classifier, few_labels, tmp_path, written
):
    X, y = few_labels
    sources = [USERS_CODE, f"# moved\n{USERS_CODE}", USERS_CODE.replace(number, "1.5")]
    assert sources[0] != sources[2]
    for source in sources:
        own_classifier(source, checkpoint_dir=tmp_path / "folder").fit(X, y)
    before, same, after = zip(*[iter(written)] * 2, strict=True)
    assert same == before
    assert (after[0] != before[0]) == pretrains
    assert after[1] != before[1]


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_pretraining_with_other_code_is_done_anew(
    own_classifier, few_labels, tmp_path, trainings
):
    X, y = few_labels
    changed = USERS_CODE.replace("x * 3.0", "x * -3.0")
    for source, is_done in [
        (USERS_CODE, True),
        (USERS_CODE, False),
        (changed, True),
        (USERS_CODE, False),
    ]:
        trainings.clear()
        clf = own_classifier(source, memory=tmp_path / "cache").fit(X, y)
        assert len(trainings) == 1 + is_done  # each fit fine-tunes
        without = own_classifier(source).fit(X, y)
        assert_array_equal(clf.predict_proba(X), without.predict_proba(X))


def test_a_training_that_cannot_be_told_from_others_is_not_kept(
    few_labels, quick, tmp_path, trainings
):
    numbers = (n for n in range(9))

    class Drawing(RotationPretext):
        def make_batch(self, images, seed):
            assert numbers is not None
            return super().make_batch(images, seed)

    def undescribed(meta):
        inputs = keras.Input(meta["X_shape_"][1:])
        x = keras.layers.Flatten()(Undescribed(keras.ops.abs)(inputs))
        x = keras.layers.Dense(4)(x)
        return keras.Model(
            inputs, keras.layers.Dense(meta["n_classes_"], activation="softmax")(x)
        )

    X, y = few_labels
    folders = {"memory": tmp_path / "memory", "checkpoint_dir": tmp_path / "folder"}
    clf = two_stages(
        quick(), pretext=Drawing(), pretrain_epochs=1, random_state=0, **folders
    )
    with pytest.warns(RuntimeWarning, match="not used for pretraining: .*generator in"):
        clf.fit(X, y)
    clf.set_params(pretext=None, estimator=quick(undescribed))
    message = "not used for (pretraining|fine-tuning): .* Keras cannot describe .*get_c"
    with pytest.warns(RuntimeWarning, match=message) as warned:
        clf.fit(X, y)
    assert len(warned) == 2
    assert len(trainings) == 4
    assert not (tmp_path / "memory").exists()
    assert os.listdir(tmp_path / "folder") == []
    expected = clone(clf).set_params(memory=None, checkpoint_dir=None).fit(X, y)
    assert_array_equal(clf.predict_proba(X), expected.predict_proba(X))


def test_a_callback_that_cannot_be_told_from_others_keeps_nothing(
    few_labels, quick, tmp_path
):
    numbers = (n for n in range(9))
    callback = keras.callbacks.LambdaCallback(lambda epoch, logs: next(numbers))
    clf = two_stages(
        quick(callbacks=[callback]),
        pretrain_epochs=0,
        checkpoint_dir=tmp_path / "folder",
        random_state=0,
    )
    with pytest.warns(RuntimeWarning, match="not used for fine-tuning: .*generator"):
        clf.fit(*few_labels)
    assert next(numbers) == 2
    assert not (tmp_path / "folder").exists()


def run_script(tmp_path, *, expect=0, **variables):
    command = [sys.executable, SCRIPT, tmp_path / "folder", tmp_path / "result.npz"]
    environment = {**os.environ, **{k: str(v) for k, v in variables.items()}}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == expect, done.stderr
    return done


def test_a_killed_fit_goes_on_to_the_same_bits(tmp_path):
    run_script(tmp_path)
    with np.load(tmp_path / "result.npz") as file:
        expected = dict(file)
    (tmp_path / "result.npz").unlink()
    assert os.listdir(tmp_path / "folder") == []  # a finished fit cleans up
    # Killed while pretraining, while writing, and in both phases of fine-tuning.
    for variables in [
        {"KILL_AFTER_WRITES": 2},
        {"KILL_WHILE_WRITING": 1},
        {"KILL_AFTER_WRITES": 4},
        {"KILL_AFTER_WRITES": 5},
    ]:
        run_script(tmp_path, expect=-signal.SIGKILL, **variables)
        assert os.listdir(tmp_path / "folder") != []
    done = run_script(tmp_path)
    assert done.stderr == "" or "Warning" not in done.stderr
    with np.load(tmp_path / "result.npz") as file:
        assert sorted(file) == sorted(expected)
        for name in expected:
            assert_array_equal(file[name], expected[name])
    assert os.listdir(tmp_path / "folder") == []


@pytest.fixture
def interruptible():
    """Have Python's own handler, even where SIGINT was ignored from the start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupted_fit_changes_nothing_and_goes_on(
    few_labels, quick, tmp_path, interruptible
):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1 and tmp_path.joinpath("armed").exists():
                signal.raise_signal(signal.SIGINT)

    X, y = few_labels
    clf = two_stages(
        quick(epochs=3, callbacks=[Interrupt()]),
        pretrain_epochs=1,
        checkpoint_dir=tmp_path / "folder",
        random_state=0,
    ).fit(X, y)
    before = dict(vars(clf))
    expected = weights_of(clf.model_)
    (tmp_path / "armed").touch()
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, y)
    assert all(vars(clf)[name] is before[name] for name in before)
    assert_same_weights(clf.model_, expected)
    assert len(os.listdir(tmp_path / "folder")) == 2
    (tmp_path / "armed").unlink()
    assert_same_weights(clf.fit(X, y).model_, expected)
    assert len(clf.finetune_history_["loss"]) == 3


def test_training_goes_on_where_no_checkpoint_can_be_written(
    few_labels, quick, tmp_path
):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    encoder = SelfSupervisedEncoder(
        quick(), epochs=3, checkpoint_dir=blocked, random_state=0
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        encoder.fit(few_labels[0])
    messages = [str(w.message) for w in caught if w.category is RuntimeWarning]
    written = [m for m in messages if "No checkpoint can be written" in m]
    assert len(written) == 1
    assert len(encoder.history_["loss"]) == 3


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path):
    checkpoint = Checkpoint(tmp_path, "pretraining", "abc")
    checkpoint.write({"epoch": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.warns(RuntimeWarning, match="No checkpoint can be .* too large"):
            checkpoint.write({"epoch": 2, "values": np.arange(10_000)})
        checkpoint.write({"epoch": 3, "values": np.arange(10_000)})  # said once
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert checkpoint.read() == {"epoch": 1}
    assert len(os.listdir(tmp_path)) == 1


def test_a_vanished_folder_is_made_again(tmp_path):
    checkpoint = Checkpoint(tmp_path / "folder", "pretraining", "abc")
    checkpoint.write({"epoch": 1})
    os.remove(checkpoint.path)
    os.rmdir(checkpoint.folder)
    checkpoint.write({"epoch": 2})
    assert checkpoint.read() == {"epoch": 2}


def test_a_callback_that_cannot_be_pickled_does_no_harm(few_labels, quick, tmp_path):
    class WithFile(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.file = open(os.devnull)

        def on_train_end(self, logs=None):
            self.file.close()

    X, y = few_labels
    clf = two_stages(
        quick(callbacks=[WithFile()]),
        pretrain_epochs=0,
        checkpoint_dir=tmp_path,
        random_state=0,
    ).fit(X, y)
    assert len(clf.finetune_history_["loss"]) == 2


# The cache of finished pretraining


def test_the_same_pretraining_is_done_once(few_labels, quick, tmp_path, trainings):
    X, y = few_labels
    clf = two_stages(quick(), pretrain_epochs=1, memory=tmp_path, random_state=0)
    first = clf.fit(X, y).predict_proba(X)
    second = clone(clf).set_params(memory=joblib.Memory(str(tmp_path), verbose=0))
    assert_array_equal(second.fit(X, y).predict_proba(X), first)
    assert second.pretrain_history_ == clf.pretrain_history_
    assert_array_equal(second.predict_pretext(X), clf.predict_pretext(X))
    clone(clf).set_params(frozen_layers="all", class_weight="balanced").fit(X, y)
    assert len(trainings) == 1 + 3  # one pretraining for three fine-tunings
    clone(clf).fit(X[1:], y[1:])
    assert len(trainings) == 2 + 4
    without = clone(clf).set_params(memory=None).fit(X, y)
    assert_array_equal(without.predict_proba(X), first)


def test_a_search_pretrains_once_per_fold(few_labels, quick, tmp_path, trainings):
    X, y = few_labels
    X, y = X[:100], y[:100]
    clf = two_stages(quick(), pretrain_epochs=1, random_state=0)
    grid = {"frozen_layers": [0, "all"], "estimator__epochs": [1, 3]}
    without = GridSearchCV(clf, grid, cv=2, refit=False).fit(X, y)
    assert len(trainings) == 8 + 8
    clf.set_params(memory=str(tmp_path))
    search = GridSearchCV(clf, grid, cv=2, refit=False).fit(X, y)
    assert len(trainings) == 16 + 2 + 8
    for fold in range(2):
        name = f"split{fold}_test_score"
        assert_array_equal(search.cv_results_[name], without.cv_results_[name])


@pytest.mark.parametrize("flip", [True, False])
def test_a_damaged_entry_is_made_anew(flip, tmp_path):
    calls = []

    def train():
        calls.append(True)
        return np.arange(1000)

    assert_array_equal(cached(tmp_path, "key", train), np.arange(1000))
    (entry,) = tmp_path.rglob("output.pkl")
    data = bytearray(entry.read_bytes())
    data[len(data) // 2] ^= 1
    entry.write_bytes(data if flip else data[:100])
    with pytest.warns(RuntimeWarning, match="damaged: it was made anew"):
        assert_array_equal(cached(tmp_path, "key", train), np.arange(1000))
    assert_array_equal(cached(tmp_path, "key", train), np.arange(1000))
    assert len(calls) == 2


def test_a_cache_that_cannot_be_written_is_said_and_not_used(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.warns(RuntimeWarning, match="cannot be used .*is not kept"):
        assert cached(tmp_path / "file", "key", lambda: 1) == 1


@pytest.mark.filterwarnings("ignore:Unable to cache to disk")  # joblib's words for it
def test_a_full_disk_keeps_nothing_and_harms_nothing(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        values = cached(tmp_path, "key", lambda: np.arange(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert_array_equal(values, np.arange(10_000))
    assert_array_equal(cached(tmp_path, "key", lambda: np.arange(3)), np.arange(3))


def test_an_error_of_the_training_is_not_taken_for_one_of_the_cache(tmp_path):
    calls = []

    def train():
        calls.append(True)
        raise OSError("of the user's task")

    with pytest.raises(OSError, match="of the user's task"):
        cached(tmp_path, "key", train)
    assert len(calls) == 1


def test_two_processes_share_a_cache(tmp_path):
    code = (
        "import sys, time\n"
        "from skssl._storage.cache import cached\n"
        "for k in range(20):\n"
        "    time.sleep(0.01)\n"
        "    expected = [k % 7] * 9\n"
        "    assert cached(sys.argv[1], str(k % 7), lambda: [k % 7] * 9) == expected\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, tmp_path]
    running = [subprocess.Popen(command) for _ in range(2)]
    deadline = time.monotonic() + 120
    for process in running:
        assert process.wait(timeout=deadline - time.monotonic()) == 0
