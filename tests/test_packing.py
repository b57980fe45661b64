import copy
import os
import pickle
import subprocess
import sys
import warnings

import joblib
import keras
import numpy as np
import pytest
import skops.io as skops_io
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from networks import Undescribed, two_stages
from numpy.testing import assert_array_equal
from scikeras.wrappers import KerasClassifier
from sklearn.base import clone

from skssl import RotationPretext, SelfSupervisedEncoder
from skssl._networks.packing import packed, unpacked

# Keras says that it is about to look at the code of a lambda, to write it.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The object being serialized includes a `lambda`"
)
USERS_CODE = """
import keras

FACTOR = 2.0


class Scale(keras.layers.Layer):
    def __init__(self, factor, function=None, **kwargs):
        super().__init__(**kwargs)
        self.factor, self.function = factor, function

    def call(self, x):
        return self.function(x) * self.factor

    def get_config(self):
        function = keras.saving.serialize_keras_object(self.function)
        config = {"factor": self.factor, "function": function}
        return {**super().get_config(), **config}

    @classmethod
    def from_config(cls, config):
        function = keras.saving.deserialize_keras_object(config.pop("function"))
        return cls(function=function, **config)


class Error(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)


def absolute(x):
    return keras.ops.abs(x) * FACTOR


class Penalty(keras.regularizers.Regularizer):
    def __call__(self, weights):
        return 1e-4 * keras.ops.sum(absolute(weights))

    def get_config(self):
        return {}


def build(meta, offset=3.0):
    inputs = keras.Input(meta["X_shape_"][1:])
    x = keras.layers.Lambda(lambda x: keras.ops.abs(x) * FACTOR - offset)(inputs)
    x = Scale(0.5, lambda x: x + FACTOR)(Scale(2.0, absolute)(x))
    x = keras.layers.Flatten()(x)
    penalty = Penalty()
    for activation in (absolute, lambda x: keras.ops.relu(x) + offset):
        x = keras.layers.Dense(8, activation=activation, kernel_regularizer=penalty)(x)
    outputs = keras.layers.Dense(meta["n_classes_"], activation="softmax")(x)
    return keras.Model(inputs, outputs)
"""


@pytest.fixture(scope="module")
def users_code(tmp_path_factory):
    """Return a module of the user's, which other processes can import, too."""
    folder = tmp_path_factory.mktemp("users")
    (folder / "users_layers.py").write_text(USERS_CODE)
    sys.path.insert(0, str(folder))
    import users_layers

    yield users_layers
    sys.path.remove(str(folder))
    del sys.modules["users_layers"]


def wrapped(model, **params):
    params = {"optimizer": "adam", "epochs": 1, "batch_size": 64, **params}
    return KerasClassifier(model, **params)


@pytest.fixture(scope="module")
def own(users_code, digits):
    """Return a fitted classifier with the user's own layers and functions."""
    X, y = digits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return two_stages(
            wrapped(users_code.build), pretrain_epochs=1, random_state=0
        ).fit(X[:100], y[:100])


def predicted(estimator, X):
    return estimator.predict_proba(X), estimator.transform(X)


def dumped(estimator, tmp_path):
    joblib.dump(estimator, tmp_path / "dump")
    return joblib.load(tmp_path / "dump")


COPIES = {
    "joblib": dumped,
    "pickle": lambda estimator, _: pickle.loads(pickle.dumps(estimator)),
    "deepcopy": lambda estimator, _: copy.deepcopy(estimator),
}


@pytest.mark.parametrize("copied", COPIES)
def test_a_classifier_with_own_code_comes_back(copied, own, digits, tmp_path):
    X = digits[0][:50]
    again = COPIES[copied](own, tmp_path)
    assert again.model_ is not own.model_
    for expected, result in zip(predicted(own, X), predicted(again, X), strict=True):
        assert_array_equal(result, expected)
    assert_array_equal(again.predict_pretext(X), own.predict_pretext(X))
    assert again.score_pretext(X) == own.score_pretext(X)
    # It goes on as one network: the encoder's backbone is that of its whole network.
    encoder = again.encoder_
    assert encoder.pretext_model_.get_layer("backbone") is encoder.backbone_
    again.partial_fit(X, digits[1][:50])
    assert len(again.finetune_history_["loss"]) == 2


def test_an_encoder_with_own_code_comes_back(users_code, digits, tmp_path):
    X = digits[0][:100]
    encoder = SelfSupervisedEncoder(
        wrapped(users_code.build), epochs=1, random_state=0
    ).fit(X)
    for copied in COPIES.values():
        again = copied(encoder, tmp_path)
        assert_array_equal(again.transform(X), encoder.transform(X))
        assert again.history_ == encoder.history_


def test_another_process_loads_it(own, digits, tmp_path):
    X = digits[0][:50]
    joblib.dump(own, tmp_path / "dump")
    np.save(tmp_path / "X", X)
    code = (
        "import joblib, numpy as np\n"
        "clf = joblib.load('dump')\n"
        "np.save('result', clf.predict_proba(np.load('X.npy')))"
    )
    path = os.pathsep.join(filter(None, sys.path))
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        check=True,
    )
    assert_array_equal(np.load(tmp_path / "result.npy"), own.predict_proba(X))


def test_workers_of_joblib_get_it(own, digits):
    X = digits[0][:50]
    # Workers that are there already do not know the folder of the user's module.
    get_reusable_executor().shutdown(wait=True)
    with Parallel(n_jobs=2) as parallel:
        results = parallel(delayed(own.predict_proba)(X) for _ in range(2))
    for result in results:
        np.testing.assert_allclose(result, own.predict_proba(X), rtol=1e-5, atol=1e-6)


def test_code_that_cannot_be_imported_comes_back_by_value(digits, tmp_path):
    class Local(keras.layers.Layer):
        def call(self, x):
            return super().call(x) if False else x * 3.0

    def build(meta):
        inputs = keras.Input(meta["X_shape_"][1:])
        x = keras.layers.Flatten()(Local()(inputs))
        x = keras.layers.Dense(4)(x)
        return keras.Model(
            inputs, keras.layers.Dense(meta["n_classes_"], activation="softmax")(x)
        )

    X, y = digits
    clf = two_stages(wrapped(build), pretrain_epochs=0).fit(X, y)
    assert copy.deepcopy(clf).estimator.model is build
    code = (
        "import pickle, sys, numpy as np\n"
        "clf = pickle.load(open('dump', 'rb'))\n"
        "np.save('result', clf.predict_proba(np.load('X.npy')))"
    )
    (tmp_path / "dump").write_bytes(pickle.dumps(clf))
    np.save(tmp_path / "X", X[:50])
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    expected = clf.predict_proba(X[:50])
    assert_array_equal(np.load(tmp_path / "result.npy"), expected)


def test_code_of_a_script_comes_back_in_another(tmp_path):
    (tmp_path / "writes.py").write_text(
        "import joblib, keras, numpy as np\n"
        "from scikeras.wrappers import KerasClassifier\n"
        "from skssl import RotationPretext, SelfSupervisedClassifier, build_cnn\n"
        "class Half(RotationPretext):\n"
        "    pass\n"
        "class Stop(keras.callbacks.Callback):\n"
        "    limit = 5\n"
        "def build(meta):\n"
        "    return build_cnn(meta, filters=(4,))\n"
        "wrapper = KerasClassifier(\n"
        "    build, loss=lambda a, b: a - b, callbacks=[Stop()]\n"
        ")\n"
        "clf = SelfSupervisedClassifier(wrapper, pretext=Half((0, 180)))\n"
        "joblib.dump(clf, 'dump')\n"
    )
    (tmp_path / "reads.py").write_text(
        "import joblib\n"
        "clf = joblib.load('dump')\n"
        "assert clf.pretext.angles == (0, 180)\n"
        "assert clf.estimator.callbacks[0].limit == 5\n"
        "assert clf.estimator.loss(3, 1) == 2\n"
        "meta = {'X_shape_': (1, 8, 8, 1), 'n_classes_': 10}\n"
        "assert clf.estimator.model(meta).output_shape == (None, 10)\n"
    )
    for script in ("writes.py", "reads.py"):
        subprocess.run([sys.executable, script], cwd=tmp_path, check=True)


def test_skops_writes_and_reads_it(fitted, digits):
    data = skops_io.dumps(fitted)
    trusted = skops_io.get_untrusted_types(data=data)
    assert all(name.startswith("skssl.") for name in trusted)
    again = skops_io.loads(data, trusted=trusted)
    assert_array_equal(again.predict_proba(digits[0]), fitted.predict_proba(digits[0]))


def test_what_would_not_come_back_fails_as_it_is_written(digits, tmp_path):
    class Forgetful(keras.layers.Layer):
        def __init__(self, factor, **kwargs):
            super().__init__(**kwargs)
            self.factor = factor

        def call(self, x):
            return x * self.factor

        def get_config(self):
            return super().get_config()  # without its factor

    numbers = (n for n in range(3))
    layers = {
        "get_config": Undescribed(keras.ops.abs),
        "missing 1 required .* 'factor'": Forgetful(2.0),
        "pickle 'generator'": keras.layers.Lambda(lambda x: x if numbers else -x),
    }
    for message, layer in layers.items():
        inputs = keras.Input((8, 8, 1))
        outputs = keras.layers.Dense(10)(keras.layers.Flatten()(layer(inputs)))
        clf = two_stages(keras.Model(inputs, outputs))
        with pytest.raises(TypeError, match=f"(?s)cannot be .*{message}"):
            pickle.dumps(clf)


def test_two_classes_of_one_name_are_refused(digits):
    def scale(factor):
        class Scale(keras.layers.Layer):
            def call(self, x):
                return x * factor

        return Scale()

    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, scale(2.0)(scale(3.0)(inputs)))
    with pytest.raises(TypeError, match="two classes named 'Scale'"):
        packed(model)


# Parameters


@pytest.fixture
def model(users_code):
    """Return a compiled network with the user's own layers and functions."""
    model = users_code.build({"X_shape_": (1, 8, 8, 1), "n_classes_": 10})
    model.compile(
        keras.optimizers.Adam(0.25),
        loss=lambda a, b: users_code.Error()(a, b) * users_code.FACTOR,
        metrics=["accuracy"],
    )
    return model


def test_a_network_as_parameter_is_cloned_and_copied(model, digits, tmp_path):
    X = digits[0][:20, ..., None]
    expected = model.predict(X, verbose=0)
    before = {id(layer): dict(vars(layer)) for layer in model.layers}
    for make in (lambda m: m, wrapped):
        clf = two_stages(make(model), random_state=0)
        for copied in [*COPIES.values(), lambda clf, _: clone(clf)]:
            again = copied(clf, tmp_path).estimator
            again = getattr(again, "model", again)
            assert again is not model
            assert again.optimizer.learning_rate == 0.25
            assert again.loss(np.eye(3)[0], np.eye(3)) is not None
            assert_array_equal(again.predict(X, verbose=0), expected)
    # Nothing of the user's was changed.
    for layer in model.layers:
        assert all(vars(layer)[k] is v for k, v in before[id(layer)].items())


def test_own_losses_and_optimizers_as_parameters_come_back(users_code, tmp_path):
    wrapper = wrapped(
        users_code.build,
        optimizer=keras.optimizers.SGD(0.125),
        loss=users_code.Error(),
        metrics=[keras.metrics.SparseCategoricalAccuracy()],
    )
    clf = two_stages(wrapper)
    for copied in [*COPIES.values(), lambda clf, _: clone(clf)]:
        again = copied(clf, tmp_path).estimator
        assert type(again.loss) is users_code.Error
        assert again.loss is not wrapper.loss
        assert again.optimizer.learning_rate == 0.125
        assert type(again.metrics[0]) is keras.metrics.SparseCategoricalAccuracy
    assert type(unpacked(clone(packed(wrapper))).loss) is users_code.Error


def test_the_network_that_a_callback_saw_is_not_written(quick, few_labels):
    callback = keras.callbacks.EarlyStopping("loss")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    callback.set_model(model)
    clf = two_stages(quick(callbacks=[callback]))
    again = pickle.loads(pickle.dumps(clf)).estimator.callbacks[0]
    assert again.model is None
    assert callback.model is model


def test_a_network_in_an_own_pretext_task_comes_back(model, digits):
    class Taught(RotationPretext):
        def __init__(self, angles=(0, 180), *, image_shape=None, teacher=None):
            super().__init__(angles, image_shape=image_shape)
            self.teacher = teacher

    X = digits[0][:20, ..., None]
    encoder = SelfSupervisedEncoder(pretext=Taught(teacher=model))
    for again in (pickle.loads(pickle.dumps(encoder)), clone(encoder)):
        teacher = again.pretext.teacher
        assert teacher is not model
        assert_array_equal(teacher.predict(X, verbose=0), model.predict(X, verbose=0))


def test_what_holds_no_network_stays_as_it_is():
    values = {"a": [1, (np.arange(3), "text")], "b": object()}
    assert packed(values) is values
    assert unpacked(values) is values


def test_a_copy_shares_its_networks(own):
    assert copy.copy(own).model_ is own.model_


def test_pickling_warns_of_nothing_and_draws_no_random_numbers(own, digits, tmp_path):
    import random

    states = random.getstate(), np.random.get_state()[1].tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dumped(own, tmp_path)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states
