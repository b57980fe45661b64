import inspect
import os
import threading

import joblib
import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal
from scikeras.wrappers import KerasClassifier
from sklearn.base import clone
from sklearn.ensemble import BaggingClassifier

import skssl._training
from skssl import SelfSupervisedClassifier, SelfSupervisedEncoder, build_cnn
from skssl._callbacks import callback_settings
from skssl._copies import fresh_metric, fresh_optimizer
from skssl._networks import build_network
from skssl._settings import (
    COMPILE_SETTINGS,
    FIT_SETTINGS,
    REFUSED_FIT_SETTINGS,
    wrap,
)
from skssl._training import split_validation
from skssl._trial import try_settings

IMAGE_SHAPE = (8, 8, 1)
# All parameters of a KerasClassifier that are neither a setting of `fit` nor one of
# `compile`: each has a test below.
OTHER_PARAMETERS = {"model", "build_fn", "warm_start", "random_state"}


@pytest.fixture
def train(digits):
    return digits[0][:100], digits[1][:100]


@pytest.fixture
def unpretrained(monkeypatch):
    """Fail where pretraining begins."""

    def begin(*args, **kwargs):
        raise AssertionError("Pretraining began.")

    monkeypatch.setattr(skssl._training, "pretrain", begin)


def classifier(estimator, **params):
    return SelfSupervisedClassifier(
        estimator, **{"pretrain_epochs": 0, "random_state": 0, **params}
    )


def small_cnn(meta):
    return build_cnn(meta, filters=(4,), dense_units=16)


def compiled_by(**settings):
    """Return a build function that compiles its model."""

    def build(meta):
        model = small_cnn(meta)
        defaults = {"optimizer": "adam", "loss": "sparse_categorical_crossentropy"}
        model.compile(**{**defaults, **settings})
        return model

    return build


class Watch(keras.callbacks.Callback):
    """Keeps what it sees of a training."""

    def __init__(self):
        super().__init__()
        self.logs = []
        self.n_batches = 0
        self.seen = {}

    def on_train_begin(self, logs=None):
        for name in ("run_eagerly", "steps_per_execution", "jit_compile"):
            self.seen[name] = getattr(self.model, name)
        self.seen["optimizer"] = type(self.model.optimizer)
        self.seen["params"] = dict(self.params)

    def on_train_batch_end(self, batch, logs=None):
        self.n_batches += 1

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append(dict(logs))


# Every setting is used or refused


def arguments(function):
    return set(inspect.signature(function).parameters) - {"self"}


def test_every_argument_of_keras_is_decided():
    assert arguments(keras.Model.fit) == {*FIT_SETTINGS, *REFUSED_FIT_SETTINGS}
    assert arguments(keras.Model.compile) == set(COMPILE_SETTINGS)


def test_every_parameter_of_a_wrapper_is_decided():
    decided = {*FIT_SETTINGS, *COMPILE_SETTINGS, *OTHER_PARAMETERS}
    known = arguments(KerasClassifier) - {"kwargs"}
    assert known <= decided
    assert not any(name in REFUSED_FIT_SETTINGS for name in known)


def test_the_private_names_of_scikeras_are_there():
    assert callable(KerasClassifier._get_compile_kwargs)
    wrapper = KerasClassifier(build_cnn)
    wrapper.initialize(np.zeros((2, *IMAGE_SHAPE)), np.arange(2))
    assert wrapper._fit_callbacks == []


def test_the_private_names_of_keras_are_there():
    model = compiled_by(metrics=["accuracy"])(
        {"X_shape_": (1, 8, 8, 1), "n_classes_": 3}
    )
    # All but whether the loss is scaled, which the optimizer shows.
    assert set(model._compile_config.config) == {*COMPILE_SETTINGS} - {
        "auto_scale_loss"
    }
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    assert keras.optimizers.Adam(schedule)._learning_rate is schedule
    assert isinstance(keras.optimizers.Adam()._learning_rate, keras.Variable)
    assert keras.metrics.SparseCategoricalAccuracy()._direction == "up"
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
def test_no_setting_is_dropped(name, train, unpretrained):
    """A value that is none is refused by name, so something reads the setting."""
    params = {"optimizer": "adam", name: object()}
    model = [] if name in ("model", "build_fn") else [small_cnn]
    clf = classifier(
        KerasClassifier(*model, **params), pretrain_epochs=1, random_state=None
    )
    named = {"build_fn": "model", "random_state": "seed"}.get(name, name)
    with pytest.raises((TypeError, ValueError), match=named.rpartition("__")[2]):
        clf.fit(*train)


@pytest.mark.parametrize("name", [f"fit__{name}" for name in REFUSED_FIT_SETTINGS])
def test_arguments_of_fit_that_have_another_place_name_it(name, train, unpretrained):
    clf = classifier(KerasClassifier(build_cnn, **{name: 3}), pretrain_epochs=1)
    with pytest.raises(ValueError, match=rf"^{name} of the KerasClassifier .*\. [A-Z]"):
        clf.fit(*train)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"fit__nonsense": 1}, ValueError, "fit__nonsense .* no argument of keras.Mod"),
        (
            {"compile__nonsense": 1},
            ValueError,
            "compile__nonsense .*keras.Model.compil",
        ),
        ({"compile__optimizer__x": 1}, ValueError, "compile__optimizer__x"),
        ({"fit__epochs__x": 1}, ValueError, "fit__epochs__x"),
        ({"predict__batch_size": 9}, ValueError, "predict__batch_size .*leave it out"),
        ({"predict__nonsense": 9}, ValueError, "predict__nonsense"),
        ({"nonsense__a": 1}, ValueError, "nonsense__a .*correct it"),
        ({"warm_start": True}, ValueError, "warm_start=True of the SelfSupervised"),
        ({"model__nonsense": 1}, TypeError, "nonsense"),
        ({"model__filters__x": 1}, ValueError, "model__filters__x"),
        ({"nonsense": 1}, TypeError, "nonsense"),
        ({"optimizer__nonsense": 1}, ValueError, "nonsense"),
        ({"optimizer__learning_rate__x": 1}, ValueError, "optimizer__learning_rate__x"),
        ({"loss__from_logits": True}, (TypeError, ValueError), "from_logits"),
        ({"loss": "mse", "loss__x": 1}, TypeError, "'x': 1"),
        ({"loss": keras.losses.MeanSquaredError, "loss__x": 1}, TypeError, "'x'"),
        ({"metrics__name": "x"}, ValueError, "metrics__name .*metrics=None"),
        ({"metrics": ["accuracy"], "metrics__1__name": "x"}, ValueError, "s__1__name"),
        ({"metrics": ["accuracy"], "metrics__0__name": "x"}, TypeError, "'name': 'x'"),
        ({"callbacks__patience": 3}, ValueError, "callbacks__patience .*s=None"),
        ({"fit__callbacks__patience": 3}, ValueError, "fit__callbacks__patience"),
        (
            {
                "callbacks": {"stop": keras.callbacks.EarlyStopping},
                "callbacks__go__x": 3,
            },
            ValueError,
            "callbacks__go__x",
        ),
        ({"callbacks": [print]}, TypeError, "callbacks"),
        ({"callbacks": "stop"}, TypeError, "callbacks .*a list or dict .*got 'stop'"),
        ({"model": None}, TypeError, "model of the .*that builds a keras.Model.*None"),
        ({"compile__jit_compile": "no"}, TypeError, "jit_compile .*True or False"),
        ({"compile__steps_per_execution": 0}, ValueError, "steps_per_exec.*at least 1"),
    ],
)
def test_settings_that_nothing_reads_are_refused_by_name(
    params, error, message, train, unpretrained
):
    params = {"model": small_cnn, "optimizer": "adam", **params}
    clf = classifier(KerasClassifier(**params), pretrain_epochs=1)
    with pytest.raises(error, match=message):
        clf.fit(*train)
    with pytest.raises(error, match=message):
        SelfSupervisedEncoder(clf.estimator).fit(train[0])


def test_a_model_takes_no_parameters(train, unpretrained):
    model = small_cnn({"X_shape_": (1, *IMAGE_SHAPE), "n_classes_": 10})
    clf = classifier(KerasClassifier(model, model__filters=(4,)), pretrain_epochs=1)
    with pytest.raises(ValueError, match="model__filters .*function that builds it"):
        clf.fit(*train)


def test_a_build_function_may_read_any_setting(train):
    seen = {}

    def build(meta, params, compile_kwargs):
        seen.update(params, **compile_kwargs)
        return small_cnn(meta)

    wrapper = KerasClassifier(build, optimizer="sgd", own__width=3)
    wrap(wrapper).initialize(np.zeros((10, *IMAGE_SHAPE)), np.arange(10))
    assert seen["own__width"] == 3
    assert isinstance(seen["optimizer"], keras.optimizers.SGD)


@pytest.mark.filterwarnings("ignore:``build_fn`` will be renamed:UserWarning")
def test_the_old_name_of_the_build_function_serves(train):
    clf = classifier(KerasClassifier(build_fn=small_cnn, optimizer="adam"))
    assert (
        clf.fit(*train).model_.count_params()
        == small_cnn({"X_shape_": (1, *IMAGE_SHAPE), "n_classes_": 10}).count_params()
    )


def test_a_subclass_that_builds_its_model_serves(train):
    class Own(KerasClassifier):
        def __init__(self, width=4, **kwargs):
            super().__init__(**kwargs)
            self.width = width

        def _keras_build_fn(self, meta):
            return build_cnn(meta, filters=(self.width,), dense_units=7)

    clf = classifier(Own(width=3, optimizer="adam", random_state=1)).fit(*train)
    assert clf.model_.get_layer("backbone").output_shape == (None, 7)


# What the settings of fit do


def watched(train, *, wrapper_params, model=small_cnn, **params):
    """Return what a callback saw, and the fitted classifier."""
    watch = Watch()
    wrapper_params = {"optimizer": "adam", "epochs": 2, **wrapper_params}
    clf = classifier(KerasClassifier(model, callbacks=[watch], **wrapper_params))
    return watch, clf.set_params(**params).fit(*train)


@pytest.mark.parametrize("prefix", ["", "fit__"])
def test_epochs_batches_and_callbacks_are_those_of_the_wrapper(prefix, train):
    params = {f"{prefix}epochs": 3, f"{prefix}batch_size": 40}
    watch, clf = watched(train, wrapper_params=params)
    assert len(watch.logs) == len(clf.finetune_history_["loss"]) == 3
    assert watch.n_batches == 3 * 3
    whole, _ = watched(train, wrapper_params={f"{prefix}batch_size": -1})
    assert whole.n_batches == 2


def test_settings_of_fit_with_a_prefix_come_first(train):
    watch, _ = watched(train, wrapper_params={"epochs": 2, "fit__epochs": 3})
    assert len(watch.logs) == 3
    others = [Watch(), Watch()]
    wrapper = KerasClassifier(
        small_cnn, optimizer="adam", callbacks=others[0], fit__callbacks=others[1]
    )
    classifier(wrapper).fit(*train)
    assert [len(x.logs) for x in others] == [1, 1]


def test_without_shuffle_the_order_of_the_rows_stays(train):
    one_batch = {"batch_size": 50, "epochs": 1, "optimizer__learning_rate": 0.05}
    results = [
        classifier(
            KerasClassifier(small_cnn, optimizer="sgd", **one_batch, **shuffle),
            random_state=0,
        )
        .fit(*train)
        .predict_proba(train[0])
        for shuffle in [{"shuffle": False}, {"fit__shuffle": False}, {}]
    ]
    assert_array_equal(results[0], results[1])
    assert np.abs(results[0] - results[2]).max() > 1e-6


def test_validation_data_are_evaluated_as_the_user_has_them(digits, train):
    X, y = digits[0][100:200], digits[1][100:200]
    names = np.array([f"class {k}" for k in range(10)])
    clf = classifier(
        KerasClassifier(
            small_cnn,
            optimizer="adam",
            epochs=2,
            fit__validation_data=(X.reshape(100, 64), names[y]),
        )
    ).fit(train[0], names[train[1]])
    history = clf.finetune_history_
    assert sorted(history) == ["accuracy", "loss", "val_accuracy", "val_loss"]
    # The last epoch validates the network that is left.
    assert history["val_accuracy"][-1] == pytest.approx(clf.score(X, names[y]))
    probabilities = clf.predict_proba(X)[np.arange(100), y]
    assert history["val_loss"][-1] == pytest.approx(-np.log(probabilities).mean(), 1e-4)


@pytest.mark.parametrize("frozen_layers", [0, "all"])
def test_validation_data_have_weights_and_unlabelled_rows(frozen_layers, digits, train):
    X, y = digits[0][100:150], digits[1][100:150].copy()
    weight = np.linspace(0, 3, 50)
    y[::5] = -1
    clf = classifier(
        KerasClassifier(
            small_cnn,
            optimizer="adam",
            fit__validation_data=(X, y, weight),
            compile__weighted_metrics=["accuracy"],
        ),
        frozen_layers=frozen_layers,
    ).fit(*train)
    right = clf.predict(X) == y
    kept = y != -1
    expected = np.average(right[kept], weights=weight[kept])
    assert clf.finetune_history_["val_accuracy"][-1] == pytest.approx(
        expected, abs=1e-5
    )


def test_validation_data_change_nothing_in_the_training(digits, train):
    X, y = digits[0][100:150], digits[1][100:150]
    plain, validated = (
        classifier(KerasClassifier(small_cnn, optimizer="adam", epochs=2, **params))
        for params in [{}, {"fit__validation_data": (X, y)}]
    )
    expected = plain.fit(*train).predict_proba(X)
    assert_array_equal(validated.fit(*train).predict_proba(X), expected)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (3, TypeError, "validation_data .*tuple .*got 'int'"),
        ((np.zeros((3, 8, 8)),), TypeError, "a tuple"),
        ((np.zeros((3, 7, 7)), [0, 1, 2]), ValueError, r"validation_data.*\(7, 7, 1\)"),
        ((np.zeros((3, 8, 8)), [0, 1]), ValueError, "validation_data .*inconsistent"),
        ((np.zeros((3, 8, 8)), [0, 1, 11]), ValueError, r"validation_data .*\[11\]"),
        ((np.zeros((3, 8, 8)), [-1, -1, -1]), ValueError, "no labelled row"),
        ((np.full((3, 8, 8), np.nan), [0, 1, 2]), ValueError, "validation_data .*NaN"),
        ((np.zeros((3, 8, 8)), [0, 1, 2], [1, -1, 1]), ValueError, "(?i)data .*negat"),
    ],
)
def test_wrong_validation_data_say_so_before_pretraining(
    data, error, message, train, unpretrained
):
    wrapper = KerasClassifier(small_cnn, optimizer="adam", fit__validation_data=data)
    with pytest.raises(error, match=message):
        classifier(wrapper, pretrain_epochs=1).fit(*train)


def test_validation_is_asked_for_in_one_way(digits, train, unpretrained):
    wrapper = KerasClassifier(
        small_cnn,
        optimizer="adam",
        validation_split=0.2,
        fit__validation_data=(digits[0][100:], digits[1][100:]),
    )
    with pytest.raises(ValueError, match="validation_split=0.2 .*leave one out"):
        classifier(wrapper, pretrain_epochs=1).fit(*train)


class CountValidation(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.n_batches = 0

    def on_test_batch_end(self, batch, logs=None):
        self.n_batches += 1


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, 2 * 4),
        ({"validation_batch_size": 5}, 2 * 8),
        ({"fit__validation_batch_size": -1}, 2 * 1),
        ({"fit__validation_steps": 3}, 2 * 3),
        ({"fit__validation_freq": 2}, 4),
        ({"fit__validation_freq": (1, 2)}, 2 * 4),
    ],
)
def test_validation_has_batches_and_epochs_of_its_own(params, expected, digits, train):
    count = CountValidation()
    data = digits[0][100:140], digits[1][100:140]
    wrapper = KerasClassifier(
        small_cnn,
        optimizer="adam",
        epochs=2,
        batch_size=10,
        callbacks=[count],
        fit__validation_data=data,
        **params,
    )
    classifier(wrapper).fit(*train)
    assert count.n_batches == expected


@pytest.mark.parametrize(
    ("of_wrapper", "own", "shown"),
    [
        ({}, 0, False),
        ({"verbose": 1}, 0, False),  # what a wrapper says where it says nothing
        ({"fit__verbose": 1}, 0, True),
        ({"verbose": 2}, 0, True),
        ({"verbose": 0}, 1, False),
    ],
)
def test_a_wrapper_says_whether_fine_tuning_is_shown(
    of_wrapper, own, shown, train, capsys
):
    wrapper = KerasClassifier(small_cnn, optimizer="adam", **of_wrapper)
    classifier(wrapper, verbose=own).fit(*train)
    assert ("Fine-tuning on 100" in capsys.readouterr().out) is shown


def test_class_weight_of_keras_goes_by_index_where_that_is_the_label(train):
    X, y = train
    weight = {3: 30, 5: 0.5}
    expected = classifier(None, class_weight=weight).fit(X, y).predict_proba(X)
    params = {"optimizer": "adam", "batch_size": 64, "epochs": None}
    for name in ("class_weight", "fit__class_weight"):
        by_wrapper = KerasClassifier(build_cnn, **params, **{name: weight})
        assert_array_equal(classifier(by_wrapper).fit(X, y).predict_proba(X), expected)


@pytest.mark.parametrize("shift", [lambda y: y + 1, lambda y: y.astype(str)])
def test_class_weight_of_keras_is_refused_where_labels_are_no_indices(
    shift, train, unpretrained
):
    wrapper = KerasClassifier(small_cnn, optimizer="adam", fit__class_weight={3: 2})
    with pytest.raises(ValueError, match="fit__class_weight .*indices .*by label"):
        classifier(wrapper, pretrain_epochs=1).fit(train[0], shift(train[1]))


def test_class_weight_is_given_once(train, unpretrained):
    wrapper = KerasClassifier(small_cnn, optimizer="adam", class_weight={3: 2})
    clf = classifier(wrapper, class_weight="balanced", pretrain_epochs=1)
    with pytest.raises(ValueError, match="class_weight is given more than once"):
        clf.fit(*train)


def test_random_state_of_a_wrapper_seeds_where_there_is_no_other(train):
    X, y = train

    def outputs(of_wrapper, own=None):
        wrapper = KerasClassifier(small_cnn, optimizer="adam", random_state=of_wrapper)
        return classifier(wrapper, random_state=own).fit(X, y).predict_proba(X)

    assert_array_equal(outputs(3), outputs(None, 3))
    state = np.random.RandomState(3)
    assert_array_equal(outputs(state), outputs(3))
    assert_array_equal(outputs(state), outputs(3))  # it stays where it is
    assert_array_equal(outputs(3, own=4), outputs(None, 4))
    assert np.abs(outputs(3) - outputs(4)).max() > 1e-3
    embeddings = [
        SelfSupervisedEncoder(
            KerasClassifier(small_cnn, optimizer="adam", random_state=3), epochs=1
        ).fit_transform(X)
        for _ in range(2)
    ]
    assert_array_equal(*embeddings)


def test_bagging_seeds_classifier_and_wrapper(train):
    X, y = train
    wrapper = KerasClassifier(small_cnn, optimizer="adam", epochs=1)
    bagging = BaggingClassifier(classifier(wrapper), n_estimators=2, random_state=0)
    bagging.fit(X.reshape(100, 64), y)
    assert bagging.predict_proba(X.reshape(100, 64)).shape == (100, 10)


# What the settings of compile do


EXPECTED = {  # what each setting of compile changes in what a callback sees
    "run_eagerly": (True, lambda watch: watch.seen["run_eagerly"]),
    "steps_per_execution": (3, lambda watch: watch.seen["steps_per_execution"]),
    "jit_compile": (True, lambda watch: watch.seen["jit_compile"]),
    "optimizer": ("sgd", lambda watch: watch.seen["optimizer"]),
    "metrics": (
        ["sparse_top_k_categorical_accuracy"],
        lambda watch: "sparse_top_k_categorical_accuracy" in watch.logs[0],
    ),
    "weighted_metrics": (
        [keras.metrics.SparseCategoricalAccuracy(name="weighed")],
        lambda watch: "weighed" in watch.logs[0],
    ),
    "loss": ("mean_squared_error", lambda watch: round(watch.logs[0]["loss"], 1)),
    "loss_weights": ([0.01], lambda watch: round(watch.logs[0]["loss"], 1)),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_settings_of_compile_count_in_wrapper_and_build_function(name, train):
    value, look = EXPECTED[name]
    plain, _ = watched(train, wrapper_params={})
    by_prefix, _ = watched(train, wrapper_params={f"compile__{name}": value})
    if name == "optimizer":
        with pytest.warns(UserWarning, match="optimizer='adam' .*not used"):
            by_model, _ = watched(
                train, wrapper_params={}, model=compiled_by(**{name: value})
            )
    else:
        by_model, _ = watched(
            train, wrapper_params={}, model=compiled_by(**{name: value})
        )
    assert look(plain) != look(by_prefix)
    assert look(by_prefix) == look(by_model)


def test_a_network_that_nobody_watches_is_compiled_by_xla_too(train):
    results = [
        classifier(KerasClassifier(small_cnn, optimizer="adam", **params))
        .fit(*train)
        .predict_proba(train[0])
        for params in [{}, {"compile__jit_compile": True}]
    ]
    assert_allclose(results[0], results[1], atol=1e-4)


def test_every_setting_of_compile_has_a_test_of_what_it_does():
    assert {*EXPECTED, "auto_scale_loss"} == set(COMPILE_SETTINGS)


@pytest.mark.parametrize("scale", [True, False])
def test_whether_the_loss_is_scaled_counts(scale, train):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        params = {"compile__auto_scale_loss": scale}
        by_wrapper, _ = watched(train, wrapper_params=params)
        model = compiled_by(auto_scale_loss=scale)
        by_model, _ = watched(train, wrapper_params={}, model=model)
    finally:
        keras.config.set_dtype_policy("float32")
    scaled = keras.optimizers.LossScaleOptimizer
    for watch in (by_wrapper, by_model):
        assert (watch.seen["optimizer"] is scaled) is scale


def test_a_loss_and_metrics_for_the_only_output_may_be_a_dict_or_list(train):
    model = compiled_by(
        loss={"dense": "categorical_crossentropy"},
        loss_weights={"dense": 0.5},
        metrics=[["accuracy", "precision"]],
    )
    watch, _ = watched(train, wrapper_params={}, model=model)
    assert {"accuracy", "precision"} <= set(watch.logs[0])
    with pytest.raises(
        ValueError, match="loss must be that of the only output .*got 2"
    ):
        classifier(compiled_by(loss=["mse", "mse"])).fit(*train)


@pytest.mark.parametrize(
    "params",
    [
        {"optimizer__learning_rate": 0.1},
        {"compile__jit_compile": False},
        {"loss": "categorical_crossentropy"},
        {"metrics": ["sparse_top_k_categorical_accuracy"]},
        {"run_eagerly": True},
    ],
)
def test_what_a_compiled_model_leaves_without_effect_is_refused(
    params, train, unpretrained
):
    (name,) = params
    wrapper = KerasClassifier(compiled_by(), **params)
    with pytest.raises(ValueError, match=f"^{name}=.* not used.*compiled already"):
        classifier(wrapper, pretrain_epochs=1).fit(*train)


def test_a_wrapper_may_repeat_what_the_model_is_compiled_with(train):
    wrapper = KerasClassifier(
        compiled_by(metrics=["accuracy"]),
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy,
        metrics=["accuracy"],
    )
    assert "accuracy" in classifier(wrapper).fit(*train).finetune_history_


def test_a_build_function_that_takes_compile_kwargs_compiles_with_them(train):
    def build(meta, compile_kwargs):
        model = small_cnn(meta)
        model.compile(**compile_kwargs)
        return model

    wrapper = KerasClassifier(
        build,
        optimizer="sgd",
        optimizer__learning_rate=0.25,
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    settings = build_network(wrapper, IMAGE_SHAPE, 0, np.arange(3)).compile_kwargs
    assert float(settings["optimizer"].learning_rate) == 0.25


def test_settings_of_fine_tuning_do_not_reach_pretraining(train):
    watch, clf = watched(
        train,
        wrapper_params={
            "compile__loss_weights": [1e-9],
            "compile__weighted_metrics": [["sparse_top_k_categorical_accuracy"]],
        },
        pretrain_epochs=1,
    )
    assert sorted(clf.pretrain_history_) == ["accuracy", "loss"]
    assert clf.pretrain_history_["loss"][0] > 0.1
    assert watch.logs[0]["loss"] < 1e-6


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
    locked = Locked()
    clf = classifier(
        KerasClassifier(small_cnn, optimizer="adam", epochs=3, callbacks=[locked]),
        checkpoint_dir=tmp_path if with_checkpoints else None,
        pretrain_epochs=1,
    ).fit(*train)
    assert locked.losses == clf.finetune_history_["loss"]
    assert len(locked.losses) == 3
    assert clf.estimator.callbacks == [locked]


def test_keras_callbacks_of_the_user_can_be_read_after_fit(train):
    history = keras.callbacks.History()
    stopping = keras.callbacks.EarlyStopping("loss", min_delta=100, patience=2)
    wrapper = KerasClassifier(
        small_cnn, optimizer="adam", epochs=9, callbacks=[history, stopping]
    )
    clf = classifier(wrapper).fit(*train)
    assert history.history == clf.finetune_history_
    assert stopping.stopped_epoch == 2


class StopTrial(Exception):
    pass


def test_a_callback_may_end_the_fit_by_an_error_of_its_own(train):
    reports = []

    class Prune(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            reports.append(logs["loss"])
            if epoch == 1:
                raise StopTrial("no use")

    wrapper = KerasClassifier(
        small_cnn, optimizer="adam", epochs=9, callbacks=[Prune()]
    )
    with pytest.raises(StopTrial, match="^no use"):
        classifier(wrapper).fit(*train)
    assert len(reports) == 2


def test_two_fits_with_the_same_callback_are_equal(train):
    stopping = keras.callbacks.EarlyStopping(
        "loss", patience=0, min_delta=0.3, restore_best_weights=True
    )
    wrapper = KerasClassifier(
        small_cnn, optimizer="adam", epochs=20, callbacks=[stopping]
    )
    clf = classifier(wrapper)
    first = clf.fit(*train).predict_proba(train[0])
    n_epochs = len(clf.finetune_history_["loss"])
    assert 1 < n_epochs < 20
    assert_array_equal(clf.fit(*train).predict_proba(train[0]), first)
    assert len(clf.finetune_history_["loss"]) == n_epochs
    assert_array_equal(clone(clf).fit(*train).predict_proba(train[0]), first)


@pytest.mark.parametrize(
    "params",
    [
        {"callbacks": keras.callbacks.EarlyStopping},
        {"callbacks": [keras.callbacks.EarlyStopping]},
        {"fit__callbacks": {"stop": keras.callbacks.EarlyStopping}},
        {"callbacks": [[keras.callbacks.EarlyStopping], Watch]},
    ],
)
def test_classes_are_made_callbacks_with_their_parameters(params, train):
    prefix, value = next(iter(params.items()))
    at = {type: "", list: "0__", dict: "stop__"}[value.__class__]
    at += "0__" * (isinstance(value, list) and isinstance(value[0], list))
    routed = {"monitor": "loss", "min_delta": 100, "patience": 2}
    routed = {f"{prefix}__{at}{name}": value for name, value in routed.items()}
    wrapper = KerasClassifier(small_cnn, optimizer="adam", epochs=9, **params, **routed)
    clf = classifier(wrapper).fit(*train)
    assert len(clf.finetune_history_["loss"]) == 3


def test_a_fitted_classifier_is_cloned_and_pickled_with_its_callbacks(train, tmp_path):
    X, y = train
    callbacks = [
        keras.callbacks.EarlyStopping("loss", restore_best_weights=True),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
    ]
    for chosen in (callbacks[:1], callbacks):
        wrapper = KerasClassifier(
            small_cnn, optimizer="adam", epochs=2, callbacks=chosen
        )
        clf = classifier(wrapper).fit(X, y)
        assert [x.model for x in chosen] == [None] * len(chosen)
        expected = clf.predict_proba(X)
        joblib.dump(clf, tmp_path / "clf")
        assert_array_equal(joblib.load(tmp_path / "clf").predict_proba(X), expected)
        assert_array_equal(clone(clf).fit(X, y).predict_proba(X), expected)
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3


def test_what_a_training_leaves_in_a_callback_is_no_setting_of_it():
    callback = Watch()
    callback.patience = 3
    settings = callback_settings(callback)
    assert callback_settings(Watch()) != settings
    with pytest.raises(KeyboardInterrupt):
        with skssl._callbacks.used([callback]):
            callback.logs.append({"loss": 1.0})
            callback.best = 1.0
            raise KeyboardInterrupt
    assert callback.logs == [{"loss": 1.0}]
    assert callback_settings(callback) == settings
    with skssl._callbacks.used([callback]):
        callback.logs.append({"loss": 2.0})
    assert callback_settings(callback) == settings
    callback.patience = 4
    assert callback_settings(callback) != settings


class Interrupt(keras.callbacks.Callback):
    """Interrupts the third epoch, once."""

    def __init__(self):
        super().__init__()
        self.losses = []

    def on_epoch_end(self, epoch, logs=None):
        self.losses.append(logs["loss"])
        if epoch == 2 and armed:
            armed.pop()
            raise KeyboardInterrupt


armed = []


def test_an_interrupted_fit_goes_on_with_the_same_callbacks(train, tmp_path):
    def make():
        stopping = keras.callbacks.EarlyStopping("loss", patience=3)
        callbacks = [Interrupt(), stopping]
        wrapper = KerasClassifier(
            small_cnn, optimizer="adam", epochs=5, callbacks=callbacks
        )
        return classifier(wrapper, checkpoint_dir=tmp_path), callbacks

    expected = make()[0].fit(*train)
    clf, (interrupt, _) = make()
    armed.append(True)
    with pytest.raises(KeyboardInterrupt) as caught:
        clf.fit(*train)
    assert not getattr(caught.value, "__notes__", None)
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
    """An optimizer whose configuration does not say all."""

    def __init__(self, share=0.5, learning_rate=0.1, **kwargs):
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.share = share

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate * self.share)


def local_classes():
    """Return classes that no module has."""

    class LocalDecay(Decay):
        def get_config(self):
            return {"start": self.start}

    class LocalHalf(Half):
        def get_config(self):
            return {**super().get_config(), "share": self.share}

    return LocalDecay, LocalHalf


class Demanding(keras.optimizers.SGD):
    """An optimizer that its configuration cannot build."""

    def __init__(self, shares, **kwargs):
        super().__init__(**kwargs)
        self.shares = shares

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate * self.shares["all"])


def fixed_rate():
    return 0.01


OPTIMIZERS = {
    "own schedule": lambda: keras.optimizers.Adam(Decay(0.01)),
    "local schedule": lambda: keras.optimizers.SGD(local_classes()[0](0.01)),
    "function": lambda: keras.optimizers.Adam(fixed_rate),
    "own optimizer": lambda: Half(0.25, momentum=0.5),
    "local optimizer": lambda: local_classes()[1](0.25, 0.2),
    "both": lambda: local_classes()[1](0.25, Decay(0.2)),
    "own constructor": lambda: Demanding({"all": 0.1}, learning_rate=0.5),
    "own, scaled": lambda: keras.optimizers.LossScaleOptimizer(Half(0.25)),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.filterwarnings("ignore:optimizer='rmsprop':UserWarning")
def test_own_optimizers_train_as_keras_trains_them(kind, compiled, train):
    X, y = train
    given = OPTIMIZERS[kind]()
    if compiled:
        wrapper = KerasClassifier(compiled_by(optimizer=given), epochs=2)
    else:
        wrapper = KerasClassifier(small_cnn, optimizer=given, epochs=2)
    before = [v.numpy() for v in given.variables]
    networks = [build_network(wrapper, IMAGE_SHAPE, 0, np.arange(10)) for _ in range(2)]
    for network, optimizer in zip(networks, [None, OPTIMIZERS[kind]()], strict=True):
        settings = network.compile_kwargs
        settings["optimizer"] = optimizer or settings["optimizer"]
        network.classifier.compile(**settings)
        network.classifier.fit(X[..., None], y, epochs=2, shuffle=False, verbose=0)
    weights = [network.classifier.get_weights() for network in networks]
    for a, b in zip(*weights, strict=True):
        assert_array_equal(a, b)
    assert not given.built
    assert_array_equal([v.numpy() for v in given.variables], before)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_own_optimizers_train_where_trainings_are_kept(kind, train, tmp_path):
    X, y = train
    given = OPTIMIZERS[kind]()
    wrapper = KerasClassifier(small_cnn, optimizer=given, epochs=2)
    folders = {"memory": tmp_path / "a", "checkpoint_dir": tmp_path / "b"}
    clf = classifier(wrapper, pretrain_epochs=1, **folders)
    first = clf.fit(X, y).predict_proba(X)
    assert_array_equal(clf.fit(X, y).predict_proba(X), first)
    assert not given.built
    clf.set_params(memory=None, checkpoint_dir=None).fit(X, y)
    assert_array_equal(clf.predict_proba(X), first)
    clf.partial_fit(X, y)


def test_an_optimizer_that_has_trained_is_copied_as_a_fresh_one():
    optimizer = Half(0.25, momentum=0.9)
    variable = keras.Variable(np.ones(3, np.float32))
    optimizer.apply([tf.ones(3)], [variable])
    fresh = fresh_optimizer(optimizer)
    assert not fresh.built
    assert int(fresh.iterations) == 0
    assert fresh.share == 0.25
    assert int(optimizer.iterations) == 1


def test_schedules_that_differ_are_told_apart_in_the_cache(train, tmp_path):
    losses = []
    for start in (0.0, 0.05):
        wrapper = KerasClassifier(
            small_cnn, optimizer=keras.optimizers.SGD(Decay(start)), epochs=1
        )
        clf = classifier(wrapper, pretrain_epochs=2, memory=tmp_path).fit(*train)
        losses.append(clf.pretrain_history_["loss"])
    assert losses[0] != losses[1]
    for share in (0.0, 1.0):
        wrapper = KerasClassifier(small_cnn, optimizer=Half(share), epochs=1)
        clf = classifier(wrapper, pretrain_epochs=2, memory=tmp_path).fit(*train)
        losses.append(clf.pretrain_history_["loss"])
    assert losses[2] != losses[3]


def test_an_optimizer_that_cannot_be_built_again_says_what_it_lacks(
    train, unpretrained
):
    class Needs(keras.optimizers.SGD):
        def __init__(self, share, **kwargs):
            super().__init__(**kwargs)

        def get_config(self):
            return {**super().get_config(), "learning_rate": {"own": 1}}

    wrapper = KerasClassifier(small_cnn, optimizer=Needs(0.5))
    with pytest.raises(TypeError, match="Needs cannot be built .*optimizer=Needs, opt"):
        classifier(wrapper, pretrain_epochs=1).fit(*train)
    wrapper = KerasClassifier(small_cnn, optimizer=Needs, optimizer__share=0.5)
    network = build_network(wrapper, IMAGE_SHAPE, 0, np.arange(3))
    assert type(network.compile_kwargs["optimizer"]) is Needs


class Counting(keras.metrics.Metric):
    """A metric that its configuration cannot build, with a variable of its own."""

    def __init__(self, step, name="counting"):
        super().__init__(name=name)
        self.step = step
        self.total = self.add_variable((), "zeros", name="total")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(self.step)

    def result(self):
        return self.total


class Share(keras.metrics.Mean):
    """A metric whose configuration leaves something out."""

    def __init__(self, of=0, name="share", **kwargs):
        super().__init__(name=name, **kwargs)
        self.of = of

    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(y_pred[:, self.of])


def test_own_metrics_count_and_stay_as_they_are(train):
    metric = Share(of=3)
    metric.update_state(None, tf.ones((2, 10)))
    wrapper = KerasClassifier(small_cnn, optimizer="adam", metrics=[metric])
    clf = classifier(wrapper).fit(*train)
    assert 0 < clf.finetune_history_["share"][0] < 0.5
    assert float(metric.result()) == 1
    assert fresh_metric(metric).of == 3


def test_a_metric_that_cannot_be_built_again_serves_as_it_is(train):
    metric = Counting(2)
    wrapper = KerasClassifier(
        small_cnn, optimizer="adam", metrics=[metric], batch_size=25, epochs=3
    )
    clf = classifier(wrapper)
    for _ in range(2):
        assert clf.fit(*train).finetune_history_["counting"] == [8, 8, 8]
    assert fresh_metric(metric) is metric


def test_metrics_of_a_local_function_count(train):
    def largest(y_true, y_pred):
        return keras.ops.max(y_pred, axis=-1)

    metric = keras.metrics.MeanMetricWrapper(largest, name="by_wrapper")
    wrapper = KerasClassifier(small_cnn, optimizer="adam", metrics=[largest, metric])
    history = classifier(wrapper).fit(*train).finetune_history_
    assert history["largest"] == pytest.approx(history["by_wrapper"])


# Models of the user, and targets of own losses


class Doubled(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs


def own_layers(meta=None):
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.Sequential([Doubled()]),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


def test_a_model_with_layers_that_keras_does_not_know_says_what_to_do(
    train, unpretrained
):
    model = own_layers()
    for estimator in (model, KerasClassifier(model, optimizer="adam")):
        with pytest.raises(
            TypeError, match="Doubled.*Register.*function that"
        ) as error:
            classifier(estimator, pretrain_epochs=1).fit(*train)
        assert len(str(error.value)) < 300
    by_function = classifier(KerasClassifier(own_layers, optimizer="adam"))
    assert hasattr(by_function.fit(*train), "model_")
    with keras.saving.custom_object_scope({"Doubled": Doubled}):
        assert hasattr(classifier(model).fit(*train), "model_")


@pytest.mark.parametrize("built", [True, False])
def test_a_model_is_copied_with_weights_and_settings(built, train):
    def own_loss(y_true, y_pred):
        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)

    layers = [keras.Input((8, 8, 1))] * built + [
        keras.layers.Conv2D(3, 3),
        keras.layers.Dropout(0.5),
        keras.layers.Flatten(),
        keras.layers.Dense(10, activation="softmax"),
    ]
    model = keras.Sequential(layers)
    if built:
        model.compile(Half(0.25, 0.01), own_loss, metrics=[Share(of=2)])
        before = [w.copy() for w in model.get_weights()]
        wrapper = wrap(model)
        for copied, weight in zip(wrapper.model.get_weights(), before, strict=True):
            assert_array_equal(copied, weight)
    clf = classifier(model).fit(*train)
    assert model.built is built
    if built:
        assert "share" in clf.finetune_history_
        for after, weight in zip(model.get_weights(), before, strict=True):
            assert_array_equal(after, weight)


class OneHotLoss(keras.losses.Loss):
    one_hot = True

    def call(self, y_true, y_pred):
        assert y_true.shape[-1] == 10
        return keras.losses.categorical_crossentropy(y_true, y_pred)


class Focal(keras.losses.CategoricalCrossentropy):
    def call(self, y_true, y_pred):
        assert y_true.shape[-1] == 10
        return super().call(y_true, y_pred)


class Sparse(keras.losses.SparseCategoricalCrossentropy):
    pass


def indices(y_true, y_pred):
    assert len(y_true.shape) == 1 or y_true.shape[-1] == 1
    return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)


def rows(y_true, y_pred):
    return keras.losses.categorical_crossentropy(y_true, y_pred)


def categorical_crossentropy(y_true, y_pred):
    return rows(y_true, y_pred)


rows.one_hot = True


@pytest.mark.parametrize(
    ("loss", "accuracy"),
    [
        (OneHotLoss(), "CategoricalAccuracy"),
        (OneHotLoss, "CategoricalAccuracy"),
        (Focal(label_smoothing=0.1), "CategoricalAccuracy"),
        (Sparse(), "SparseCategoricalAccuracy"),
        (indices, "SparseCategoricalAccuracy"),
        (rows, "CategoricalAccuracy"),
        (categorical_crossentropy, "CategoricalAccuracy"),
    ],
)
def test_an_own_loss_may_ask_for_one_hot_targets(loss, accuracy, train):
    wrapper = KerasClassifier(
        small_cnn, optimizer="adam", loss=loss, epochs=25, optimizer__learning_rate=0.02
    )
    clf = classifier(wrapper).fit(*train)
    assert clf.score(*train) > 0.8
    network = build_network(wrapper, IMAGE_SHAPE, 0, np.arange(10))
    assert network.one_hot is (accuracy == "CategoricalAccuracy")


def test_keras_chooses_the_loss_that_is_called_crossentropy():
    network = build_network(
        compiled_by(loss="crossentropy"), IMAGE_SHAPE, 0, np.arange(3)
    )
    assert network.one_hot is False


# What is wrong is found before pretraining


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"epochs": "many"}, TypeError, "epochs .*int of at least 0.*got 'many'"),
        ({"epochs": True}, TypeError, "epochs .*got True"),
        ({"fit__epochs": -1}, ValueError, "epochs .*got -1"),
        ({"epochs": 2.0}, TypeError, "epochs .*got 2.0"),
        ({"batch_size": 0}, ValueError, "^batch_size .*at least 1, None, or -1, got 0"),
        ({"batch_size": "all"}, TypeError, "^batch_size .*got 'all'"),
        ({"validation_batch_size": 0}, ValueError, "validation_batch_size .*got 0"),
        ({"fit__validation_steps": 0}, ValueError, "validation_steps .*got 0"),
        ({"fit__validation_freq": 0}, ValueError, "validation_freq .*got 0"),
        ({"fit__validation_freq": [1, "x"]}, TypeError, "validation_freq .*got 'x'"),
        ({"validation_split": 1.0}, ValueError, "validation_split .*below 1, got 1.0"),
        ({"validation_split": -0.1}, ValueError, "validation_split .*got -0.1"),
        ({"validation_split": "half"}, TypeError, "validation_split .*got 'half'"),
        ({"shuffle": "batch"}, TypeError, "shuffle .*got 'batch'"),
        ({"fit__verbose": 3}, ValueError, "verbose .*got 3"),
        ({"validation_split": 0.05}, ValueError, "validation_split=0.05 .*holds out 5"),
        ({"validation_split": 0.95}, ValueError, "cannot be stratified.*rarest class"),
        ({"metrics": ["precision"]}, ValueError, "metrics=.*Precision.* one-hot"),
        ({"metrics": ["accuracy", "AUC"]}, ValueError, r"AUC.*class indices.*one_hot"),
        ({"metrics": ["categorical_accuracy"]}, ValueError, "begins with 'sparse_'"),
        ({"metrics": ["nonsense"]}, ValueError, "nonsense"),
        ({"metrics": [keras.metrics.F1Score()], "loss": "mse"}, ValueError, "'macro'"),
        ({"compile__weighted_metrics": ["precision"]}, ValueError, "weighted_metrics="),
        ({"compile__loss_weights": "much"}, ValueError, "loss_weights"),
        ({"loss": lambda y, p: y[:, 3]}, ValueError, "^loss=.*cannot be computed"),
        ({"loss": lambda y, p: 0 * y}, ValueError, "loss has no gradient"),
        (
            {"loss": "mae", "metrics": ["sparse_categorical_accuracy"]},
            ValueError,
            "are one-hot",
        ),
        ({"loss": "mae", "metrics": ["precision", "AUC"]}, None, None),
        ({"metrics": "accuracy", "validation_split": 0.2}, None, None),
    ],
)
def test_wrong_settings_are_found_before_pretraining(
    params, error, message, train, request
):
    wrapper = KerasClassifier(small_cnn, **{"optimizer": "adam", **params})
    clf = classifier(wrapper, pretrain_epochs=1)
    if error is None:
        assert hasattr(clf.fit(*train), "model_")
        return
    request.getfixturevalue("unpretrained")
    with pytest.raises(error, match=message):
        clf.fit(*train)


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (
            keras.callbacks.EarlyStopping(),
            "EarlyStopping monitors 'val_loss'.*Give val",
        ),
        (keras.callbacks.ReduceLROnPlateau(), "ReduceLROnPlateau monitors 'val_loss'"),
        (
            keras.callbacks.EarlyStopping("val_accuracy"),
            "'val_accuracy'.*validation_spl",
        ),
        (keras.callbacks.EarlyStopping("auc"), r"'auc', but.*\['accuracy', 'loss'\]"),
        (
            keras.callbacks.ModelCheckpoint("x.keras", save_best_only=True),
            "ModelCheckpoint monitors 'val_loss'",
        ),
    ],
)
def test_monitors_without_a_metric_are_found_before_pretraining(
    callback, message, train, unpretrained
):
    wrapper = KerasClassifier(small_cnn, optimizer="adam", callbacks=[callback])
    with pytest.raises(ValueError, match=message):
        classifier(wrapper, pretrain_epochs=1).fit(*train)


def test_monitors_of_an_unknown_direction_are_found_before_pretraining(
    train, unpretrained
):
    def own(y_true, y_pred):
        return keras.ops.max(y_pred, axis=-1)

    stopping = keras.callbacks.EarlyStopping("own")
    wrapper = KerasClassifier(
        small_cnn, optimizer="adam", metrics=[own], callbacks=[stopping]
    )
    with pytest.raises(ValueError, match="'own', of which Keras .*mode to 'max'"):
        classifier(wrapper, pretrain_epochs=1).fit(*train)


class AddMetric(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        logs["val_f1"] = float(epoch == 0)


@pytest.mark.parametrize("where", ["fit__validation_data", "validation_split"])
def test_monitors_that_have_a_metric_serve(where, digits, train):
    validation = {
        "fit__validation_data": (digits[0][100:150], digits[1][100:150]),
        "validation_split": 0.2,
    }[where]
    callbacks = [
        keras.callbacks.EarlyStopping("val_accuracy", patience=5),
        AddMetric(),
        keras.callbacks.EarlyStopping("val_f1", mode="max", patience=1),
        keras.callbacks.ReduceLROnPlateau(),
    ]
    wrapper = KerasClassifier(
        small_cnn,
        optimizer="adam",
        epochs=9,
        callbacks=callbacks,
        **{where: validation},
    )
    clf = classifier(wrapper).fit(*train)
    assert len(clf.finetune_history_["loss"]) == 2


def test_classes_of_one_image_are_trained_on(train):
    X, y = train
    alone = np.flatnonzero(y == 3)[1:]
    keep = np.setdiff1d(np.arange(100), alone)
    wrapper = KerasClassifier(
        small_cnn, optimizer="adam", validation_split=0.2, epochs=25
    )
    clf = classifier(wrapper).fit(X[keep], y[keep])
    assert "val_loss" in clf.finetune_history_
    assert 3 in clf.classes_


def test_a_split_has_the_same_share_of_each_class_and_all_rows_once():
    targets = np.repeat([0, 1, 2, 3], [40, 20, 1, 1])
    train, held_out = split_validation(targets, 0.25, seed=0)
    assert_array_equal(np.sort(np.concatenate([train, held_out])), np.arange(62))
    assert_array_equal(np.bincount(targets[held_out]), [11, 5])
    assert_array_equal(split_validation(targets, 0.25, seed=0)[1], held_out)
    assert not np.array_equal(split_validation(targets, 0.25, seed=1)[1], held_out)
    assert len(split_validation(targets, 0, seed=0)[1]) == 0


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([0, 1, 2], "two or more, 0 in number.*rarest class, 'a', has 1"),
        ([0] * 9 + [1] * 2 + [2] * 9, "out 2, but .*3 in number.*class, 'b', has 2"),
    ],
)
def test_a_split_that_cannot_be_names_the_class(targets, message):
    with pytest.raises(ValueError, match=message):
        split_validation(np.array(targets), 0.1, 0, np.array(["a", "b", "c"]))


def test_trying_the_settings_leaves_everything_as_it_was():
    metric = keras.metrics.SparseCategoricalAccuracy()
    metric.update_state([1, 1], [[0.0, 1.0], [1.0, 0.0]])
    network = build_network(compiled_by(metrics=[metric]), IMAGE_SHAPE, 0, np.arange(3))
    network.compile_kwargs["metrics"] = [metric]
    before = network.classifier.get_weights()
    state = np.random.get_state()[1].copy()
    try_settings(network, weighted=True)
    assert float(metric.result()) == 0.5
    assert_array_equal(np.random.get_state()[1], state)
    assert not network.compile_kwargs["optimizer"].built
    assert not network.classifier.compiled
    for weight, other in zip(network.classifier.get_weights(), before, strict=True):
        assert_array_equal(weight, other)


# When fine-tuning fails all the same


class Break(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if self.error:
            raise self.error


def breaking(error, **params):
    callback = Break()
    callback.error = error
    wrapper = KerasClassifier(small_cnn, optimizer="adam", callbacks=[callback])
    return callback, classifier(wrapper, pretrain_epochs=1, **params)


@pytest.mark.parametrize("place", ["memory", "checkpoint_dir"])
def test_pretraining_is_kept_where_fine_tuning_fails(
    place, train, tmp_path, monkeypatch
):
    callback, clf = breaking(ZeroDivisionError("mine"), **{place: tmp_path})
    with pytest.raises(ZeroDivisionError, match="^mine") as caught:
        clf.fit(*train)
    (note,) = caught.value.__notes__
    assert f"is kept in {place}=" in note
    assert not hasattr(clf, "model_")
    callback.error = None
    trained = []
    fit = keras.Model.fit

    def counted(self, *args, **kwargs):
        trained.append(kwargs["epochs"] - kwargs["initial_epoch"])
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(keras.Model, "fit", counted)
    clf.fit(*train)
    assert sum(trained) == 1  # fine-tuning alone
    assert len(clf.pretrain_history_["loss"]) == 1


@pytest.mark.parametrize(
    ("params", "note"),
    [
        ({}, "is lost. memory= or checkpoint_dir= keeps it; to find it again"),
        (
            {"memory": True, "random_state": None},
            "is lost. To find it again, random_st",
        ),
    ],
)
def test_pretraining_that_is_lost_says_what_would_have_kept_it(
    params, note, train, tmp_path
):
    params = {k: tmp_path if v is True else v for k, v in params.items()}
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
