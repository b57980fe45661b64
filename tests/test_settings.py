import copy
import gc
import inspect
import io
import os
import pickle
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
from sklearn.model_selection import GridSearchCV

import skssl._training
from skssl import SelfSupervisedClassifier, SelfSupervisedEncoder, build_cnn
from skssl._callbacks import callback_settings
from skssl._copies import fresh_metric, fresh_optimizer
from skssl._networks import build_network
from skssl._settings import (
    COMPILE_SETTINGS,
    FIT_SETTINGS,
    REFUSED_FIT_SETTINGS,
    compile_settings,
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
    ],
)
def test_settings_that_nothing_reads_are_refused_by_name(
    params, error, message, train, unpretrained
):
    clf = classifier(
        KerasClassifier(small_cnn, **{"optimizer": "adam", **params}), pretrain_epochs=1
    )
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
