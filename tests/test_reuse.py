import functools
import gc
import pickle
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import assert_same_weights, flat_weights, two_stages, weights_of
from numpy.testing import assert_allclose, assert_array_equal

import skssl
import skssl._training.reuse
from skssl import (
    CombinedPretext,
    JigsawPretext,
    MaskedPretext,
    RotationPretext,
    SelfSupervisedEncoder,
    SimCLRPretext,
)
from skssl._data.training_set import distinct_images
from skssl._networks.identity import architecture
from skssl._networks.network import build_network
from skssl._networks.surgery import set_statistics
from skssl._networks.training_copies import (
    LiveNormalization,
    MaxPoolingReLU,
    training_copy,
)
from skssl._runtime import kept_copies
from skssl._training.distribution import DistributedTrainer
from skssl._training.reuse import (
    BlockTrainer,
    FusedAdam,
    compiled,
    compiled_copy,
)
from skssl._training.stages import labelled_batch

IMAGE_SHAPE = (8, 8, 1)
IMAGES = np.random.default_rng(0).normal(3, 2, (20, *IMAGE_SHAPE)).astype(np.float32)
TARGETS = np.arange(20) % 3


@pytest.fixture(autouse=True)
def no_kept_copies():
    """Let each test begin without copies that are kept."""
    skssl.clear_session()


def network(seed=0, mean=3.0, **params):
    """Return a classifier that standardises and drops at random."""
    from scikeras.wrappers import KerasClassifier

    from skssl import build_cnn

    params = {"model__filters": (2,), "model__dropout": 0.5, **params}
    wrapper = KerasClassifier(build_cnn, optimizer="adam", **params)
    built = build_network(wrapper, IMAGE_SHAPE, seed, np.arange(3))
    pixels = np.full((2, *IMAGE_SHAPE), mean, np.float32)
    pixels[0] -= 2
    pixels[1] += 2
    set_statistics(built, distinct_images(pixels, np.arange(2)))
    return built.training_model


def settings(**others):
    return {
        "optimizer": keras.optimizers.Adam(0.01),
        "loss": "sparse_categorical_crossentropy",
        "metrics": ["accuracy"],
        **others,
    }


labelled = functools.partial(labelled_batch, None, None)


def fit(model):
    """Train a network for two epochs of four batches, as it takes them."""
    settings = {"epochs": 2, "shuffle": False, "verbose": 0}
    if isinstance(model, DistributedTrainer):
        order = np.arange(20).reshape(4, 5)
        data = (IMAGES[order], TARGETS[order]), np.ones(4)
    elif isinstance(model, BlockTrainer):
        order = np.arange(20).reshape(2, 10)  # two blocks of two batches
        seeds, bounds = np.zeros((2, 2, 2), "i"), [[0, 5, 10]] * 2
        data = IMAGES[order], seeds, bounds, [[5, 5]] * 2, TARGETS[order]
    else:
        return model.fit(IMAGES, TARGETS, batch_size=5, **settings).history
    return model.fit(tf.data.Dataset.from_tensor_slices(data), **settings).history


def trained(model, *, reuse=True, **others):
    """Train a network, in a copy that may be used again or itself."""
    if reuse:
        with compiled_copy(
            model, settings(**others), labelled, needs_plain_steps=False
        ) as copy:
            fit(copy)
    else:
        fit(compiled(model, settings(**others), labelled))
    return model


@pytest.mark.parametrize("mean", [3.0, -50.0])
def test_a_copy_trains_like_the_model_itself(mean):
    expected = trained(network(1, mean), reuse=False)
    assert not kept_copies
    assert_same_weights(trained(network(1, mean)), expected)
    assert len(kept_copies) == 1
    trained(network(2, mean=7.0))  # other weights and statistics
    assert_same_weights(trained(network(1, mean)), expected)
    assert len(kept_copies) == 1


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("shape", [(5, 4, 3), (None, None, 3)])
def test_a_copy_standardises_channels_as_the_model_does(shape, policy):
    images = np.random.default_rng(0).normal([1, 50, -9], [1, 9, 0.1], (6, 5, 4, 3))
    layer = keras.layers.Normalization(dtype=policy)
    model = keras.Sequential([keras.Input(shape), layer])
    layer.adapt(images)
    copy = training_copy(model)
    copy.set_weights(model.get_weights())
    copied, expected = (
        keras.ops.convert_to_numpy(x(images, training=True)) for x in (copy, model)
    )
    assert_array_equal(copied, expected)
    assert_allclose(copied.astype(float).std(axis=(0, 1, 2)), 1, atol=0.1)


def stacked(*layers, shape=(15, 13, 2)):
    """Return a network that standardises, with other layers in front of its end."""
    last = [keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")]
    first = keras.layers.Normalization()
    model = keras.Sequential([keras.Input(shape), first, *layers, *last])
    first.adapt(np.random.default_rng(0).normal(2, 3, (9, *shape)))
    return model


def conv(size=3, **params):
    params = {"filters": 4, "activation": "relu", **params}
    return keras.layers.Conv2D(kernel_size=size, **params)


def pool(size=2, **params):
    return keras.layers.MaxPooling2D(size, **params)


def with_graph(connect):
    """Return a network on 15x13 pixels, whose images go through a Normalization."""
    layer = keras.layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(2, 3, (9, 15, 13, 2)))
    images = keras.Input((15, 13, 2))
    x = connect(layer(images), layer)
    return keras.Model(images, keras.layers.Dense(3, activation="softmax")(x))


def branching(x, normalization):
    """A convolution that pooling is not alone to read."""
    x = conv()(x)
    ends = [keras.layers.Flatten()(y) for y in (pool()(x), x)]
    return keras.layers.Concatenate()(ends)


def pooled_twice(x, normalization):
    """A pooling layer with two calls."""
    layer = pool()
    return keras.layers.Flatten()(layer(conv(activation="tanh")(layer(conv()(x)))))


def standardised_twice(x, normalization):
    """A Normalization that sees the images, and later larger ones."""
    x = keras.layers.UpSampling2D(4)(pool()(conv(filters=2)(x)))
    return keras.layers.GlobalAveragePooling2D()(conv()(normalization(x)))


@pytest.mark.parametrize(
    "make, size, n_moved",
    [
        (lambda: stacked(conv(), pool(), conv(), pool()), (14, 10), 2),
        (lambda: stacked(conv(), pool(), conv(2), conv(), pool()), (12, 12), 2),
        (lambda: stacked(conv(strides=2), pool((3, 2))), (13, 13), 1),
        (lambda: stacked(conv(dilation_rate=2), pool(3, strides=2)), (15, 13), 1),
        (lambda: stacked(conv(activation="tanh"), pool((2, 5))), (14, 12), 0),
        (lambda: stacked(conv(padding="same"), pool()), (15, 13), 1),
        (lambda: stacked(pool(padding="same")), (15, 13), 0),
        (lambda: stacked(conv(activity_regularizer="l2"), pool()), (15, 13), 0),
        (lambda: stacked(keras.layers.BatchNormalization(), pool()), (15, 13), 0),
        (lambda: stacked(conv(), keras.layers.AveragePooling2D(2)), (14, 12), 0),
        (lambda: stacked(conv(), keras.layers.Dropout(0.0), pool()), (15, 13), 0),
        (lambda: with_graph(branching), (15, 13), 0),
        (lambda: with_graph(pooled_twice), (15, 13), 0),
        (lambda: with_graph(standardised_twice), (15, 13), 1),
        (
            lambda: keras.Sequential(
                [keras.Input((15, 13, 2)), stacked(conv(), pool())]
            ),
            (14, 12),
            1,
        ),
    ],
)
def test_a_copy_computes_less_and_trains_the_same(make, size, n_moved):
    keras.utils.set_random_seed(0)
    model = make()
    copy = training_copy(model)
    copy.set_weights(model.get_weights())
    inner = copy.layers[0] if isinstance(copy.layers[0], keras.Model) else copy
    moved = [x for x in inner.layers if type(x) is MaxPoolingReLU]
    assert len(moved) == n_moved
    (normalization,) = (x for x in inner.layers if type(x) is LiveNormalization)
    assert (normalization.size or inner.input_shape[1:3]) == size
    assert copy.output_shape == model.output_shape
    rng = np.random.default_rng(0)
    images = rng.normal(2, 3, (20, *model.input_shape[1:])).astype(np.float32)
    for trained in (model, copy):
        trained.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        trained.fit(images, TARGETS, epochs=3, batch_size=5, shuffle=False, verbose=0)
    for ours, expected in zip(copy.get_weights(), model.get_weights(), strict=True):
        assert_allclose(ours, expected, atol=1e-6)


def test_one_copy_serves_all_learning_rates():
    def trained_at(rate, **reuse):
        optimizer = keras.optimizers.Adam(rate)
        return trained(network(), optimizer=optimizer, **reuse)

    for rate in (0.1, 0.001):
        assert_same_weights(trained_at(rate), trained_at(rate, reuse=False))
    assert len(kept_copies) == 1
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    trained_at(schedule)
    assert len(kept_copies) == 2


def test_blocks_are_trained_on_as_keras_trains_on_batches():
    models = [network(1, model__dropout=0.0) for _ in range(2)]
    optimizers = [keras.optimizers.SGD(0.01) for _ in range(2)]
    compile_kwargs = settings(optimizer=optimizers[0])
    with compiled_copy(
        models[0], compile_kwargs, labelled, needs_plain_steps=False
    ) as copy:
        assert isinstance(copy, BlockTrainer)
        history = fit(copy)
    models[1].compile(**settings(optimizer=optimizers[1]))
    assert history == fit(models[1])
    assert_same_weights(*models)


@pytest.mark.parametrize(
    "params",
    [
        {"learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-3},
        {"weight_decay": 0.1, "clipnorm": 1.0, "use_ema": True},
        {"gradient_accumulation_steps": 2},
        {"learning_rate": keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)},
    ],
)
def test_the_fused_adam_is_adam(params):
    rng = np.random.default_rng(0)
    start, ends = rng.normal(size=50).astype(np.float32), []
    gradients = rng.normal(size=(20, 50)) * np.geomspace(1e-6, 1, 50)
    for kind in (keras.optimizers.Adam, FusedAdam):
        variable, optimizer = keras.Variable(start), kind(**params)
        for gradient in gradients:
            optimizer.apply([tf.constant(gradient, "float32")], [variable])
        optimizer.finalize_variable_values([variable])
        ends.append(np.array(variable.numpy()))
    moves = [end - start for end in ends]
    assert_allclose(moves[1], moves[0], rtol=0, atol=1e-3 * np.abs(moves[0]).max())


def test_adam_alone_is_replaced_and_not_its_kin():
    for optimizer, expected in [
        (keras.optimizers.Adam(0.01, beta_1=0.5), FusedAdam),
        (keras.optimizers.Adam(amsgrad=True), keras.optimizers.Adam),
        (keras.optimizers.AdamW(), keras.optimizers.AdamW),
    ]:
        trained = compiled(network(), settings(optimizer=optimizer), labelled)
        assert type(trained.optimizer) is expected
        assert trained.optimizer.get_config() == optimizer.get_config()


def test_what_was_trained_stays_as_it_is():
    first = network(1)
    weights = weights_of(trained(first))
    trained(network(2))
    assert_same_weights(first, weights)
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
def test_networks_with_code_of_the_user_train_themselves(layer):
    model = keras.Sequential(
        [keras.Input((4,)), layer(), keras.layers.Dense(3, activation="softmax")]
    )
    model = keras.Model(model.inputs[0], model.outputs[0])
    with compiled_copy(model, settings(), labelled, needs_plain_steps=False) as trained:
        assert trained.layers[-1] is model.layers[-1]
    assert not kept_copies


@pytest.mark.parametrize(
    "others",
    [
        {"loss": lambda y_true, y_pred: keras.ops.mean(y_pred)},
        {"metrics": [lambda y_true, y_pred: keras.ops.mean(y_pred)]},
        {"loss": object()},
    ],
)
def test_settings_with_code_of_the_user_are_not_reused(others):
    if isinstance(others.get("loss"), str | type(lambda: 0)) or "metrics" in others:
        trained(network(), **others)
    else:
        with pytest.raises(ValueError, match="object"):
            trained(network(), **others)
    assert not kept_copies


class Turned(RotationPretext):
    pass


def test_copies_are_kept_for_each_task():
    def train(task):
        encoder = SelfSupervisedEncoder(pretext=task, epochs=1, random_state=0)
        return encoder.fit(IMAGES).history_

    history = train(RotationPretext((0, 90)))
    assert train(RotationPretext((0, 180))) != history
    assert len(kept_copies) == 2
    assert train(RotationPretext((0, 90))) == history
    assert len(kept_copies) == 2
    assert train(Turned((0, 90))) == history
    assert len(kept_copies) == 2


def test_copies_are_kept_for_tasks_with_losses_of_their_own():
    def train(task):
        encoder = SelfSupervisedEncoder(pretext=task, epochs=1, random_state=0)
        return encoder.fit(IMAGES).history_

    def combined(weight):
        tasks = [("masked", MaskedPretext()), ("jigsaw", JigsawPretext())]
        return CombinedPretext(tasks, [1, weight])

    for one, other in [
        (SimCLRPretext(0.1), SimCLRPretext(0.2)),
        (combined(1), combined(2)),
    ]:
        skssl.clear_session()
        history = train(one)
        assert train(other)["loss"] != history["loss"]
        assert len(kept_copies) == 2
        assert train(one) == history
        assert len(kept_copies) == 2


def test_no_copy_is_kept_of_a_task_that_holds_code_of_the_user():
    parts = [("turned", Turned()), ("masked", MaskedPretext())]
    for task in (SimCLRPretext(augmentation=tf.negative), CombinedPretext(parts)):
        SelfSupervisedEncoder(pretext=task, epochs=1).fit(IMAGES)
        assert len(kept_copies) == 0


class Brightened(RotationPretext):
    """A task of the user's own with a state: the generator of a layer."""

    def fit(self, X, y=None):
        self.layer_ = keras.layers.RandomBrightness(0.5, value_range=(0, 1), seed=0)
        return super().fit(X)

    def make_batch(self, images, seed):
        return super().make_batch(self.layer_(images, training=True), seed)


def test_a_task_with_a_state_starts_afresh_in_each_fit():
    encoder = SelfSupervisedEncoder(pretext=Brightened(), epochs=1, random_state=0)
    histories = [encoder.fit(IMAGES).history_ for _ in range(3)]
    assert histories[0] == histories[1] == histories[2]


def test_copies_are_kept_for_what_is_behind_frozen_layers():
    y = TARGETS
    encoder = SelfSupervisedEncoder(epochs=1, random_state=0).fit(IMAGES)
    clf = two_stages(encoder=encoder, frozen_layers=4, random_state=0)
    for _ in range(3):
        clf.fit(IMAGES, y)
    assert len(kept_copies) == 2


def test_a_training_that_fails_leaves_no_copy():
    model = network()
    before = weights_of(model)
    with pytest.raises(KeyboardInterrupt):
        with compiled_copy(
            model, settings(), labelled, needs_plain_steps=False
        ) as copy:
            fit(copy)
            raise KeyboardInterrupt
    assert_same_weights(model, before)
    assert not kept_copies


def test_few_and_small_copies_are_kept(monkeypatch):
    monkeypatch.setattr(skssl._training.reuse, "MAX_COPIES", 2)
    for n_filters in (1, 2, 3):
        trained(network(model__filters=(n_filters,)))
    assert len(kept_copies) == 2
    n_weights = network(model__filters=(3,)).count_params()
    monkeypatch.setattr(skssl._training.reuse, "MAX_BYTES", 20 * n_weights)
    trained(network(model__filters=(3,)))
    assert len(kept_copies) == 1  # both are too much
    skssl.clear_session()
    trained(network(model__filters=(4,)))
    assert not kept_copies  # it is too large alone


def test_a_cleared_session_lets_go_of_networks_and_fits_the_same(tiny, trainings):
    encoder = SelfSupervisedEncoder(tiny, epochs=1, random_state=0)
    first, second = (encoder.fit(IMAGES).history_ for _ in range(2))
    assert trainings[0] is trainings[1]  # it is compiled once
    kept = weakref.ref(trainings[0])
    trainings.clear()
    skssl.clear_session()
    gc.collect()
    assert kept() is None
    assert encoder.fit(IMAGES).history_ == second == first


def test_clearing_the_session_changes_no_result():
    first = trained(network(1))
    assert kept_copies
    skssl.clear_session()
    assert not kept_copies
    assert_same_weights(trained(network(1)), first)


def test_eager_training_is_that_of_keras():
    eager, traced = trained(network(1), run_eagerly=True), trained(network(1))
    assert_allclose(flat_weights(eager), flat_weights(traced), atol=1e-5)


def test_a_watched_network_is_one_of_keras():
    model = network()
    with compiled_copy(model, settings(), labelled, needs_plain_steps=True) as trained:
        assert not isinstance(trained, BlockTrainer)
        assert type(trained.optimizer) is keras.optimizers.Adam
        assert trained.layers[-1] is model.layers[-1]
    assert not kept_copies


def test_under_a_strategy_the_model_trains_itself():
    with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
        trained(network())
    assert not kept_copies


def test_a_compiled_model_goes_on_with_its_optimizer():
    model = network()
    model.compile(**settings())
    with compiled_copy(model, settings(), labelled, needs_plain_steps=False) as same:
        assert same is model
