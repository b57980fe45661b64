import functools
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from skssl import RotationPretext
from skssl._networks.identity import Unidentifiable, identity, training_key

# Code, in which each change below is made

FUNCTION = """
import functools
import math

import numpy as np

import users_helper
from users_helper import scaled as imported

SCALE = 2.0
TABLE = np.arange(3)
UNRELATED = 1
SETTINGS = {"a": [1, (2, {3, "x"})]}


def helper(x):
    return other(x) + 1


def other(x, bias=0.5):
    return x * SCALE + bias


def decorated(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args) - 1
    return wrapper


def make(factor):
    return lambda x: x * factor


scaled = make(3)
half = functools.partial(other, bias=0.25)


@functools.lru_cache
def cached(x):
    return x ** 2


class Base:
    power = 2

    def apply(self, x):
        return x ** self.power


class Thing(Base):
    __slots__ = ("slot",)

    def __init__(self):
        super().__init__()
        self.slot = 4

    @property
    def size(self):
        return 5

    @staticmethod
    def fixed(x):
        return x + 6

    @classmethod
    def made(cls):
        return cls()


thing = Thing()


@decorated
def total(x, *, key=7):
    from users_lazy import late
    inner = [helper(v) for v in x if v not in {8, "eight"}]
    try:
        inner.append(TABLE[0])
    except IndexError:
        pass
    return (
        inner, scaled(x), half(x), cached(x), thing, users_helper.used(x), imported(x),
        SETTINGS, late(x), math.pi, key,
    )
"""
HELPER = """
GAIN = 1

def scaled(x):
    return x * GAIN

def used(x):
    return x

def unused(x):
    return x
"""
LAZY = "def late(x):\n    return x\n"


def digest_of(module_of, function=FUNCTION, helper=HELPER, lazy=LAZY, **places):
    module_of(helper, "users_helper")
    module_of(lazy, "users_lazy")
    return identity(module_of(function, **places).total)


@pytest.mark.parametrize(
    "before, after",
    [
        ("other(x) + 1", "other(x) + 2"),
        ("SCALE = 2.0", "SCALE = 2.5"),
        ("np.arange(3)", "np.arange(4)"),
        ("bias=0.5", "bias=0.6"),
        ("key=7", "key=8"),
        ("make(3)", "make(4)"),
        ("bias=0.25", "bias=0.26"),
        ("x ** 2", "x ** 3"),
        ("power = 2", "power = 3"),
        ("x ** self.power", "x // self.power"),
        ("self.slot = 4", "self.slot = 5"),
        ("return 5", "return 6"),
        ("return x + 6", "return x + 7"),
        ("return cls()", "return cls"),
        ("{8, ", "{9, "),
        ("function(*args) - 1", "function(*args) - 2"),
        ("except IndexError", "except KeyError"),
        ("math.pi", "math.e"),
        ('{3, "x"}', '{3, "y"}'),
        ("class Thing(Base)", "class Thing"),
    ],
)
def test_every_change_of_the_code_counts(before, after, module_of):
    assert FUNCTION.count(before) == 1
    first = digest_of(module_of)
    assert digest_of(module_of, FUNCTION.replace(before, after)) != first
    assert digest_of(module_of) == first


def test_code_in_other_modules_counts_if_it_is_used(module_of):
    first = digest_of(module_of)
    assert digest_of(module_of, helper=HELPER.replace("GAIN = 1", "GAIN = 2")) != first
    used = HELPER.replace("def used(x):\n    return x", "def used(x):\n    return -x")
    assert digest_of(module_of, helper=used) != first
    assert digest_of(module_of, lazy=LAZY.replace("return x", "return -x")) != first
    unused = HELPER.replace("unused(x):\n    return x", "unused(x):\n    return 0")
    assert unused != HELPER
    assert digest_of(module_of, helper=unused) == first


def test_where_the_code_stands_does_not_count(module_of):
    first = digest_of(module_of)
    moved = "# A remark.\n\n\n" + FUNCTION.replace("UNRELATED = 1", "UNRELATED = 2")
    assert digest_of(module_of, moved, name="elsewhere", file="another_file") == first


def test_the_code_that_runs_counts_and_not_the_file(module_of, tmp_path):
    module_of(HELPER, "users_helper")
    module_of(LAZY, "users_lazy")
    module = module_of(FUNCTION)
    first = identity(module.total)
    path = tmp_path / "users_own.py"
    path.write_text(FUNCTION.replace("return 5", "return 6"))
    assert identity(module.total) == first
    path.unlink()
    assert identity(module.total) == first


def test_code_that_has_run_often_is_the_same(module_of):
    module = module_of(
        "def f(x):\n    return sum(i * x for i in range(20)) + len([x])\n"
    )
    first = identity(module.f)
    for k in range(5000):  # from then on, Python runs specialized bytecode
        module.f(k)
    assert identity(module.f) == first


SCRIPT = """
import sys
import keras
import numpy as np
from skssl import RotationPretext
from skssl._networks.identity import identity, training_key
sys.path.insert(0, sys.argv[1])
keras.utils.set_random_seed(0)
import users_network
if sys.argv[2] == "trained":  # names are counted, caches are filled
    users_network.lazy(0)
    for _ in range(3):
        model, settings = users_network.make()
        keras.layers.Dense(1), keras.losses.MeanSquaredError()
    model = keras.Sequential([keras.layers.Dense(4), keras.layers.Softmax()])
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(np.zeros((4, 4)), np.zeros((4, 4)), verbose=0)
keras.utils.set_random_seed(0)
model, settings = users_network.make()
task = RotationPretext().fit(np.zeros((1, 8, 8, 1)))
key = training_key("training", model, settings)
print(key, identity(users_network.Task(), task), identity(users_network))
"""
NETWORK = """
import keras
from keras.activations import gelu
from skssl.pretext import PretextTask
from tensorflow.nn import relu

K = 2
MODEL = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax")])
NAMES = {"b", "a", "c"}


def lazy(x):
    import json.tool
    from users_package import module
    return module.same(x), relu(gelu(float(x)))


def activation(x):
    return helper(x)


def helper(x):
    return x * K


def loss(y_true, y_pred):
    return keras.losses.mean_squared_error(y_true, y_pred) + 4


class Block(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.offset = 5
        self.dense = keras.layers.Dense(3)
        self.kinds = {"b", "a", "c", None, (1, "x")}

    def call(self, x):
        return self.dense(x) + self.offset


class Init(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None):
        return keras.ops.ones(shape) * 6


class Positive(keras.constraints.Constraint):
    def __call__(self, w):
        return w * 7


class Small(keras.regularizers.Regularizer):
    def __call__(self, w):
        return keras.ops.sum(w) * 8

    def get_config(self):
        return {}


class Penalty(keras.regularizers.Regularizer):
    def __call__(self, w):
        return keras.ops.sum(w) * 9

    def get_config(self):
        return {}


class Rate(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 10.0

    def get_config(self):
        return {}


class Score(keras.metrics.Mean):
    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(y_true * 11, y_pred)


class Momentum(keras.optimizers.SGD):
    def __init__(self, rate, momentum=0.12):
        super().__init__(rate)
        self.momentum = momentum


class Error(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return y_true * 13


class Task(PretextTask):
    def make_batch(self, images, seed):
        return images * K, images

    def build_head(self, features, image_shape):
        return features

    def loss_and_metrics(self):
        return loss, []


def make(kind="Error"):
    images = keras.Input((4,))
    inner = keras.Input((4,))
    nested = keras.Model(inner, keras.layers.Activation(activation)(inner))
    x = Block()(nested(images))
    x = keras.layers.Lambda(lambda x: x * 14)(x)
    x = keras.layers.Dense(
        3,
        kernel_initializer=Init(),
        kernel_constraint=Positive(),
        kernel_regularizer=Small(),
        activity_regularizer=Penalty(),
        activation=lambda x: x - 15,
    )(x)
    # Names that Keras gives, which are values and keys of the text as well.
    x = keras.layers.Activation("relu")(keras.layers.Softmax()(x))
    x = keras.layers.Dense(3, activation="softmax")(x)
    settings = {
        "optimizer": Momentum(Rate()),
        "loss": [Error(), loss],
        "metrics": [Score()],
    }
    return keras.Model(images, x), settings
"""


def network_digest(module_of, source=NETWORK):
    import keras

    random = keras.utils.set_random_seed
    random(0)
    return training_key("training", *module_of(source, "users_network").make())


@pytest.mark.parametrize(
    "before, after",
    [
        ("K = 2", "K = 3"),
        ("y_pred) + 4", "y_pred) + 5"),
        ("self.offset = 5", "self.offset = 6"),
        ("self.dense(x) + self", "self.dense(x) * self"),
        ("Dense(3)\n", "Dense(3, activation='relu')\n"),
        *[(f"* {n}", f"* {n + 10}") for n in (6, 7, 8, 9, 13)],
        ("10.0", "10.5"),
        ("y_true * 11", "y_true * 12"),
        ("0.12", "0.13"),
        ("x * 14", "x * 15"),
        ("x - 15", "x - 16"),
    ],
)
def test_every_part_of_a_network_may_be_of_the_users_own(before, after, module_of):
    import keras

    state = np.random.get_state()
    try:
        first = network_digest(module_of)
        keras.layers.Dense(1)  # names are counted
        assert NETWORK.count(before) == 1
        assert network_digest(module_of, NETWORK.replace(before, after)) != first
        assert network_digest(module_of) == first
    finally:
        np.random.set_state(state)


def test_the_digest_is_the_same_in_every_process(module_of, tmp_path):
    module_of(NETWORK, "users_network")  # to be a file there
    package = tmp_path / "users_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "module.py").write_text("def same(x):\n    return x\n")
    outputs = {
        subprocess.check_output(
            [sys.executable, "-c", SCRIPT, tmp_path, state],
            env={**os.environ, "PYTHONHASHSEED": seed},
            text=True,
        )
        for seed, state in [("1", "fresh"), ("2", "trained")]
    }
    assert len(outputs) == 1
    words = outputs.pop().split()
    assert len(words) == 3
    assert "None" not in words


def test_equal_networks_are_the_same_and_every_setting_of_keras_counts():
    import keras

    def digest(rate=0.1, dtype="float32", activation=keras.activations.relu):
        keras.utils.set_random_seed(0)
        images = keras.Input((4,))
        x = keras.layers.Dense(3, activation, kernel_regularizer="l2")(images)
        x = keras.layers.Activation("relu", dtype=dtype)(x)
        model = keras.Model(images, keras.layers.Dropout(rate)(x))
        settings = {"optimizer": keras.optimizers.Adam(rate), "loss": "mse"}
        return training_key("training", model, settings)

    @functools.wraps(keras.activations.relu)  # with the name and module of that
    def activation(x):
        return keras.activations.relu(x) + 1

    state = np.random.get_state()
    try:
        first = digest()
        others = [
            digest(0.2),
            digest(dtype="float64"),
            digest(activation=keras.activations.elu),
            digest(activation=activation),
        ]
        assert digest() == first
        assert len({first, *others}) == 5
    finally:
        np.random.set_state(state)


# Values


def cyclic():
    values = [1]
    values.append({"self": values})
    return values


def recursive(n):
    return recursive_too(n - 1) if n else 0


def recursive_too(n):
    return recursive(n - 1) if n else 1


VALUES = [
    None,
    True,
    1,
    1.0,
    -0.0,
    0.0,
    float("nan"),
    1j,
    10**5000,
    "1",
    b"1",
    (1,),
    [1],
    [1, 2],
    [2, 1],
    {1},
    {1, 2},
    {1: 2},
    {2: 1},
    range(2),
    slice(1),
    np.arange(2),
    np.arange(2.0),
    np.arange(2, dtype=object),
    np.arange(2).reshape(1, 2),
    np.ma.masked_equal(np.arange(2), 1),
    np.float32(1),
    np.random.RandomState(0),
    np.random.RandomState(1),
    functools.partial(max, 1),
    functools.partial(max, 2),
    len,
    np.add,
    np.vectorize(recursive),
    [].append,
    [1].append,
    cyclic(),
    recursive,
    recursive_too,
    RotationPretext(),
    RotationPretext((0, 180)),
    threading.Lock(),
]


def test_different_values_have_different_identities():
    digests = list(map(identity, VALUES))
    assert len(set(digests)) == len(VALUES)
    assert digests == list(map(identity, VALUES))


def test_the_order_of_a_set_does_not_count():
    names = [f"name {k}" for k in range(50)]
    backwards = names[::-1]
    assert identity(set(names)) == identity(set(backwards))
    functions = [recursive, recursive_too, len]
    assert identity(frozenset(functions)) == identity(frozenset(functions[::-1]))


def test_equal_objects_are_the_same_shared_or_not():
    first, second = np.arange(3), np.arange(3)
    assert identity([first, first]) == identity([first, second])


def test_long_chains_of_functions_are_followed_to_their_end(module_of):
    source = "".join(f"def f{k}():\n    return f{k + 1}()\n" for k in range(3000))
    first = identity(module_of(f"{source}def f3000():\n    return 0\n").f0)
    assert identity(module_of(f"{source}def f3000():\n    return 1\n").f0) != first


def test_threads_do_not_disturb_each_other(module_of):
    module_of(HELPER, "users_helper")
    module_of(LAZY, "users_lazy")
    function = module_of(FUNCTION).total
    with ThreadPoolExecutor(8) as threads:
        digests = set(threads.map(lambda _: identity(function), range(64)))
    assert len(digests) == 1


def test_state_that_cannot_be_read_is_refused():
    numbers = iter(n for n in [1])

    def draws(x):
        return next(numbers) + x

    with pytest.raises(Unidentifiable, match=r"generator in .*draws"):
        identity(draws)

    class Odd:
        def __init__(self):
            self.numbers = numbers

    with pytest.raises(Unidentifiable, match="generator"):
        identity([Odd()])


def test_too_many_objects_are_refused(monkeypatch):
    monkeypatch.setattr("skssl._networks.identity.MAX_OBJECTS", 20)
    with pytest.raises(Unidentifiable, match="more than 20 objects"):
        identity([[k] for k in range(30)])


def test_the_code_of_installed_packages_counts_by_its_version(monkeypatch):
    before = identity(pytest.approx)
    assert identity(pytest.approx) == before
    monkeypatch.setattr("_pytest.__version__", "0.1")
    assert identity(pytest.approx) != before


def test_the_state_of_objects_of_keras_counts():
    import keras

    generator = keras.random.SeedGenerator(0)
    before = identity(generator)
    assert identity(keras.random.SeedGenerator(0)) == before
    generator.next()
    assert identity(generator) != before
    metric = keras.metrics.Mean()
    before = identity(metric)
    metric.update_state([1.0])
    assert identity(metric) != before
