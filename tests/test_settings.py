import functools
import inspect
import os
import threading

import joblib
import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import assert_same_weights, two_stages, weights_of
from numpy.testing import assert_allclose, assert_array_equal
from scikeras.wrappers import KerasClassifier
from sklearn.base import clone
from sklearn.ensemble import BaggingClassifier

from skssl import SelfSupervisedEncoder, build_cnn
from skssl._data.training_set import TrainingSet
from skssl._networks.copies import copied_model, fresh_metric, fresh_optimizer
from skssl._networks.network import build_network
from skssl._networks.settings import COMPILE_SETTINGS, FIT_SETTINGS, REMEDIES, wrap
from skssl._networks.trial import try_settings
from skssl._training.callbacks import callback_identity, callbacks_restored
from skssl._training.stages import split_validation

IMAGE_SHAPE = (8, 8, 1)
META = {"X_shape_": (1, *IMAGE_SHAPE), "n_classes_": 10}
# All parameters of a KerasClassifier that are neither a setting of `fit` nor one of
# `compile`: each has a test below.
OTHER_PARAMETERS = {"model", "build_fn", "warm_start", "random_state"}
STOP = keras.callbacks.EarlyStopping
SAVE = keras.callbacks.ModelCheckpoint("x.keras", save_best_only=True)


@pytest.fixture
def train(digits):
    return digits[0][:100], digits[1][:100]


@pytest.fixture
def untrained(trainings):
    """Fail where anything was trained."""
    yield
    assert not trainings


def small_cnn(meta):
    return build_cnn(meta, filters=(4,), dense_units=16)


def kc(model=small_cnn, **params):
    return KerasClassifier(model, **{"optimizer": "adam", **params})


def classifier(estimator, **params):
    return two_stages(estimator, **{"pretrain_epochs": 0, "random_state": 0, **params})


def compiled_by(**settings):
    """Return a build function that compiles its model."""

    def build(meta):
        model = small_cnn(meta)
        defaults = {"optimizer": "adam", "loss": "sparse_categorical_crossentropy"}
        model.compile(**{**defaults, **settings})
        return model

    return build


class Observer(keras.callbacks.Callback):
    """Keeps what it sees of a training."""

    def __init__(self):
        super().__init__()
        self.logs = []
        self.n_batches = 0
        self.n_validated = 0
        self.seen = {}

    def on_train_begin(self, logs=None):
        for name in ("run_eagerly", "steps_per_execution", "jit_compile"):
            self.seen[name] = getattr(self.model, name)
        self.seen["optimizer"] = type(self.model.optimizer)

    def on_train_batch_end(self, batch, logs=None):
        self.n_batches += 1

    def on_test_batch_end(self, batch, logs=None):
        self.n_validated += 1

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append(dict(logs))


def network_of(estimator, n_classes=10):
    return build_network(estimator, IMAGE_SHAPE, 0, np.arange(n_classes))


def observed_fit(train, *, model=small_cnn, own=None, **params):
    """Return what a callback saw, and the fitted classifier."""
    observer = Observer()
    wrapper = kc(model, callbacks=[observer], **params)
    return observer, classifier(wrapper, **(own or {})).fit(*train)


# Every setting is used or refused


def arguments(function):
    return set(inspect.signature(function).parameters) - {"self"}


def test_every_argument_of_keras_and_of_a_wrapper_is_decided():
    refused = {x.removeprefix("fit__") for x in REMEDIES if x.startswith("fit__")}
    assert arguments(keras.Model.fit) == {*FIT_SETTINGS, *refused}
    assert arguments(keras.Model.compile) == set(COMPILE_SETTINGS)
    known = arguments(KerasClassifier) - {"kwargs"}
    assert known <= {*FIT_SETTINGS, *COMPILE_SETTINGS, *OTHER_PARAMETERS}
    assert not known & refused


def test_the_private_names_of_scikeras_are_there():
    assert callable(KerasClassifier._get_compile_kwargs)
    wrapper = KerasClassifier(build_cnn)
    wrapper.initialize(np.zeros((2, *IMAGE_SHAPE)), np.arange(2))
    assert wrapper._fit_callbacks == []


def test_the_private_names_of_keras_are_there():
    model = compiled_by(metrics=["accuracy"])(META)
    # All but whether the loss is scaled, which the optimizer shows.
    told = {*COMPILE_SETTINGS} - {"auto_scale_loss"}
    assert set(model._compile_config.config) == told
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    assert keras.optimizers.Adam(schedule)._learning_rate is schedule
    assert isinstance(keras.optimizers.Adam()._learning_rate, keras.Variable)
    assert vars(keras.callbacks.Callback())["_model"] is None


EVERY_SETTING = [
    *sorted(arguments(KerasClassifier) - {"kwargs"}),
    *(f"fit__{name}" for name in sorted(arguments(keras.Model.fit))),
    *(f"compile__{name}" for name in sorted(arguments(keras.Model.compile))),
    *(f"predict__{name}" for name in sorted(arguments(keras.Model.predict))),
    *(f"{prefix}__nonsense" for prefix in sorted(KerasClassifier._routing_prefixes)),
    "callbacks__nonsense",
]


@pytest.mark.parametrize("name", EVERY_SETTING)
@pytest.mark.filterwarnings("ignore:``build_fn`` will be renamed:UserWarning")
def test_no_setting_is_dropped(name, train, untrained):
    """A value that is none is refused by name, so something reads the setting."""
    params = {"optimizer": "adam", name: object()}
    model = [] if name in ("model", "build_fn") else [small_cnn]
    clf = classifier(
        KerasClassifier(*model, **params), pretrain_epochs=1, random_state=None
    )
    named = {"build_fn": "model", "random_state": "seed"}.get(name, name)
    with pytest.raises((TypeError, ValueError), match=named.rpartition("__")[2]):
        clf.fit(*train)


def test_a_build_function_may_read_any_setting():
    seen = {}

    def build(meta, params, compile_kwargs):
        seen.update(params, **compile_kwargs)
        return small_cnn(meta)

    wrapper = KerasClassifier(build, optimizer="sgd", own__width=3)
    wrap(wrapper).initialize(np.zeros((10, *IMAGE_SHAPE)), np.arange(10))
    assert seen["own__width"] == 3
    assert isinstance(seen["optimizer"], keras.optimizers.SGD)


@pytest.mark.filterwarnings("ignore:``build_fn`` will be renamed:UserWarning")
def test_other_ways_to_build_a_model_serve():
    class Own(KerasClassifier):
        def __init__(self, width=4, **kwargs):
            super().__init__(**kwargs)
            self.width = width

        def _keras_build_fn(self, meta):
            return build_cnn(meta, filters=(self.width,), dense_units=16)

    for wrapper in (KerasClassifier(build_fn=small_cnn), Own(width=4)):
        network = network_of(wrapper)
        assert network.prediction_model.count_params() == small_cnn(META).count_params()


# What the settings of fit do


@pytest.mark.parametrize("prefix", ["", "fit__"])
def test_epochs_batches_and_callbacks_are_those_of_the_wrapper(prefix, train):
    params = {f"{prefix}epochs": 3, f"{prefix}batch_size": 40}
    observer, clf = observed_fit(train, **params)
    assert len(observer.logs) == len(clf.finetune_history_["loss"]) == 3
    assert observer.n_batches == 3 * 3
    whole, _ = observed_fit(train, **{f"{prefix}batch_size": -1})
    assert whole.n_batches == 1


def test_settings_of_fit_with_a_prefix_come_first(train):
    other = Observer()
    observer, _ = observed_fit(train, epochs=2, fit__epochs=3, fit__callbacks=other)
    assert len(observer.logs) == len(other.logs) == 3


def test_without_shuffle_the_order_of_the_rows_stays(train):
    rows = [
        kc(batch_size=50, optimizer="sgd", optimizer__learning_rate=0.05, **shuffle)
        for shuffle in [{"shuffle": False}, {"fit__shuffle": False}, {}]
    ]
    results = [classifier(x).fit(*train).predict_proba(train[0]) for x in rows]
    assert_array_equal(results[0], results[1])
    assert np.abs(results[0] - results[2]).max() > 1e-6


def test_validation_data_are_evaluated_as_the_user_has_them(digits, train):
    X, y = digits[0][100:200], digits[1][100:200]
    names = np.array([f"class {k}" for k in range(10)])
    validation = X.reshape(100, 64), names[y]
    without, clf = (
        classifier(kc(epochs=2, **x)).fit(train[0], names[train[1]])
        for x in [{}, {"fit__validation_data": validation}]
    )
    history = clf.finetune_history_
    assert sorted(history) == ["accuracy", "loss", "val_accuracy", "val_loss"]
    # The last epoch validates the network that is left.
    assert history["val_accuracy"][-1] == pytest.approx(clf.score(X, names[y]))
    probabilities = clf.predict_proba(X)
    expected = -np.log(probabilities[np.arange(100), y]).mean()
    assert history["val_loss"][-1] == pytest.approx(expected, 1e-4)
    assert_array_equal(without.predict_proba(X), probabilities)


@pytest.mark.parametrize("frozen_layers", [0, "all"])
def test_validation_data_have_weights_and_unlabelled_rows(frozen_layers, digits, train):
    X, y = digits[0][100:150], digits[1][100:150].copy()
    weight = np.linspace(0, 3, 50)
    y[::5] = -1
    params = {"compile__weighted_metrics": ["accuracy"]}
    wrapper = kc(fit__validation_data=(X, y, weight), **params)
    clf = classifier(wrapper, frozen_layers=frozen_layers).fit(*train)
    kept = y != -1
    expected = np.average((clf.predict(X) == y)[kept], weights=weight[kept])
    assert clf.finetune_history_["val_accuracy"][-1] == pytest.approx(
        expected, abs=1e-5
    )


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, 2 * 4),
        ({"validation_batch_size": 5}, 2 * 8),
        ({"fit__validation_batch_size": -1}, 2 * 1),
        ({"fit__validation_steps": 3}, 2 * 3),
        ({"fit__validation_freq": 2}, 4),
        ({"fit__validation_freq": (2,)}, 4),
    ],
)
def test_validation_has_batches_and_epochs_of_its_own(params, expected, digits, train):
    data = digits[0][100:140], digits[1][100:140]
    params = {"epochs": 2, "batch_size": 10, "fit__validation_data": data, **params}
    observer, _ = observed_fit((train[0][:20], train[1][:20]), **params)
    assert observer.n_validated == expected


@pytest.mark.parametrize(
    ("of_wrapper", "own", "shown"),
    [
        ({"verbose": 1}, 0, False),  # what a wrapper says where it says nothing
        ({"fit__verbose": 1}, 0, True),
        ({"verbose": 2}, 0, True),
        ({"verbose": 0}, 1, False),
    ],
)
def test_a_wrapper_says_whether_fine_tuning_is_shown(
    of_wrapper, own, shown, train, capsys
):
    classifier(kc(**of_wrapper), verbose=own).fit(*train)
    assert ("Fine-tuning on 100" in capsys.readouterr().out) is shown


def test_class_weight_of_keras_goes_by_index_where_that_is_the_label(train):
    X, y = train
    weight = {3: 30, 5: 0.5}
    expected = classifier(kc(), class_weight=weight).fit(X, y).predict_proba(X)
    for name in ("class_weight", "fit__class_weight"):
        clf = classifier(kc(**{name: weight})).fit(X, y)
        assert_array_equal(clf.predict_proba(X), expected)


def test_random_state_of_a_wrapper_seeds_where_there_is_no_other(train):
    X, y = train

    def outputs(of_wrapper, own=None):
        wrapper = kc(random_state=of_wrapper)
        return classifier(wrapper, random_state=own).fit(X, y).predict_proba(X)

    expected = outputs(None, 3)
    state = np.random.RandomState(3)
    for _ in range(2):  # it stays where it is
        assert_array_equal(outputs(state), expected)
    assert_array_equal(outputs(4, own=3), expected)
    assert np.abs(outputs(4) - expected).max() > 1e-3
    encoder = SelfSupervisedEncoder(kc(random_state=3), epochs=1)
    assert_array_equal(encoder.fit_transform(X), encoder.fit_transform(X))


def test_bagging_seeds_classifier_and_wrapper(train):
    X, y = train[0].reshape(100, 64), train[1]
    bagging = BaggingClassifier(classifier(kc()), n_estimators=2, random_state=0)
    assert bagging.fit(X, y).predict_proba(X).shape == (100, 10)


# What the settings of compile do


EXPECTED = {  # what each setting of compile changes in what a callback sees
    "run_eagerly": (True, lambda observer: observer.seen["run_eagerly"]),
    "steps_per_execution": (3, lambda observer: observer.seen["steps_per_execution"]),
    "jit_compile": (True, lambda observer: observer.seen["jit_compile"]),
    "optimizer": ("sgd", lambda observer: observer.seen["optimizer"]),
    "metrics": (
        ["sparse_top_k_categorical_accuracy"],
        lambda observer: "sparse_top_k_categorical_accuracy" in observer.logs[0],
    ),
    "weighted_metrics": (
        [keras.metrics.SparseCategoricalAccuracy(name="weighed")],
        lambda observer: "weighed" in observer.logs[0],
    ),
    "loss": ("mean_squared_error", lambda observer: round(observer.logs[0]["loss"], 1)),
    "loss_weights": ([0.01], lambda observer: round(observer.logs[0]["loss"], 1)),
}


@pytest.fixture(scope="module")
def fit_without_settings(digits):
    """Return what a callback saw of a training without any settings."""
    return observed_fit((digits[0][:100], digits[1][:100]))[0]


@pytest.mark.parametrize("name", EXPECTED)
def test_settings_of_compile_count_in_wrapper_and_build_function(
    name, fit_without_settings, train
):
    value, look = EXPECTED[name]
    by_prefix, _ = observed_fit(train, **{f"compile__{name}": value})
    # The optimizer "adam" of the wrapper says nothing against that of the model.
    by_model, _ = observed_fit(train, model=compiled_by(**{name: value}))
    assert look(fit_without_settings) != look(by_prefix)
    assert look(by_prefix) == look(by_model)


@pytest.mark.parametrize("name", EXPECTED)
def test_settings_of_a_compiled_model_count(name, fit_without_settings, train):
    value, look = EXPECTED[name]
    model = compiled_by(**{name: value})(META)
    given = model.optimizer.get_config()
    observer, _ = observed_fit(train, model=model, own={"standardize": True})
    assert look(observer) != look(fit_without_settings)
    assert model.optimizer.get_config() == given
    assert model.optimizer.iterations.numpy() == 0  # it has trained nothing


def test_every_setting_of_compile_has_a_test_of_what_it_does():
    assert {*EXPECTED, "auto_scale_loss"} == set(COMPILE_SETTINGS)


def test_a_network_that_nobody_watches_is_compiled_by_xla_too(train):
    results = [
        classifier(kc(**params)).fit(*train).predict_proba(train[0])
        for params in [{}, {"compile__jit_compile": True}]
    ]
    assert_allclose(results[0], results[1], atol=1e-4)


@pytest.mark.parametrize("scale", [True, False])
def test_whether_the_loss_is_scaled_counts(scale, train):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        by_wrapper, _ = observed_fit(train, compile__auto_scale_loss=scale)
        by_model, _ = observed_fit(train, model=compiled_by(auto_scale_loss=scale))
    finally:
        keras.config.set_dtype_policy("float32")
    scaled = keras.optimizers.LossScaleOptimizer
    for observer in (by_wrapper, by_model):
        assert (observer.seen["optimizer"] is scaled) is scale


def test_a_loss_and_metrics_for_the_only_output_may_be_a_dict_or_list(train):
    model = compiled_by(
        loss={"dense": "categorical_crossentropy"},
        loss_weights={"dense": 0.5},
        metrics=[["accuracy", "precision"]],
    )
    observer, _ = observed_fit(train, model=model)
    assert {"accuracy", "precision"} <= set(observer.logs[0])
    with pytest.raises(ValueError, match="loss must be .*only output .*got 2"):
        classifier(compiled_by(loss=["mse", "mse"])).fit(*train)


def test_a_wrapper_may_repeat_what_the_model_is_compiled_with():
    settings = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}
    wrapper = kc(compiled_by(**settings), **settings)
    network = network_of(wrapper)
    assert settings.items() <= network.compile_kwargs.items()


def test_a_build_function_that_takes_compile_kwargs_compiles_with_them():
    def build(meta, compile_kwargs):
        model = small_cnn(meta)
        model.compile(**compile_kwargs)
        return model

    loss = "sparse_categorical_crossentropy"
    wrapper = kc(build, optimizer="sgd", optimizer__learning_rate=0.25, loss=loss)
    settings = network_of(wrapper, 3).compile_kwargs
    assert float(settings["optimizer"].learning_rate) == 0.25


def test_settings_of_fine_tuning_do_not_reach_pretraining(train):
    observer, clf = observed_fit(
        train,
        compile__loss_weights=[1e-9],
        compile__weighted_metrics=[["sparse_top_k_categorical_accuracy"]],
        own={"pretrain_epochs": 1},
    )
    assert sorted(clf.pretrain_history_) == ["accuracy", "loss"]
    assert clf.pretrain_history_["loss"][0] > 0.1
    assert observer.logs[0]["loss"] < 1e-6


# Callbacks act as they are given


class Locked(keras.callbacks.Callback):
    """Holds what can be neither pickled nor copied."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()
        self.losses = []

    def on_epoch_end(self, epoch, logs=None):
        with self.lock:
            self.losses.append(logs["loss"])


@pytest.mark.parametrize("with_checkpoints", [False, True])
def test_a_callback_of_the_user_keeps_what_it_saw(with_checkpoints, train, tmp_path):
    locked, history = Locked(), keras.callbacks.History()
    stopping = STOP("loss", min_delta=100, patience=2)
    callbacks = [locked, history, stopping]
    folder = tmp_path if with_checkpoints else None
    clf = classifier(kc(epochs=9, callbacks=callbacks), checkpoint_dir=folder)
    clf.fit(*train)
    assert locked.losses == clf.finetune_history_["loss"]
    assert history.history == clf.finetune_history_
    assert stopping.stopped_epoch == 2
    assert clf.estimator.callbacks is callbacks


def test_two_fits_with_the_same_callback_are_equal(train):
    stopping = STOP("loss", patience=0, min_delta=0.3, restore_best_weights=True)
    clf = classifier(kc(epochs=20, callbacks=[stopping]))
    first = clf.fit(*train).predict_proba(train[0])
    n_epochs = len(clf.finetune_history_["loss"])
    assert 1 < n_epochs < 20
    for again in (clf, clone(clf)):
        assert_array_equal(again.fit(*train).predict_proba(train[0]), first)
        assert len(again.finetune_history_["loss"]) == n_epochs


@pytest.mark.parametrize(
    ("prefix", "value", "at"),
    [
        ("callbacks", STOP, ""),
        ("callbacks", [STOP], "0__"),
        ("fit__callbacks", {"stop": STOP}, "stop__"),
        ("callbacks", [[STOP], Observer], "0__0__"),
    ],
)
def test_classes_are_made_callbacks_with_their_parameters(prefix, value, at):
    params = {f"{prefix}__{at}monitor": "loss", f"{prefix}__{at}patience": 2}
    wrapper = kc(**{prefix: value}, **params)
    network = network_of(wrapper, 3)
    made = network.fit_kwargs["callbacks"][0]
    assert (type(made), made.monitor, made.patience) == (STOP, "loss", 2)


def test_a_fitted_classifier_is_cloned_and_pickled_with_its_callbacks(train, tmp_path):
    X, y = train
    logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    if not hasattr(logger, "csv_file"):
        pytest.skip(
            "a CSVLogger of an older Keras cannot be pickled once it has logged"
        )
    callbacks = [STOP("loss", restore_best_weights=True), logger]
    clf = classifier(kc(epochs=2, callbacks=callbacks)).fit(X, y)
    assert [x.model for x in callbacks] == [None, None]
    expected = clf.predict_proba(X)
    joblib.dump(clf, tmp_path / "clf")
    assert_array_equal(joblib.load(tmp_path / "clf").predict_proba(X), expected)
    assert_array_equal(clone(clf).fit(X, y).predict_proba(X), expected)
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3


def test_a_callback_counts_as_it_was_before_an_interruption():
    callback = Observer()
    callback.patience = 3
    before = callback_identity(callback)
    assert callback_identity(Observer()) != before
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            with callbacks_restored([callback], checkpoint="any"):
                callback.logs.append({"loss": 1.0})
                raise KeyboardInterrupt
        assert callback_identity(callback) == before
    assert callback.logs == [{"loss": 1.0}] * 2
    callback.patience = 4
    assert callback_identity(callback) != before
    by_code = [keras.callbacks.LambdaCallback(f) for f in (lambda x: 1, lambda x: 2)]
    assert len({callback_identity(x) for x in by_code}) == 2


class Interrupt(keras.callbacks.Callback):
    """Interrupts the third epoch, where that is asked for."""

    def __init__(self):
        super().__init__()
        self.losses = []

    def on_epoch_end(self, epoch, logs=None):
        self.losses.append(logs["loss"])
        if epoch == 2 and os.environ.get("SKSSL_INTERRUPT"):
            raise KeyboardInterrupt


def test_an_interrupted_fit_goes_on_with_the_same_callbacks(
    train, tmp_path, monkeypatch
):
    def make():
        callbacks = [Interrupt(), STOP("loss", patience=3)]
        wrapper = kc(epochs=5, callbacks=callbacks)
        return classifier(wrapper, checkpoint_dir=tmp_path), callbacks

    expected = make()[0].fit(*train)
    clf, (interrupt, _) = make()
    with monkeypatch.context() as context:
        context.setenv("SKSSL_INTERRUPT", "1")
        with pytest.raises(KeyboardInterrupt):
            clf.fit(*train)
    assert len(interrupt.losses) == 3
    assert len(os.listdir(tmp_path)) == 1
    clf.fit(*train)
    assert os.listdir(tmp_path) == []
    assert clf.finetune_history_ == expected.finetune_history_
    assert interrupt.losses == expected.finetune_history_["loss"]
    assert_array_equal(clf.predict_proba(train[0]), expected.predict_proba(train[0]))


# Own optimizers, schedules and metrics


class Decay(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that Keras cannot build again."""

    def __init__(self, start):
        self.start = start

    def __call__(self, step):
        return self.start / (1.0 + tf.cast(step, "float32"))


class Half(keras.optimizers.SGD):
    """An optimizer with an argument of its own, which its configuration may leave out.

    Its class is not registered.
    """

    def __init__(self, share=0.5, learning_rate=0.1, silent=False, **kwargs):
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.share = share
        self.silent = silent

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate * self.share)

    def get_config(self):
        own = {} if self.silent else {"share": self.share, "silent": False}
        return {**super().get_config(), **own}


def local_schedule(start):
    class LocalDecay(Decay):
        def get_config(self):
            return {"start": self.start}

    return LocalDecay(start)


def fixed_rate():
    return 0.01


OPTIMIZERS = {
    "own schedule": lambda: keras.optimizers.Adam(Decay(0.01)),
    "local schedule": lambda: keras.optimizers.Adam(local_schedule(0.01)),
    "function": lambda: keras.optimizers.Adam(fixed_rate),
    "own optimizer": lambda: Half(0.25, momentum=0.5),
    "both": lambda: Half(0.25, Decay(0.2)),
    "own, scaled": lambda: keras.optimizers.LossScaleOptimizer(Half(0.25)),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("compiled", [False, True])
def test_own_optimizers_train_as_keras_trains_them(kind, compiled, train):
    X, y = train
    given = OPTIMIZERS[kind]()
    wrapper = kc(compiled_by(optimizer=given)) if compiled else kc(optimizer=given)
    before = [v.numpy() for v in given.variables]
    networks = [network_of(wrapper) for _ in range(2)]
    for network, optimizer in zip(networks, [None, OPTIMIZERS[kind]()], strict=True):
        settings = network.compile_kwargs
        settings["optimizer"] = optimizer or settings["optimizer"]
        network.training_model.compile(**settings)
        network.training_model.fit(X[..., None], y, epochs=2, shuffle=False, verbose=0)
    weights = [network.training_model.get_weights() for network in networks]
    for a, b in zip(*weights, strict=True):
        assert_array_equal(a, b)
    assert not given.built
    assert_array_equal([v.numpy() for v in given.variables], before)


@pytest.mark.parametrize("kind", ["own schedule", "local schedule", "own, scaled"])
@pytest.mark.filterwarnings("ignore:memory= and checkpoint_dir= are not used")
def test_own_optimizers_train_where_trainings_are_kept(kind, train, tmp_path):
    X, y = train
    given = OPTIMIZERS[kind]()
    folders = {"memory": tmp_path / "a", "checkpoint_dir": tmp_path / "b"}
    clf = classifier(kc(optimizer=given, epochs=2), pretrain_epochs=1, **folders)
    first = clf.fit(X, y).predict_proba(X)
    assert_array_equal(clf.fit(X, y).predict_proba(X), first)
    assert not given.built
    clf.partial_fit(X, y)


def test_an_optimizer_that_has_trained_is_copied_as_a_fresh_one():
    optimizer = Half(0.25, momentum=0.9)
    optimizer.apply([tf.ones(3)], [keras.Variable(np.ones(3, np.float32))])
    fresh = fresh_optimizer(optimizer)
    assert not fresh.built
    assert int(fresh.iterations) == 0
    assert fresh.share == 0.25
    assert int(optimizer.iterations) == 1


def test_own_optimizers_that_differ_are_told_apart_in_the_cache(train, tmp_path):
    rates = [keras.optimizers.SGD(local_schedule(x)) for x in (0.0, 0.05)]
    losses = []
    for optimizer in (*rates, Half(0.0), Half(1.0)):
        params = {"pretrain_epochs": 2, "pretrain_optimizer": optimizer}
        clf = classifier(kc(), memory=tmp_path, **params)
        losses.append(clf.fit(*train).pretrain_history_["loss"])
    assert losses[0] != losses[1]
    assert losses[2] != losses[3]


class Share(keras.metrics.Mean):
    """A metric with an argument of its own, which its configuration may leave out."""

    def __init__(self, of=0, name="share", silent=False, **kwargs):
        super().__init__(name=name, **kwargs)
        self.of = of
        self.silent = silent

    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(y_pred[:, self.of])

    def get_config(self):
        own = {} if self.silent else {"of": self.of, "silent": False}
        return {**super().get_config(), **own}


class Needs(keras.optimizers.SGD):
    """An optimizer that its configuration cannot build."""

    def __init__(self, share, **kwargs):
        super().__init__(**kwargs)


def test_a_class_needs_no_configuration():
    wrapper = kc(optimizer=Needs, optimizer__share=0.5)
    network = network_of(wrapper, 3)
    assert type(network.compile_kwargs["optimizer"]) is Needs


def test_own_metrics_count_and_stay_as_they_are(train):
    def largest(y_true, y_pred):
        return keras.ops.max(y_pred, axis=-1)

    metric = Share(of=3)
    metric.update_state(None, tf.ones((2, 10)))
    wrapped = keras.metrics.MeanMetricWrapper(largest, name="wrapped")
    clf = classifier(kc(metrics=[metric, largest, wrapped])).fit(*train)
    history = clf.finetune_history_
    assert 0 < history["share"][0] < 0.5
    assert history["largest"] == pytest.approx(history["wrapped"])
    assert float(metric.result()) == 1
    assert fresh_metric(metric).of == 3


# Models of the user, and targets of own losses


class Doubled(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs


def sequential(*layers):
    head = keras.layers.Dense(10, activation="softmax")
    return keras.Sequential([*layers, keras.layers.Flatten(), head])


def own_layers(meta=None):
    return sequential(keras.Input((8, 8, 1)), keras.Sequential([Doubled()]))


def test_a_model_with_layers_that_keras_does_not_know_says_what_to_do(train, untrained):
    model = own_layers()
    message = "Doubled.*register it with keras.saving.reg.* or give a function that"
    for estimator in (model, kc(model)):
        with pytest.raises(TypeError, match=message) as error:
            classifier(estimator, pretrain_epochs=1).fit(*train)
        assert len(str(error.value)) < 300
    by_function = network_of(kc(own_layers))
    assert by_function.prediction_model.count_params() == model.count_params()
    with keras.saving.custom_object_scope({"Doubled": Doubled}):
        assert copied_model(model).count_params() == model.count_params()


@pytest.mark.parametrize("built", [True, False])
def test_a_model_is_copied_with_weights_and_settings(built, train):
    first = [keras.Input((8, 8, 1))] * built
    model = sequential(*first, keras.layers.Conv2D(3, 3), keras.layers.Dropout(0.5))
    if built:
        model.compile(Half(0.25, 0.01), indices, metrics=[Share(of=2)])
    before = weights_of(model)
    assert_same_weights(copied_model(model), before)
    clf = classifier(model).fit(*train)
    assert model.built is built
    assert ("share" in clf.finetune_history_) is built
    assert_same_weights(model, before)


class OneHotLoss(keras.losses.Loss):
    one_hot = True

    def call(self, y_true, y_pred):
        return keras.losses.categorical_crossentropy(y_true, y_pred)


class Focal(keras.losses.CategoricalCrossentropy):
    pass


class Sparse(keras.losses.SparseCategoricalCrossentropy):
    pass


def indices(y_true, y_pred):
    return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)


def rows(y_true, y_pred):
    return keras.losses.categorical_crossentropy(y_true, y_pred)


rows.one_hot = True


@pytest.mark.parametrize(
    ("loss", "one_hot"),
    [
        (OneHotLoss(), True),
        (Focal(label_smoothing=0.1), True),
        (functools.partial(keras.losses.mean_squared_error), True),
        (Sparse(), False),
        ("crossentropy", False),
        (indices, False),
        (rows, True),
    ],
)
def test_an_own_loss_may_ask_for_one_hot_targets(loss, one_hot):
    build = compiled_by(loss=loss, metrics=["accuracy"])
    network = network_of(build)
    assert network.one_hot is one_hot
    assert sorted(try_settings(network, weighted=False)) == ["accuracy", "loss"]


def test_a_network_learns_from_one_hot_targets(train):
    wrapper = kc(loss=OneHotLoss(), epochs=25, optimizer__learning_rate=0.02)
    assert classifier(wrapper).fit(*train).score(*train) > 0.8


# What is wrong is found before pretraining


def validate(*data):
    return {"fit__validation_data": data}


def keep(*monitored):
    return {"callbacks": list(monitored)}


def compiled(**params):
    return {"model": compiled_by(), **params}


ZEROS = np.zeros((3, 8, 8))
INDICES = [0, 1, 2]
REFUSED = [
    # names that nothing reads
    ({"fit__nonsense": 1}, "fit__nonsense .* no argument of keras.Model.fit"),
    ({"compile__nonsense": 1}, "no argument of keras.Model.compile"),
    ({"compile__optimizer__x": 1}, "compile__optimizer__x"),
    ({"fit__epochs__x": 1}, "fit__epochs__x"),
    ({"fit__sample_weight": 1}, "sample_weight .*sample_weight to `fit`"),
    ({"fit__initial_epoch": 1}, "fit__initial_epoch .*call partial_fit"),
    ({"predict__batch_size": 9}, "predict__batch_size .*leave it out"),
    ({"nonsense__a": 1}, "nonsense__a .*correct it"),
    ({"nonsense": 1}, "nonsense"),
    ({"warm_start": True}, "warm_start=True of the SelfSupervisedClassifier"),
    ({"model": None}, "model of the .*that builds a keras.Model.*None"),
    ({"model__nonsense": 1}, "nonsense"),
    ({"model__filters__x": 1}, "model__filters__x"),
    ({"model": small_cnn(META), "model__x": 1}, "function that builds"),
    ({"optimizer__nonsense": 1}, "nonsense"),
    ({"optimizer__learning_rate__x": 1}, "optimizer__learning_rate__x"),
    ({"loss": "mse", "loss__x": 1}, "'x': 1"),
    ({"metrics__name": "x"}, "metrics__name .*metrics=None"),
    ({"metrics": ["accuracy"], "metrics__1__name": "x"}, "metrics__1__name"),
    ({"metrics": ["accuracy"], "metrics__0__name": "x"}, "'name': 'x'"),
    ({"callbacks__patience": 3}, "callbacks__patience .*callbacks=None"),
    ({"fit__callbacks__patience": 3}, "fit__callbacks__patience"),
    ({"callbacks": {"a": STOP}, "callbacks__b__x": 3}, "callbacks__b__x"),
    ({"callbacks": [[STOP]], "callbacks__x": 3}, "callbacks__x"),
    ({"callbacks": [print]}, "callbacks"),
    ({"callbacks": "stop"}, "callbacks .*a list or dict .*got 'stop'"),
    # what a compiled model leaves without effect
    (compiled(optimizer=keras.optimizers.SGD()), "^optimizer=.* compiled already"),
    (compiled(optimizer__learning_rate=0.1), "^optimizer__learning_rate=.* not used"),
    (compiled(compile__jit_compile=False), "^compile__jit_compile=.* not used"),
    (compiled(loss="categorical_crossentropy"), "^loss=.* not used"),
    (compiled(metrics=["sparse_top_k_categorical_accuracy"]), "^metrics=.* not used"),
    (compiled(run_eagerly=True), "^run_eagerly=.* not used"),
    # values
    ({"epochs": "many"}, "epochs .*int.*str"),
    ({"fit__epochs": -1}, "epochs == -1"),
    ({"batch_size": 0}, "^batch_size == 0, must be >= 1"),
    ({"batch_size": "all"}, "^batch_size .*str"),
    ({"validation_batch_size": 0}, "validation_batch_size == 0"),
    ({"fit__validation_steps": 0}, "validation_steps == 0"),
    ({"fit__validation_freq": 0}, "validation_freq == 0"),
    ({"fit__validation_freq": [1, "x"]}, "validation_freq .*str"),
    ({"validation_split": 1.0}, "validation_split == 1.0, must be < 1"),
    ({"validation_split": -0.1}, "validation_split == -0.1"),
    ({"validation_split": "half"}, "validation_split .*str"),
    ({"validation_split": 0.05}, "validation_split=0.05 .*holds out 5"),
    ({"validation_split": 0.95}, "cannot be stratified.*rarest class"),
    ({"shuffle": "batch"}, "shuffle .*str"),
    ({"fit__verbose": 3}, "verbose .*got 3"),
    ({"compile__jit_compile": "no"}, "jit_compile .*bool"),
    ({"compile__steps_per_execution": 0}, "steps_per_execution == 0, must be >= 1"),
    # validation data
    ({"fit__validation_data": 3}, "validation_data .*tuple .*got 'int'"),
    (validate(ZEROS), "a tuple"),
    (validate(ZEROS[:, :7, :7], INDICES), r"validation_data.*\(7, 7, 1\)"),
    (validate(ZEROS, [0, 1]), "validation_data .*inconsistent"),
    (validate(ZEROS, [0, 1, 11]), r"validation_data .*\[11\]"),
    (validate(ZEROS, [-1, -1, -1]), "no labelled row"),
    (validate(ZEROS + np.nan, INDICES), "validation_data .*NaN"),
    (validate(ZEROS, INDICES, [1, -1, 1]), "(?i)validation_data .*negative"),
    ({**validate(ZEROS, INDICES), "validation_split": 0.2}, "0.2 .*leave one out"),
    # loss and metrics that do not fit the targets
    ({"metrics": ["precision"]}, "metrics=.*Precision.* one-hot"),
    ({"metrics": ["accuracy", "AUC"]}, "AUC.*class indices.*one_hot"),
    ({"metrics": ["categorical_accuracy"]}, "begins with 'sparse_'"),
    ({"metrics": ["nonsense"]}, "nonsense"),
    ({"metrics": [keras.metrics.F1Score()], "loss": "mse"}, "'macro'"),
    ({"loss": "mae", "metrics": ["sparse_categorical_accuracy"]}, "are one-hot"),
    ({"compile__weighted_metrics": ["precision"]}, "weighted_metrics="),
    ({"compile__loss_weights": "much"}, "loss_weights"),
    ({"loss": lambda y, p: y[:, 3]}, "^loss=.*cannot be computed"),
    ({"loss": lambda y, p: 0 * y}, "loss has no gradient"),
    # metrics that nobody computes
    (keep(STOP()), "EarlyStopping monitors 'val_loss'.*Give validation_split"),
    (keep(STOP("val_accuracy"), Observer()), "'val_accuracy'.*Give validation_split"),
    (keep(STOP("auc")), r"'auc', but.*\['accuracy', 'loss'\]"),
    (keep(keras.callbacks.ReduceLROnPlateau()), "ReduceLROnPlateau monitors 'val_loss"),
    (keep(SAVE), "ModelCheckpoint monitors 'val_loss'"),
    # configurations that leave something out
    ({"optimizer": Needs(0.5)}, "Needs .*'share'.*return every argument"),
    ({"optimizer": Half(0.2, silent=True)}, "Half .*share=0.2 is not in it.*every"),
    ({"metrics": [Share(3, silent=True)]}, "Share .*of=3 is not in it.*every"),
]


@pytest.mark.parametrize(("params", "message"), REFUSED)
def test_what_is_wrong_is_found_before_pretraining(params, message, train, untrained):
    with pytest.raises((TypeError, ValueError), match=message):
        classifier(kc(**params), pretrain_epochs=1).fit(*train)


@pytest.mark.parametrize("params", [{"fit__nonsense": 1}, {"epochs": "many"}])
def test_an_encoder_refuses_settings_too(params, train, untrained):
    with pytest.raises((TypeError, ValueError), match=next(iter(params))):
        SelfSupervisedEncoder(kc(**params)).fit(train[0])


def test_class_weights_that_are_not_clear_are_refused(train, untrained):
    X, y = train
    with pytest.raises(ValueError, match="fit__class_weight .*indices .*by label"):
        classifier(kc(fit__class_weight={3: 2})).fit(X, y + 1)
    with pytest.raises(ValueError, match="class_weight is given more than once"):
        classifier(kc(class_weight={3: 2}), class_weight="balanced").fit(X, y)


def own(y_true, y_pred):
    return keras.ops.max(y_pred, axis=-1)


@pytest.mark.parametrize(
    "params", [{"loss": "mae", "metrics": ["precision"]}, {"metrics": [own]}]
)
def test_settings_that_fit_pass(params):
    network = network_of(kc(**params))
    assert len(try_settings(network, weighted=True)) == 2


class AddMetric(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        logs["val_f1"] = float(epoch == 0)


def test_monitors_that_have_a_metric_serve(train):
    callbacks = [
        STOP("val_accuracy", patience=5),
        AddMetric(),
        STOP("val_f1", mode="max", patience=1),
        keras.callbacks.ReduceLROnPlateau(),
    ]
    wrapper = kc(epochs=9, callbacks=callbacks, validation_split=0.2)
    assert len(classifier(wrapper).fit(*train).finetune_history_["loss"]) == 2


def test_classes_of_one_image_are_trained_on(train):
    X, y = train
    keep = np.setdiff1d(np.arange(100), np.flatnonzero(y == 3)[1:])
    clf = classifier(kc(validation_split=0.2)).fit(X[keep], y[keep])
    assert "val_loss" in clf.finetune_history_
    assert 3 in clf.classes_


def labelled(targets):
    rows = np.arange(len(targets))
    return TrainingSet(rows[:, None, None, None], rows, np.asarray(targets))


def test_a_split_has_the_same_share_of_each_class_and_all_rows_once():
    targets = np.repeat([0, 1, 2, 3], [40, 20, 1, 1])
    train, held_out = split_validation(labelled(targets), 0.25, seed=0)
    rows = np.concatenate([train.rows, held_out.rows])
    assert_array_equal(np.sort(rows), np.arange(62))
    for data in (train, held_out):
        assert_array_equal(data.targets, targets[data.rows])
    assert_array_equal(np.bincount(held_out.targets), [11, 5])
    again, other = (split_validation(labelled(targets), 0.25, seed=k) for k in (0, 1))
    assert_array_equal(again[1].rows, held_out.rows)
    assert not np.array_equal(other[1].rows, held_out.rows)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([0, 1, 2], "two or more, 0 in number.*rarest class, 'a', has 1"),
        ([0] * 9 + [1] * 2 + [2] * 9, "out 2, but .*3 in number.*class, 'b', has 2"),
    ],
)
def test_a_split_that_cannot_be_names_the_class(targets, message):
    with pytest.raises(ValueError, match=message):
        split_validation(labelled(targets), 0.1, 0, np.array(["a", "b", "c"]))


def test_trying_the_settings_leaves_everything_as_it_was():
    metric = keras.metrics.SparseCategoricalAccuracy()
    metric.update_state([1, 1], [[0.0, 1.0], [1.0, 0.0]])
    network = network_of(kc(), 3)
    network.compile_kwargs["metrics"] = [metric]
    before = weights_of(network.training_model)
    state = np.random.get_state()[1].copy()
    try_settings(network, weighted=True)
    assert float(metric.result()) == 0.5
    assert_array_equal(np.random.get_state()[1], state)
    assert not network.compile_kwargs["optimizer"].built
    assert not network.training_model.compiled
    assert_same_weights(network.training_model, before)


# When fine-tuning fails all the same


class Break(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if self.error:
            raise self.error


def breaking(error, **params):
    callback = Break()
    callback.error = error
    clf = classifier(kc(callbacks=[callback]), pretrain_epochs=1, **params)
    return callback, clf


@pytest.mark.parametrize("place", ["memory", "checkpoint_dir"])
def test_pretraining_is_kept_where_fine_tuning_fails(place, train, tmp_path, trainings):
    callback, clf = breaking(ZeroDivisionError("mine"), **{place: tmp_path})
    with pytest.raises(ZeroDivisionError, match="^mine") as caught:
        clf.fit(*train)
    (note,) = caught.value.__notes__
    assert f"is kept in {place}=" in note
    assert not hasattr(clf, "model_")
    callback.error = None
    n_before = len(trainings)
    clf.fit(*train)
    assert len(trainings) == n_before + 1  # fine-tuning alone
    assert len(clf.pretrain_history_["loss"]) == 1


def test_pretraining_that_is_lost_says_what_would_have_kept_it(train, tmp_path):
    for params, note in [
        ({}, "is lost. memory= or checkpoint_dir= keeps it; to find it again"),
        ({"memory": tmp_path, "random_state": None}, "is lost. To find it again, rand"),
    ]:
        _, clf = breaking(ZeroDivisionError("mine"), **params)
        with pytest.raises(ZeroDivisionError) as caught:
            clf.fit(*train)
        assert note in caught.value.__notes__[0]


@pytest.mark.parametrize(
    "params", [{"pretrain_epochs": 0}, {"error": KeyboardInterrupt()}]
)
def test_errors_that_lose_no_pretraining_and_interruptions_have_no_note(params, train):
    _, clf = breaking(params.pop("error", ZeroDivisionError("mine")))
    clf.set_params(**params)
    with pytest.raises((ZeroDivisionError, KeyboardInterrupt)) as caught:
        clf.fit(*train)
    assert not getattr(caught.value, "__notes__", None)


def test_metrics_given_by_name_are_called_alike_in_every_fit(train):
    stopping = keras.callbacks.EarlyStopping("val_auc", mode="max")
    wrapper = kc(
        loss="categorical_crossentropy",
        metrics=["AUC", keras.metrics.AUC, keras.metrics.AUC(name="auc_9")],
        validation_split=0.2,
        callbacks=[stopping],
    )
    for _ in range(2):
        history = classifier(wrapper).fit(*train).finetune_history_
        assert {"auc", "auc_1", "auc_9", "val_auc"} <= set(history)
