import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_array_equal

import skssl._trainers
from skssl._networks import build_network, set_statistics
from skssl._trainers import architecture, seeded, trainer

IMAGE_SHAPE = (8, 8, 1)
IMAGES = np.random.default_rng(0).normal(3, 2, (20, *IMAGE_SHAPE)).astype(np.float32)
TARGETS = np.arange(20) % 3


@pytest.fixture(autouse=True)
def idle(monkeypatch):
    """Let each test begin without copies that wait."""
    copies = {}
    monkeypatch.setattr(skssl._trainers, "_idle", copies)
    return copies


def network(seed=0, mean=3.0, **params):
    """Return a classifier that standardises and drops at random."""
    from scikeras.wrappers import KerasClassifier

    from skssl import build_cnn

    params = {"model__filters": (2,), "model__dropout": 0.5, **params}
    wrapper = KerasClassifier(build_cnn, optimizer="adam", **params)
    built = build_network(wrapper, IMAGE_SHAPE, seed, np.arange(3))
    set_statistics(built.backbone, np.array([mean]), np.array([2.0]))
    return built.classifier


def settings(**others):
    return {
        "optimizer": keras.optimizers.Adam(0.01),
        "loss": "sparse_categorical_crossentropy",
        "metrics": ["accuracy"],
        **others,
    }


def trained_weights(model, *, reuse=True, **others):
    with trainer(model, settings(**others), reuse) as copy:
        copy.fit(IMAGES, TARGETS, batch_size=5, epochs=2, shuffle=False, verbose=0)
    return model.get_weights()


def assert_same(weights, expected):
    for a, b in zip(weights, expected, strict=True):
        assert_array_equal(a, b)


@pytest.mark.parametrize("mean", [3.0, -50.0])
def test_a_copy_trains_like_the_model_itself(mean, idle):
    expected = trained_weights(network(1, mean), reuse=False)
    assert idle == {}
    assert_same(trained_weights(network(1, mean)), expected)
    assert len(idle) == 1
    trained_weights(network(2, mean=7.0))  # other weights and statistics
    assert_same(trained_weights(network(1, mean)), expected)
    assert len(idle) == 1


def test_what_was_trained_stays_as_it_is():
    first = network(1)
    weights = trained_weights(first)
    trained_weights(network(2))
    assert_same(first.get_weights(), weights)
    assert not first.compiled


def test_names_do_not_tell_networks_apart_and_all_else_does():
    same = [architecture(network(seed), settings()) for seed in range(2)]
    assert same[0] == same[1]
    pickle.loads(pickle.dumps(network()))  # scikeras registers classes at that
    assert architecture(network(), settings()) == same[0]
    others = [
        architecture(network(model__filters=(3,)), settings()),
        architecture(network(model__dropout=0.4), settings()),
        architecture(network(), settings(optimizer=keras.optimizers.Adam(0.02))),
        architecture(network(), settings(loss="mean_squared_error")),
    ]
    assert len({same[0], *others}) == 5


class Doubled(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs


class Nothing(keras.regularizers.Regularizer):
    def __call__(self, x):
        return 0.0

    def get_config(self):
        return {}


def double(x):
    return 2 * x


@pytest.mark.parametrize(
    "layer",
    [
        Doubled,
        lambda: keras.layers.Lambda(double),
        lambda: keras.layers.Activation(double),
        lambda: keras.layers.Dense(2, kernel_regularizer=Nothing()),
    ],
)
def test_networks_with_code_of_the_user_train_themselves(layer, idle):
    model = keras.Sequential(
        [keras.Input((4,)), layer(), keras.layers.Dense(3, activation="softmax")]
    )
    model = keras.Model(model.inputs[0], model.outputs[0])
    with trainer(model, settings(), reuse=True) as shell:
        assert shell.layers[-1] is model.layers[-1]
    assert idle == {}


@pytest.mark.parametrize(
    "others",
    [
        {"loss": lambda y_true, y_pred: keras.ops.mean(y_pred)},
        {"metrics": [lambda y_true, y_pred: keras.ops.mean(y_pred)]},
        {"loss": object()},
    ],
)
def test_settings_with_code_of_the_user_are_not_reused(others, idle):
    if isinstance(others.get("loss"), str | type(lambda: 0)) or "metrics" in others:
        trained_weights(network(), **others)
    else:
        with pytest.raises(ValueError, match="object"):
            trained_weights(network(), **others)
    assert idle == {}


def test_a_training_that_fails_leaves_no_copy(idle):
    model = network()
    before = model.get_weights()
    with pytest.raises(KeyboardInterrupt):
        with trainer(model, settings(), reuse=True) as copy:
            copy.train_on_batch(IMAGES, TARGETS)
            raise KeyboardInterrupt
    assert_same(model.get_weights(), before)
    assert idle == {}


def test_few_and_small_copies_are_kept(idle, monkeypatch):
    monkeypatch.setattr(skssl._trainers, "MAX_IDLE", 2)
    for n_filters in (1, 2, 3):
        trained_weights(network(model__filters=(n_filters,)))
    assert len(idle) == 2
    monkeypatch.setattr(skssl._trainers, "MAX_IDLE_WEIGHTS", 10)
    idle.clear()
    trained_weights(network())
    assert idle == {}


def test_under_a_strategy_the_model_trains_itself(idle):
    with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
        trained_weights(network())
    assert idle == {}


def test_a_compiled_model_goes_on_with_its_optimizer():
    model = network()
    model.compile(**settings())
    with trainer(model, settings(), reuse=True) as same:
        assert same is model


def test_seeded_draws_are_the_same_and_leave_the_generators():
    np.random.seed(5)
    expected = np.random.random()
    np.random.seed(5)
    with seeded(1):
        first = np.random.random()
    assert np.random.random() == expected
    with seeded(1):
        assert np.random.random() == first
