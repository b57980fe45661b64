import keras
import numpy as np
import pytest
from networks import assert_same_weights, weights_of
from numpy.testing import assert_allclose, assert_array_equal
from scikeras.wrappers import KerasClassifier

from skssl import build_cnn
from skssl._data.training_set import distinct_images
from skssl._networks.network import build_network
from skssl._networks.surgery import (
    copy_weights,
    freeze,
    set_statistics,
    transfer_weights,
    unfreeze,
)

CLASSES = np.arange(3)


def cnn(shape=(8, 8, 1), units=3, activation="softmax", tail=()):
    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(units, activation=activation),
            *tail,
        ]
    )


def test_the_default_on_mnist_is_the_tutorial_network():
    model = build_cnn({"X_shape_": (1, 28, 28, 1), "n_classes_": 10})
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == [
        "InputLayer",
        "Normalization",
        *["Conv2D", "MaxPooling2D"] * 2,
        "Flatten",
        "Dense",
        "Dense",
    ]
    convolutions = [x for x in model.layers if isinstance(x, keras.layers.Conv2D)]
    assert [(x.filters, x.kernel_size) for x in convolutions] == [
        (32, (3, 3)),
        (64, (3, 3)),
    ]
    assert [layer.units for layer in model.layers[-2:]] == [128, 10]


@pytest.mark.parametrize("shape", [(8, 8, 1), (1, 1, 1), (5, 30, 3), (96, 96, 3)])
@pytest.mark.parametrize("filters", [(4,), (2, 3, 4)])
def test_the_default_fits_every_image(shape, filters):
    model = build_cnn({"X_shape_": (1, *shape), "n_classes_": 2}, filters=filters)
    outputs = model(np.zeros((2, *shape), np.float32))
    assert_allclose(np.sum(outputs, axis=1), 1, rtol=1e-6)


def convolutions_of(model):
    return [
        (layer.filters, layer.kernel_size[0], layer.strides[0], layer.padding)
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D)
    ]


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (31, 31, 3), (12, 20, 3)])
def test_small_images_get_the_tutorial_network(shape):
    meta = {"X_shape_": (1, *shape), "n_classes_": 10}
    default, explicit = build_cnn(meta), build_cnn(meta, filters=(32, 64))
    kinds = [[type(layer) for layer in x.layers] for x in (default, explicit)]
    assert kinds[0] == kinds[1]
    assert convolutions_of(default) == convolutions_of(explicit)
    shapes = [[x.shape for x in model.weights] for model in (default, explicit)]
    assert shapes[0] == shapes[1]
    assert [n for n, *_ in convolutions_of(default)] == [32, 64]


@pytest.mark.parametrize(
    ("side", "n_filters"),
    [(32, []), (63, []), (64, [16]), (127, [16]), (128, [16, 16]), (224, [16, 16])],
)
def test_large_images_are_halved_until_they_are_small(side, n_filters):
    model = build_cnn({"X_shape_": (1, side, side, 3), "n_classes_": 10})
    expected = [(n, 3, 1, "same") for n in [*n_filters, 32, 64, 128]]
    if side >= 64:  # the first convolution at full size takes every second pixel
        expected[0] = (16, 5, 2, "same")
    assert convolutions_of(model) == expected
    (flatten,) = [x for x in model.layers if isinstance(x, keras.layers.Flatten)]
    _, height, width, n_maps = flatten.input.shape
    assert height == width
    assert 4 <= height <= 8
    assert n_maps == 128
    assert [layer.units for layer in model.layers[-2:]] == [128, 10]


@pytest.mark.parametrize(
    "shape",
    [
        *[(side, side, 3) for side in (8, 16, 28, 31, 32, 33, 48, 64, 100, 127, 224)],
        *[(1, 32, 1), (8, 224, 1), (224, 31, 3), (40, 30, 3), (96, 200, 1)],
    ],
)
def test_the_default_takes_images_of_every_size(shape):
    model = build_cnn({"X_shape_": (1, *shape), "n_classes_": 2})
    assert model.output_shape == (None, 2)
    assert model.count_params() < 1_200_000
    outputs = model(np.zeros((2, *shape), np.float32))
    assert_allclose(np.sum(outputs, axis=1), 1, rtol=1e-6)


def test_given_filters_are_the_blocks_of_large_images_too():
    meta = {"X_shape_": (1, 64, 64, 3), "n_classes_": 10}
    model = build_cnn(meta, filters=(32, 64))
    assert convolutions_of(model) == [(32, 3, 1, "valid"), (64, 3, 1, "valid")]
    (flatten,) = [x for x in model.layers if isinstance(x, keras.layers.Flatten)]
    assert flatten.input.shape == (None, 14, 14, 64)


def test_the_size_of_the_filters_is_kept_in_large_images():
    meta = {"X_shape_": (1, 64, 64, 3), "n_classes_": 10}
    model = build_cnn(meta, kernel_size=5)
    assert [size for _, size, *_ in convolutions_of(model)] == [7, 5, 5, 5]


def test_parameters_reach_the_build_function():
    wrapper = KerasClassifier(
        build_cnn, model__filters=(5, 6), model__dropout=0.5, epochs=3
    )
    network = build_network(wrapper, (8, 8, 1), 0, CLASSES)
    kinds = [type(layer).__name__ for layer in network.layers]
    assert "Dropout" in kinds
    assert network.layers[0].filters == 5
    assert network.fit_kwargs["epochs"] == 3


def test_routed_parameters_reach_the_optimizer():
    wrapper = KerasClassifier(build_cnn, optimizer="sgd", optimizer__learning_rate=0.25)
    optimizer = build_network(wrapper, (8, 8, 1), 0, CLASSES).compile_kwargs[
        "optimizer"
    ]
    assert isinstance(optimizer, keras.optimizers.SGD)
    assert float(optimizer.learning_rate) == 0.25


def test_the_compilation_of_a_model_is_kept():
    model = cnn()
    model.compile(keras.optimizers.SGD(0.5), "categorical_crossentropy")
    network = build_network(model, (8, 8, 1), 0, CLASSES)
    assert float(network.compile_kwargs["optimizer"].learning_rate) == 0.5
    assert network.one_hot


@pytest.mark.parametrize(
    ("loss", "one_hot"),
    [
        (None, False),
        ("sparse_categorical_crossentropy", False),
        ("categorical_crossentropy", True),
        ("mean_squared_error", True),
        (lambda y, p: keras.losses.sparse_categorical_crossentropy(y, p), False),
    ],
)
def test_targets_are_what_the_loss_takes(loss, one_hot):
    wrapper = KerasClassifier(build_cnn, loss=loss)
    assert build_network(wrapper, (8, 8, 1), 0, CLASSES).one_hot is one_hot


@pytest.mark.parametrize(
    ("model", "n_classes"),
    [
        (cnn(), 3),
        (cnn(activation=None), 3),
        (cnn(activation=None, tail=[keras.layers.Softmax()]), 3),
        (cnn(activation=None, tail=[keras.layers.Activation("softmax")]), 3),
        (cnn(units=1, activation="sigmoid"), 2),
        (cnn(units=1, activation=None), 2),
    ],
)
def test_model_gives_probabilities_whatever_the_head(model, n_classes):
    network = build_network(model, (8, 8, 1), 0, np.arange(n_classes))
    outputs = np.asarray(network.prediction_model(np.ones((2, 8, 8, 1), np.float32)))
    assert outputs.shape == (2, 1 if n_classes == 2 else 3)
    assert (outputs >= 0).all()
    assert (outputs <= 1).all()
    if n_classes == 3:
        assert_allclose(outputs.sum(axis=1), 1, rtol=1e-6)
    assert network.backbone.output_shape == (None, 144)


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_a_linear_activation_at_the_end_changes_no_probability(activation):
    def build(last):
        inputs = keras.Input((4, 4, 1))
        x = keras.layers.Dense(3, activation=activation)(keras.layers.Flatten()(inputs))
        return keras.Model(inputs, last(x))

    images = np.random.default_rng(0).random((5, 4, 4, 1), dtype=np.float32)
    with_it, without = (
        build_network(lambda last=last: build(last), (4, 4, 1), 0, np.arange(3))
        for last in (keras.layers.Activation("linear"), lambda x: x)
    )
    probabilities = with_it.prediction_model(images)
    assert_allclose(np.sum(probabilities, axis=1), 1, rtol=1e-5)
    assert_allclose(probabilities, without.prediction_model(images), rtol=1e-5)
    losses = [x.compile_kwargs["loss"].get_config() for x in (with_it, without)]
    assert losses[0]["from_logits"] == losses[1]["from_logits"] == (not activation)


def test_a_model_is_left_untouched_and_starts_from_its_weights():
    model = cnn()
    before = weights_of(model)
    network = build_network(model, (8, 8, 1), 0, CLASSES)
    assert_array_equal(network.layers[0].get_weights()[0], before[0])
    network.layers[0].set_weights([np.zeros_like(w) for w in before[:2]])
    assert_same_weights(model, before)


def adapted(estimator, images, **params):
    """Return a network whose Normalization layers are adapted to images."""
    network = build_network(estimator, (8, 8, 1), 0, CLASSES, **params)
    set_statistics(network, distinct_images(images, np.arange(len(images))))
    return network


def test_any_network_that_is_built_is_standardised():
    raw = np.random.default_rng(0).normal(5, 2, (50, 8, 8, 1)).astype(np.float32)
    network = adapted(lambda: cnn(), raw)
    scaled = (raw - raw.mean()) / raw.std()
    expected = network.layers[-1](network.layers[0](scaled))
    assert_allclose(network.backbone(raw), expected, rtol=1e-4, atol=1e-5)


def test_copied_weights_give_equal_embeddings():
    X = np.random.default_rng(0).normal(size=(3, 8, 8, 1))
    first = adapted(None, X).backbone
    second = build_network(None, (8, 8, 1), 1).backbone
    assert not np.allclose(first(X), second(X))
    copy_weights(first, second)
    assert_array_equal(first(X), second(X))


@pytest.mark.parametrize(
    ("frozen_layers", "n_frozen"), [(0, 0), (2, 2), (-1, 5), ("all", 6), (6, 6)]
)
def test_frozen_layers_count_as_slices_do(frozen_layers, n_frozen):
    network = build_network(None, (8, 8, 1), 0, CLASSES)
    freeze(network, frozen_layers)
    assert [x.trainable for x in network.layers] == [False] * n_frozen + [True] * (
        6 - n_frozen
    )


def test_unfreezing_leaves_what_the_user_froze_and_batch_normalization():
    layers = keras.layers
    inner = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(2, 3, trainable=False),
            layers.BatchNormalization(),
            layers.Conv2D(2, 3),
        ]
    )
    outer = [inner, layers.BatchNormalization(), layers.Flatten()]
    model = keras.Sequential([keras.Input((8, 8, 1)), *outer, layers.Dense(3)])
    network = build_network(model, (8, 8, 1), 0, CLASSES)
    nested, last, *_ = network.layers
    flags = [layer.trainable for layer in nested.layers]
    freeze(network, 1)
    assert not nested.trainable_variables
    unfreeze(network)
    assert flags == [False, True, True]
    assert [layer.trainable for layer in nested.layers] == [False, False, True]
    assert last.trainable  # it was not frozen


@pytest.mark.parametrize("frozen_layers", [7, -7])
def test_frozen_layers_out_of_range(frozen_layers):
    network = build_network(None, (8, 8, 1), 0, CLASSES)
    with pytest.raises(ValueError, match="out of range.*6 layers"):
        freeze(network, frozen_layers)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (cnn(units=4), "3 units.*has 4 units"),
        (cnn(units=3, activation="relu"), "activation 'relu'"),
        # A function: the oldest Keras copies no layer that is an activation.
        (
            lambda: cnn(units=3, activation=keras.layers.LeakyReLU()),
            "activation <LeakyReLU",
        ),
        (cnn(tail=[keras.layers.Reshape((3, 1))]), "must end in a class head"),
        (cnn(shape=(9, 9, 1)), r"inputs of shape \(9, 9, 1\), but .* \(8, 8, 1\)"),
        (
            keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Dense(3)]),
            "one embedding per image",
        ),
    ],
)
def test_a_network_without_a_class_head_is_refused(model, message):
    with pytest.raises(ValueError, match=message):
        build_network(model, (8, 8, 1), 0, CLASSES)


def test_a_subclassed_model_is_refused():
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(TypeError, match="Functional or Sequential"):
        build_network(lambda: Subclassed(), (8, 8, 1), 0, CLASSES)


def dense_network(*units):
    """Return a network of Dense layers, of which the last is the class head."""

    def build(meta):
        body = [keras.layers.Dense(n, activation="relu") for n in units]
        return keras.Sequential(
            [
                keras.Input((4, 4, 1)),
                keras.layers.Flatten(),
                *body,
                keras.layers.Dense(meta["n_classes_"], activation="softmax"),
            ]
        )

    return lambda seed: build_network(build, (4, 4, 1), seed, np.arange(3))


@pytest.mark.parametrize(
    ("units", "frozen_layers", "n_transferred"),
    [((5, 6), 0, 2), ((5, 6), "all", 4), ((5, 6), 2, 2), ((5,), 0, 2)],
)
def test_only_a_last_dense_layer_starts_afresh(units, frozen_layers, n_transferred):
    build = dense_network(*units)
    source, target = build(0).backbone, build(1)
    own = target.backbone.get_weights()[3:]  # behind the statistics of the pixels
    freeze(target, frozen_layers)
    transfer_weights(source, target)
    pretrained = source.get_weights()[3:]
    weights = target.backbone.get_weights()[3:]
    expected = [*pretrained[:n_transferred], *own[n_transferred:]]
    for a, b in zip(weights, expected, strict=True):
        assert_array_equal(a, b)
