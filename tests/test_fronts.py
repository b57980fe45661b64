"""What an image passes before the first layer with weights, and who scales it."""

import keras
import numpy as np
import pytest
from keras import layers
from networks import two_stages
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits

from skssl import SelfSupervisedClassifier, SelfSupervisedEncoder, build_cnn
from skssl._data.training_set import distinct_images
from skssl._networks.graph import call_of, calls, kinds
from skssl._networks.network import build_network
from skssl._networks.surgery import set_statistics

DIGITS, LABELS = load_digits(return_X_y=True)
DIGITS = np.round(DIGITS * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1)
CLASSES = np.arange(10)
PHOTOS = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3)).astype(np.uint8)
PHOTOS[..., 1] //= 3  # so that the channels differ


def behind(front, *body):
    """Return a build function of a small network behind a function of its input."""

    def build(meta):
        inputs = keras.Input(meta["X_shape_"][1:])
        x = front(inputs)
        for layer in body or (layers.Conv2D(8, 3, activation="relu"),):
            x = layer(x)
        x = layers.Dense(32, activation="relu")(layers.Flatten()(x))
        return keras.Model(inputs, layers.Dense(meta["n_classes_"])(x))

    return build


def nested(*inner, shape=(8, 8, 1)):
    """Return a network of layers, to be called as one."""
    return keras.Sequential([keras.Input(shape), *inner])


def chain(*functions):
    def call(x):
        for function in functions:
            x = function(x)
        return x

    return call


def adapted_to_bytes():
    layer = layers.Normalization()
    layer.adapt(DIGITS.astype(np.float32) / 255)
    return layer


# Fronts that scale the image themselves. Each is made anew for each network.
SCALING = {
    "division": lambda: lambda x: x / 255.0,
    "preprocess_input": lambda: keras.applications.mobilenet_v2.preprocess_input,
    "rescaling": lambda: layers.Rescaling(1 / 127.5, offset=-1),
    "lambda": lambda: layers.Lambda(lambda x: x / 255.0),
    "nested rescaling": lambda: nested(layers.Rescaling(1 / 255)),
    "augmentation, rescaling": lambda: chain(
        layers.RandomTranslation(0.1, 0.1), layers.Rescaling(1 / 255)
    ),
    "resizing, rescaling": lambda: chain(
        layers.Resizing(12, 12), layers.Rescaling(1 / 255)
    ),
    "nested augmentation and division": lambda: chain(
        nested(layers.RandomTranslation(0.1, 0.1)), lambda x: (x - 30.0) * (1 / 128)
    ),
    "fixed normalization": lambda: layers.Normalization(mean=[80.0], variance=[9e3]),
    "rescaling, adapted normalization": lambda: chain(
        layers.Rescaling(1 / 255), adapted_to_bytes()
    ),
}


def seen_by_weights(model, images):
    """Return what the first layer with weights sees, Normalization left out."""
    seen = []
    call = keras.layers.Layer.__call__

    def recording(layer, *args, **kwargs):
        skipped = isinstance(layer, keras.Model | layers.Normalization)
        if not seen and not skipped and layer.weights:
            seen.append(keras.ops.convert_to_numpy(args[0]))
        return call(layer, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.layers.Layer, "__call__", recording)
        model(images, training=False)
    return seen[0]


def adapted(estimator, images, n_classes=10, **params):
    """Return the backbone of a network whose Normalization layers are adapted."""
    network = build_network(
        estimator, images.shape[1:], 0, np.arange(n_classes), **params
    )
    set_statistics(network, distinct_images(images, np.arange(len(images))))
    return network.backbone


def standardized(images):
    images = images.astype(np.float64)
    return (images - images.mean((0, 1, 2))) / images.std((0, 1, 2))


# Networks that scale images themselves


@pytest.mark.parametrize("name", SCALING)
def test_a_front_that_scales_is_the_only_one_that_does(name):
    build = behind(SCALING[name]())
    alone = build({"X_shape_": (1, 8, 8, 1), "n_classes_": 10})
    backbone = adapted(build, DIGITS[:200])
    assert not any(x.name == "standardize" for x in backbone.layers)
    assert_allclose(
        seen_by_weights(backbone, DIGITS[:200]),
        seen_by_weights(alone, DIGITS[:200]),
        atol=1e-6,
    )


@pytest.mark.parametrize("name", SCALING)
def test_networks_that_scale_learn_as_in_keras_alone(name, quick):
    train, test = slice(0, 500), slice(500, 900)
    build = behind(SCALING[name](), layers.Conv2D(8, 3, activation="relu"))
    wrapper = quick(build, epochs=20, optimizer__learning_rate=0.003)
    clf = two_stages(wrapper, pretrain_epochs=0, random_state=0)
    clf.fit(DIGITS[train], LABELS[train])
    alone = behind(SCALING[name]())({"X_shape_": (1, 8, 8, 1), "n_classes_": 10})
    keras.utils.set_random_seed(0)
    alone.compile(
        keras.optimizers.Adam(0.003),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    alone.fit(DIGITS[train], LABELS[train], batch_size=32, epochs=20, verbose=0)
    predicted = alone.predict(DIGITS[test], verbose=0).argmax(axis=1)
    expected = (predicted == LABELS[test]).mean()
    assert expected > 0.75
    assert clf.score(DIGITS[test], LABELS[test]) > expected - 0.06


def test_a_model_trained_elsewhere_starts_where_it_was(quick):
    model, given = (  # one is compiled
        behind(lambda x: x)({"X_shape_": (1, 8, 8, 1), "n_classes_": 10})
        for _ in range(2)
    )
    keras.utils.set_random_seed(0)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(DIGITS[:600], LABELS[:600], epochs=20, verbose=0)
    predicted = model.predict(DIGITS[600:], verbose=0).argmax(axis=1)
    expected = (predicted == LABELS[600:]).mean()
    assert expected > 0.7
    given.set_weights(model.get_weights())
    backbone = adapted(given, DIGITS[:50])
    assert_array_equal(seen_by_weights(backbone, DIGITS[:9]), DIGITS[:9])
    clf = two_stages(
        quick(given, optimizer="sgd", optimizer__learning_rate=0.0), pretrain_epochs=0
    ).fit(DIGITS[:50], LABELS[:50])
    assert clf.score(DIGITS[600:], LABELS[600:]) == expected


# Networks of keras.applications, flat or as one layer of another


APPLICATIONS = {
    "MobileNetV2": None,  # how it scales bytes, None where it does not
    "MobileNetV3Small": lambda x: x / 127.5 - 1,
    "EfficientNetB0": standardized,  # Rescaling, then Normalization to be adapted
    "ResNet50V2": None,
    "DenseNet121": None,
    "VGG16": None,
    "ConvNeXtTiny": lambda x: (
        (x - 255 * np.array([0.485, 0.456, 0.406]))
        / (255 * np.array([0.229, 0.224, 0.225]))
    ),
}


@pytest.mark.parametrize("name", APPLICATIONS)
def test_networks_of_keras_see_what_they_expect(name):
    application = getattr(keras.applications, name)
    base = application(
        weights=None, include_top=False, pooling="avg", input_shape=(64, 64, 3)
    )
    raw = PHOTOS.astype(np.float64)
    scaling = APPLICATIONS[name]

    def flat(meta):
        return keras.Model(base.input, layers.Dense(4)(base.output))

    def one_layer(meta):
        inputs = keras.Input((64, 64, 3))
        return keras.Model(inputs, layers.Dense(4)(base(inputs)))

    # Left alone, it sees what it sees in Keras alone, where nobody adapts it.
    expected = seen_by_weights(base, PHOTOS)
    given = seen_by_weights(adapted(one_layer, PHOTOS, 4, standardize=False), PHOTOS)
    assert_allclose(given, expected, atol=1e-6)
    # Else it is standardised, once, by itself or by a layer before it.
    expected = (scaling or standardized)(raw)
    for build in (one_layer, flat):
        seen = seen_by_weights(adapted(build, PHOTOS, 4), PHOTOS)
        inside = seen[:, 3:-3, 3:-3] if seen.shape != expected.shape else seen
        axes = (0, 1, 2)
        if seen.shape == expected.shape:
            assert_allclose(seen, expected, atol=1e-4)
        assert_allclose(inside.mean(axes), expected.mean(axes), atol=0.1)
        assert_allclose(inside.std(axes), expected.std(axes), rtol=0.1)


# Networks that do not scale images


@pytest.mark.parametrize(
    ("front", "at"),
    [
        (lambda x: x, 1),
        (layers.RandomTranslation(0.1, 0.1), 2),
        (chain(layers.RandomZoom(0.1), layers.RandomContrast(0.1)), 3),
        (nested(layers.RandomZoom(0.1), layers.RandomContrast(0.1)), 2),
        (layers.GaussianNoise(0.1), 1),
        (layers.ZeroPadding2D(1), 1),
        (chain(layers.RandomZoom(0.1), layers.Dropout(0.1)), 2),
    ],
)
def test_standardisation_stands_behind_leading_augmentation(front, at):
    backbone = adapted(behind(front), DIGITS[:100])
    names = [layer.name for layer in backbone.layers]
    assert names.index("standardize") == at
    seen = seen_by_weights(backbone, DIGITS[:100])[:, 1:-1, 1:-1]
    expected = standardized(DIGITS[:100])[:, 1:-1, 1:-1]
    if seen.shape == (100, 8, 8, 1):  # one zero on each side was added
        assert_allclose(seen[:, 1:-1, 1:-1], expected, atol=1e-4)
    else:
        assert_allclose(seen, expected, atol=1e-4)


def test_augmentation_at_the_start_of_a_nested_network_sees_the_image():
    inner = nested(layers.RandomZoom(0.1), layers.Conv2D(4, 3))
    backbone = adapted(behind(lambda x: x, inner), DIGITS[:100])
    names = [type(layer).__name__ for layer in backbone.layers[:4]]
    assert names == ["InputLayer", "RandomZoom", "Normalization", "Conv2D"]
    seen = seen_by_weights(backbone, DIGITS[:100])
    assert_allclose(seen, standardized(DIGITS[:100]), atol=1e-4)


def test_both_branches_of_a_front_see_one_standardised_image():
    def two(x):
        return layers.Concatenate()([layers.Conv2D(2, 3)(x), layers.Conv2D(2, 3)(x)])

    backbone = adapted(behind(two), DIGITS[:100])
    kinds_of = [type(layer).__name__ for layer in backbone.layers]
    assert kinds_of.count("Normalization") == 1
    first = [x for x in backbone.layers if isinstance(x, layers.Conv2D)][:2]
    before = [call_of(x.output).input_tensors[0] for x in first]
    assert before[0] is before[1]


def test_a_network_for_images_of_any_size_takes_these():
    def build(meta):
        inputs = keras.Input((None, None, 1))
        x = layers.Conv2D(4, 3)(inputs / 255.0)
        x = layers.GlobalAveragePooling2D()(x)
        return keras.Model(inputs, layers.Dense(10)(x))

    network = build_network(build, (8, 8, 1), 0, CLASSES)
    assert network.backbone.input_shape == (None, 8, 8, 1)
    assert_allclose(
        seen_by_weights(network.backbone, DIGITS[:5]), DIGITS[:5] / 255, atol=1e-6
    )


# Normalization layers of the network


def test_normalization_behind_rescaling_is_adapted_to_what_comes_out_of_it():
    pair = lambda: (layers.Rescaling(1 / 255), layers.Normalization())  # noqa: E731
    for front in (chain(*pair()), nested(*pair())):
        backbone = adapted(behind(front), DIGITS[:300])
        seen = seen_by_weights(backbone, DIGITS[:300])
        assert_allclose(seen, standardized(DIGITS[:300]), atol=1e-4)


def test_normalization_behind_a_convolution_is_adapted_to_its_output():
    body = layers.Conv2D(4, 3), layers.Normalization(name="behind")
    backbone = adapted(behind(lambda x: x, *body), DIGITS[:300])
    seen = keras.Model(backbone.input, backbone.get_layer("behind").output)(
        DIGITS[:300]
    )
    seen = keras.ops.convert_to_numpy(seen)
    assert_allclose(seen.mean((0, 1, 2)), np.zeros(4), atol=1e-3)
    assert_allclose(seen.std((0, 1, 2)), np.ones(4), atol=1e-3)


@pytest.mark.parametrize("axis", [(1, 2, 3), None, (1, 3), -1])
def test_normalization_has_the_axes_of_the_user(axis):
    norm = layers.Normalization(axis=axis)
    backbone = adapted(behind(norm), DIGITS[:300])
    seen = seen_by_weights(backbone, DIGITS[:300])
    images = DIGITS[:300].astype(np.float64)
    axes = {(1, 2, 3): 0, (1, 3): (0, 2)}.get(axis, (0, 1, 2))
    scale = images.std(axes, keepdims=True)
    expected = (images - images.mean(axes, keepdims=True)) / np.where(scale, scale, 1)
    assert_allclose(seen, expected, atol=1e-4)


def test_views_are_all_looked_at(quick):
    views = np.stack([DIGITS[:60], 255 - DIGITS[:60]], axis=1)
    norm = layers.Normalization(axis=None)
    encoder = SelfSupervisedEncoder(quick(behind(norm)), epochs=1).fit(views)
    layer = next(
        x for x in encoder.backbone_.layers if isinstance(x, layers.Normalization)
    )
    mean = layer.get_weights()[0]
    assert_allclose(mean, 127.5, rtol=1e-5)


class Statistics(layers.Layer):
    """Divides by a weight that does not train."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(), trainable=False, initializer="ones")

    def call(self, inputs):
        return inputs / self.scale


class Stem(layers.Layer):
    """Scales, then convolves."""

    def __init__(self, scaling, **kwargs):
        super().__init__(**kwargs)
        self.inner = [scaling, layers.Conv2D(4, 3)]

    def call(self, inputs):
        for layer in self.inner:
            inputs = layer(inputs)
        return inputs


@pytest.mark.parametrize("layer", [Statistics(), Stem(layers.Rescaling(1 / 255))])
def test_layers_of_the_users_own_that_scale_are_left_alone(layer):
    backbone = adapted(behind(lambda x: x, layer), DIGITS[:50])
    assert not any(x.name == "standardize" for x in backbone.layers)


@pytest.mark.parametrize("layer", [Stem(layers.Identity()), layers.Conv2D(4, 3)])
def test_layers_with_weights_alone_see_standardised_images(layer):
    layer.trainable = False
    backbone = adapted(behind(lambda x: x, layer), DIGITS[:50])
    assert any(x.name == "standardize" for x in backbone.layers)


# The parameter


@pytest.mark.parametrize("cls", [SelfSupervisedClassifier, SelfSupervisedEncoder])
@pytest.mark.parametrize("value", ["yes", None, 1, np.zeros(2)])
def test_standardize_is_one_of_three(cls, value):
    with pytest.raises(ValueError, match="standardize must be True, False or 'auto'"):
        cls(standardize=value).fit(DIGITS[:20], LABELS[:20])


def test_standardize_says_it_outright(quick):
    scaling = behind(layers.Rescaling(1 / 255))
    seen = seen_by_weights(adapted(scaling, DIGITS[:99], standardize=True), DIGITS[:99])
    assert_allclose(seen, standardized(DIGITS[:99]), atol=1e-4)
    bare = behind(lambda x: x)
    model = bare({"X_shape_": (1, 8, 8, 1), "n_classes_": 10})
    backbone = adapted(model, DIGITS[:99], standardize=True)
    assert_allclose(
        seen_by_weights(backbone, DIGITS[:99]), standardized(DIGITS[:99]), atol=1e-4
    )
    for estimator in (bare, model):
        clf = two_stages(quick(estimator), standardize=False, pretrain_epochs=1).fit(
            DIGITS[:99], LABELS[:99]
        )
        assert_array_equal(seen_by_weights(clf.model_, DIGITS[:9]), DIGITS[:9])


def test_an_encoders_setting_is_that_of_the_classifier(quick):
    wrapper = quick(behind(lambda x: x))
    encoder = SelfSupervisedEncoder(wrapper, standardize=False, epochs=1)
    encoder.fit(DIGITS[:99])
    clf = two_stages(encoder=encoder).fit(DIGITS[:99], LABELS[:99])
    assert_array_equal(seen_by_weights(clf.model_, DIGITS[:9]), DIGITS[:9])


def test_a_model_whose_normalization_was_never_adapted_is_named():
    model = build_cnn({"X_shape_": (1, 8, 8, 1), "n_classes_": 10})
    with pytest.warns(UserWarning, match="never adapted.*standardize=True"):
        build_network(model, (8, 8, 1), 0, CLASSES)
    backbone = adapted(model, DIGITS[:99], standardize=True)
    seen = seen_by_weights(backbone, DIGITS[:99])
    assert_allclose(seen, standardized(DIGITS[:99]), atol=1e-4)


# Heads


def two_branches(meta):
    inputs = keras.Input((8, 8, 1))
    x = layers.Flatten()(inputs)
    n = meta["n_classes_"]
    return keras.Model(inputs, layers.Dense(n)(x) + layers.Dense(n)(x))


def branch_beside(meta):
    inputs = keras.Input((8, 8, 1))
    x = layers.Flatten()(inputs)
    layers.Dense(4)(x)
    return keras.Model(inputs, keras.ops.relu(layers.Dense(meta["n_classes_"])(x)))


def nested_head(meta):
    inner = nested(layers.Flatten(), layers.Dense(meta["n_classes_"]))
    inputs = keras.Input((8, 8, 1))
    return keras.Model(inputs, inner(inputs))


def convolutional_head(meta):
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(meta["n_classes_"], 8)(inputs)
    return keras.Model(inputs, layers.Softmax()(layers.Flatten()(x)))


@pytest.mark.parametrize(
    "build", [two_branches, branch_beside, nested_head, convolutional_head]
)
def test_the_head_is_the_output_of_the_network(build):
    with pytest.raises(ValueError, match="must end in a class head.*include_top=False"):
        build_network(build, (8, 8, 1), 0, CLASSES)


@pytest.mark.parametrize("tail", [keras.ops.softmax, keras.ops.sigmoid])
def test_an_operation_behind_the_head_is_kept(tail, tmp_path, quick):
    def build(meta):
        inputs = keras.Input((8, 8, 1))
        x = layers.Dense(meta["n_classes_"])(layers.Flatten()(inputs / 255.0))
        return keras.Model(inputs, tail(x))

    network = build_network(build, (8, 8, 1), 0, CLASSES)
    head = network.prediction_model.layers[2]
    expected = tail(head(network.backbone(DIGITS[:5])))
    assert_allclose(network.prediction_model(DIGITS[:5]), expected, rtol=1e-6)
    assert not network.compile_kwargs["loss"].get_config()["from_logits"]
    clf = two_stages(quick(build, epochs=8), pretrain_epochs=0, random_state=0).fit(
        DIGITS[:300], LABELS[:300]
    )
    assert clf.score(DIGITS[:300], LABELS[:300]) > 0.6
    clf.save(tmp_path / "digits")
    probabilities = clf.predict_proba(DIGITS[:5])
    if tail is keras.ops.softmax:
        assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_a_softmax_over_another_axis_is_no_head():
    def build(meta):
        inputs = keras.Input((8, 8, 1))
        x = layers.Dense(meta["n_classes_"])(layers.Flatten()(inputs))
        return keras.Model(inputs, keras.ops.softmax(x, axis=0))

    with pytest.raises(ValueError, match="must end in a class head"):
        build_network(build, (8, 8, 1), 0, CLASSES)


@pytest.mark.parametrize("end", ["pooled", "conv2d"])
def test_a_model_that_the_user_goes_on_with_is_left_alone(end, quick):
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, activation="relu", name="conv2d")(inputs)
    x = layers.MaxPooling2D()(layers.BatchNormalization()(x))
    live = keras.Model(inputs, layers.Flatten(name="pooled")(x))
    expected = live.predict(DIGITS[:5], verbose=0)

    def build(meta):
        features = layers.Flatten()(live.get_layer(end).output)
        return keras.Model(live.input, layers.Dense(meta["n_classes_"])(features))

    clf = two_stages(quick(build, epochs=20), pretrain_epochs=1, random_state=0)
    for _ in range(2):
        score = clf.fit(DIGITS[:300], LABELS[:300]).score(DIGITS[:300], LABELS[:300])
        assert score > 0.8
    assert_array_equal(live.predict(DIGITS[:5], verbose=0), expected)
    keras.Model(live.input, live.get_layer("conv2d").output)


def test_layers_that_are_called_anew_keep_their_weights_and_settings():
    def activation(x):
        return keras.ops.relu(x) * 2

    frozen = layers.Conv2D(4, 3, activation="relu")
    frozen.trainable = False
    own = layers.Conv2D(4, 1, activation=activation)  # no configuration says it whole
    adapted_inside = layers.Normalization()
    inner = nested(layers.BatchNormalization(), adapted_inside, shape=(6, 6, 4))
    adapted_inside.adapt(np.random.default_rng(0).normal(3, 2, (9, 6, 6, 4)))
    body = [frozen, own, inner, layers.Lambda(lambda x: x - 1)]
    model = behind(lambda x: x, *body)({"X_shape_": (1, 8, 8, 1), "n_classes_": 10})
    before = keras.Model(model.input, model.layers[-1].input)
    expected = before(standardized(DIGITS[:9]).astype(np.float32))
    backbone = adapted(lambda: model, DIGITS[:9])
    assert_allclose(backbone(DIGITS[:9]), expected, rtol=1e-3, atol=1e-4)
    assert [x.trainable for x in backbone.layers if x.name == frozen.name] == [False]


# Networks that cannot learn from a pretext task


@pytest.mark.parametrize("inside", [False, True])
def test_augmentation_that_undoes_the_task_is_named(inside, quick):
    layer = layers.RandomFlip(name="flip")
    front = nested(layer) if inside else layer
    encoder = SelfSupervisedEncoder(quick(behind(front)), epochs=1)
    with pytest.warns(UserWarning, match="RotationPretext unsolvable: RandomFlip 'fl"):
        encoder.fit(DIGITS[:40])
    two_stages(quick(behind(front)), pretrain_epochs=0).fit(DIGITS[:40], LABELS[:40])


def test_a_network_that_is_frozen_whole_is_named(quick):
    def build(meta):
        model = behind(lambda x: x)(meta)
        for layer in model.layers[:-1]:
            layer.trainable = False
        return model

    clf = two_stages(quick(build), pretrain_epochs=1)
    with pytest.warns(UserWarning, match="is frozen or without weights, so Rotation"):
        clf.fit(DIGITS[:40], LABELS[:40])
    clf.set_params(pretrain_epochs=0).fit(DIGITS[:40], LABELS[:40])


# Classes of the user's own


class OwnStep(keras.Model):
    def train_step(self, data):
        return {"loss": 0.0}


class OwnCall(keras.Model):
    def call(self, inputs, **kwargs):
        return super().call(inputs, **kwargs) * 0


class OwnLoss(keras.Sequential):
    def compute_loss(self, *args, **kwargs):
        return 0.0


@pytest.mark.parametrize(
    ("cls", "method"),
    [(OwnStep, "train_step"), (OwnCall, "call"), (OwnLoss, "compute_loss")],
)
def test_methods_that_would_not_be_called_are_refused(cls, method):
    def build(meta):
        inputs = keras.Input((8, 8, 1))
        outputs = layers.Dense(meta["n_classes_"])(layers.Flatten()(inputs))
        if issubclass(cls, keras.Sequential):
            return cls([inputs, layers.Flatten(), layers.Dense(10)])
        return cls(inputs, outputs)

    with pytest.raises(TypeError, match=rf"{cls.__name__} has its own {method}, which"):
        two_stages(build).fit(DIGITS[:20], LABELS[:20])


def test_a_subclass_that_adds_nothing_trains():
    class Named(keras.Model):
        pass

    def build(meta):
        inputs = keras.Input((8, 8, 1))
        outputs = layers.Dense(meta["n_classes_"])(layers.Flatten()(inputs))
        return Named(inputs, outputs)

    assert build_network(
        build, (8, 8, 1), 0, CLASSES
    ).prediction_model.output_shape == (None, 10)


def test_a_method_put_on_a_model_is_refused():
    def build(meta):
        model = behind(lambda x: x)(meta)
        model.train_step = lambda data: {}
        return model

    with pytest.raises(TypeError, match="has its own train_step"):
        build_network(build, (8, 8, 1), 0, CLASSES)


# Where the layers are


@pytest.mark.parametrize("front", [lambda x: x, lambda x: x / 255.0])
def test_a_layer_is_found_by_its_name_with_its_output(front, quick):
    def build(meta):
        return behind(front, layers.Conv2D(8, 3, name="conv2d"))(meta)

    clf = two_stages(quick(build), pretrain_epochs=1)
    clf.fit(DIGITS[:60], LABELS[:60])
    backbone = clf.model_.get_layer("backbone")
    maps = keras.Model(
        backbone.input, [backbone.get_layer("conv2d").output, backbone.output]
    )
    found, embedding = maps(DIGITS[:3])
    assert found.shape == (3, 6, 6, 8)
    assert_allclose(embedding, clf.transform(DIGITS[:3]), rtol=1e-4, atol=1e-5)


# The order of the axes


@pytest.fixture
def channels_first():
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format(before)


def test_the_default_network_takes_channels_last_whatever_keras_is_set_to(
    channels_first, quick
):
    clf = two_stages(quick(epochs=20), pretrain_epochs=1, random_state=0)
    assert clf.fit(DIGITS[:300], LABELS[:300]).score(DIGITS[:300], LABELS[:300]) > 0.8


def test_a_network_that_takes_channels_first_is_refused(channels_first):
    build = behind(lambda x: x, layers.Conv2D(4, 1, padding="same"))
    with pytest.raises(ValueError, match="takes channels first.*channels_last"):
        build_network(build, (8, 8, 1), 0, CLASSES)


# What is read from Keras's graph


def test_the_graph_of_keras_is_read_as_it_is():
    inputs = keras.Input((4,))
    shared = layers.Dense(4)
    x = shared(shared(inputs))
    y = keras.ops.add(x, inputs)
    model = keras.Model(inputs, layers.Activation("relu")(y))
    assert [type(x.operation).__name__ for x in calls(model)] == [
        "Dense",
        "Dense",
        "Add",
        "Activation",
    ]
    call = call_of(y)
    assert call.input_tensors == [x, inputs]
    assert call.outputs[0] is y


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        (layers.RandomFlip(), "augmentation"),
        (layers.Resizing(4, 4), "augmentation"),
        (layers.MaxPooling2D(), "neutral"),
        (layers.Rescaling(2.0), "scaling"),
        (layers.Normalization(), "scaling"),
        (layers.Lambda(lambda x: x), "scaling"),
        (layers.Conv2D(1, 1), "weights"),
        (layers.BatchNormalization(), "weights"),
    ],
)
def test_kinds_of_layers(operation, kind):
    keras.Model(x := keras.Input((8, 8, 1)), operation(x))
    assert kinds(operation) == {kind}


def test_kinds_of_operations():
    x = keras.Input((8, 8, 1))
    for make, kind in [
        (lambda: keras.ops.concatenate([x, x, x]), "neutral"),
        (lambda: keras.ops.image.resize(x, (4, 4)), "neutral"),
        (lambda: x[:, 1:], "neutral"),
        (lambda: keras.ops.transpose(x, (0, 2, 1, 3)), "neutral"),
        (lambda: keras.ops.cast(x, "float32"), "neutral"),
        (lambda: x * 2, "scaling"),
        (lambda: x - 1, "scaling"),
        (lambda: keras.ops.log(x), "scaling"),
    ]:
        assert kinds(call_of(make()).operation) == {kind}
