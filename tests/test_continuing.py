import pickle

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from networks import assert_same_weights, two_stages, weights_of
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.utils.class_weight import compute_sample_weight

from skssl import TrainingCurveDisplay, load

N_TRAIN = 150


@pytest.fixture(scope="module")
def train(digits):
    return digits[0][:N_TRAIN], digits[1][:N_TRAIN]


@pytest.fixture(scope="module")
def later(digits):
    """Rows that come after the first ones."""
    return digits[0][N_TRAIN:300], digits[1][N_TRAIN:300]


@pytest.fixture(scope="module")
def once_fitted(train, quick):
    clf = two_stages(quick(), pretrain_epochs=1, random_state=0)
    return clf.fit(*train)


@pytest.fixture
def started(once_fitted):
    """Return a copy of the fitted classifier, free to be trained further."""
    return pickle.loads(pickle.dumps(once_fitted))


# partial_fit


def test_partial_fit_goes_on_from_fit(started, later, digits):
    X_test, y_test = digits[0][300:], digits[1][300:]
    before, first_score = dict(vars(started)), started.score(X_test, y_test)
    pretrained = weights_of(started.encoder_.backbone_)
    for n_calls in range(1, 13):
        assert started.partial_fit(*later) is started
        assert len(started.finetune_history_["loss"]) == 2 + n_calls
    assert started.score(X_test, y_test) > max(first_score, 0.6)
    losses = started.finetune_history_["loss"]
    assert losses[:2] == before["finetune_history_"]["loss"]
    assert losses[-1] < losses[2] < losses[0]
    assert started.encoder_ is before["encoder_"]
    assert_same_weights(started.encoder_.backbone_, pretrained)
    assert_array_equal(started.classes_, before["classes_"])


def test_calls_of_partial_fit_are_epochs_of_fit(train, quick):
    params = {"pretrain_epochs": 1, "random_state": 0}
    whole = two_stages(quick(epochs=3), **params).fit(*train)
    by_epoch = two_stages(quick(), **params)
    for _ in range(3):
        by_epoch.partial_fit(*train, classes=range(10))
    assert by_epoch.finetune_history_ == whole.finetune_history_
    assert by_epoch.pretrain_history_ == whole.pretrain_history_
    assert_same_weights(by_epoch.model_, whole.model_)


def test_the_first_call_of_partial_fit_names_classes_that_come_later(digits, quick):
    X, y = digits
    few, all_of_them = y < 5, y < 10
    clf = two_stages(quick(), pretrain_epochs=0, random_state=0)
    with pytest.raises(ValueError, match="first call of partial_fit needs classes="):
        clf.partial_fit(X[few], y[few])
    assert not hasattr(clf, "classes_")
    clf.partial_fit(X[few], y[few], classes=np.arange(9, -1, -1))
    assert_array_equal(clf.classes_, np.arange(10))
    assert clf.predict_proba(X[:3]).shape == (3, 10)
    assert clf.encoder_ is None
    for _ in range(12):
        clf.partial_fit(X[all_of_them], y[all_of_them], classes=range(10))
    assert clf.score(X[~few], y[~few]) > 0.6


def test_a_fit_in_between_starts_afresh(train, later, quick):
    params = {"pretrain_epochs": 0, "random_state": 0}
    clf, other = (two_stages(quick(), **params) for _ in range(2))
    clf.fit(*train).partial_fit(*later).fit(*train)
    fitted = other.fit(*train).model_.get_weights()
    assert_same_weights(clf.model_, fitted)
    clf.partial_fit(*later)
    other.partial_fit(*later)
    assert_same_weights(clf.model_, other.model_.get_weights())


def test_partial_fit_leaves_the_validation_data_out(train, later, quick):
    clf = two_stages(
        quick(fit__validation_data=later), pretrain_epochs=0, random_state=0
    )
    for _ in range(2):
        clf.partial_fit(*train, classes=range(10))
    assert sorted(clf.finetune_history_) == ["accuracy", "loss"]


@pytest.mark.parametrize("n_classes", [3, 4, 10])
@pytest.mark.parametrize("pretrain_epochs", [0, 1])
def test_checkpoints_change_nothing_in_the_first_call_of_partial_fit(
    pretrain_epochs, n_classes, digits, quick, tmp_path
):
    X, y = digits
    X, y = X[y < n_classes], y[y < n_classes]
    params = {"pretrain_epochs": pretrain_epochs, "random_state": 0}
    plain, kept = (
        two_stages(quick(), checkpoint_dir=folder, **params)
        for folder in (None, tmp_path)
    )
    for _ in range(2):
        plain.partial_fit(X, y, classes=range(n_classes))
        kept.partial_fit(X, y, classes=range(n_classes))
    assert_same_weights(kept.model_, plain.model_)
    assert kept.finetune_history_ == plain.finetune_history_
    assert list(tmp_path.iterdir()) == []  # what was finished is removed


def test_an_interrupted_first_partial_fit_goes_on_after_pretraining(
    train, quick, tmp_path, interrupted
):
    clf = two_stages(
        quick(), pretrain_epochs=1, checkpoint_dir=tmp_path, random_state=0
    )
    with interrupted(after=1):
        clf.partial_fit(*train, classes=range(10))
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith("pretraining-")
    clf.partial_fit(*train, classes=range(10))
    assert list(tmp_path.iterdir()) == []
    assert len(clf.finetune_history_["loss"]) == 1


# Weights in partial_fit


@pytest.fixture(scope="module")
def steps(train, quick):
    """Return a function that gives how far one step of SGD moves each weight."""
    sgd = quick(optimizer="sgd", optimizer__learning_rate=0.1, batch_size=256)
    fitted = two_stages(sgd, pretrain_epochs=0, random_state=0)
    fitted.fit(*train)
    before = weights_of(fitted.model_)

    def step(X, y, sample_weight=None, **params):
        clf = pickle.loads(pickle.dumps(fitted)).set_params(**params)
        clf.partial_fit(X, y, sample_weight=sample_weight)
        after = weights_of(clf.model_)
        return [b - a for a, b in zip(before, after, strict=True)]

    return step


def assert_same_steps(steps, expected):
    assert np.abs(expected[-1]).max() > 1e-3
    for step, other in zip(steps, expected, strict=True):
        assert_allclose(step, other, rtol=0.02, atol=1e-5)


def test_weights_of_all_calls_of_partial_fit_are_on_one_scale(steps, later):
    X, y = later
    plain = steps(X, y)
    for step, expected in zip(steps(X, y, np.ones(len(y))), plain, strict=True):
        assert_array_equal(step, expected)
    hundredfold = steps(X, y, np.full(len(y), 100.0))
    assert_same_steps(hundredfold, [100 * step for step in plain])


def test_a_repeated_row_of_partial_fit_is_one_of_weight_two(steps, later):
    X, y = later
    twice = np.append(np.arange(len(y)), [0, 1, 2])
    weights = np.where(np.arange(len(y)) < 3, 2.0, 1.0)
    for step, expected in zip(
        steps(X[twice], y[twice]), steps(X, y, weights), strict=True
    ):
        assert_array_equal(step, expected)


def test_class_weight_of_partial_fit_is_the_sample_weight_it_stands_for(steps, later):
    X, y = later
    class_weight = {3: 20, 5: 0.5}
    expected = steps(X, y, compute_sample_weight(class_weight, y))
    assert_same_steps(steps(X, y, class_weight=class_weight), expected)
    doubled = steps(X, y, np.full(len(y), 2.0), class_weight=class_weight)
    assert_same_steps(doubled, [2 * step for step in expected])


@pytest.mark.parametrize("name", ["class_weight", "estimator__class_weight"])
def test_partial_fit_refuses_balanced_classes(name, once_fitted, started, later):
    message = "class_weight='balanced' needs the labels of all.*compute_class_weight"
    started.set_params(**{name: "balanced"})
    weights = weights_of(started.model_)
    with pytest.raises(ValueError, match=message):
        started.partial_fit(*later)
    assert_same_weights(started.model_, weights)
    unfitted = clone(once_fitted).set_params(**{name: "balanced"})
    with pytest.raises(ValueError, match=message):
        unfitted.partial_fit(*later, classes=range(10))


# Histories


def test_histories_keep_what_only_some_epochs_measure(started, train, later, tmp_path):
    validated = started.set_params(estimator__validation_split=0.2).fit(*train)
    first = dict(validated.finetune_history_)
    validated.partial_fit(*later)
    history = validated.finetune_history_
    assert list(history) == ["accuracy", "loss", "val_accuracy", "val_loss"]
    for key in history:
        assert len(history[key]) == 3
        assert history[key][:2] == first[key]
        assert np.isnan(history[key][2]) == key.startswith("val_")
    validated.set_params(warm_start=True).fit(*train)
    history = validated.finetune_history_
    assert_array_equal(
        np.isnan(history["val_loss"]), [False, False, True, False, False]
    )
    assert np.isfinite(history["loss"]).all()

    validated.save(tmp_path / "validated.skssl")
    loaded = load(tmp_path / "validated.skssl").finetune_history_
    assert list(loaded) == list(history)
    for key in history:
        assert_array_equal(loaded[key], history[key])
    loss, _ = TrainingCurveDisplay.from_estimator(validated).axes_
    plt.close(loss.figure)
    assert_array_equal(loss.lines[-1].get_ydata(), history["val_loss"])


def test_what_is_measured_later_has_no_value_before(started, train):
    started.set_params(warm_start=True, estimator__validation_split=0.2).fit(*train)
    values = started.finetune_history_["val_loss"]
    assert_array_equal(np.isnan(values), [True, True, False, False])


def test_validation_in_every_second_epoch_is_kept_by_epoch(train, quick):
    clf = two_stages(
        quick(epochs=4, validation_split=0.2, fit__validation_freq=2),
        pretrain_epochs=0,
        random_state=0,
    ).fit(*train)
    values = clf.finetune_history_["val_loss"]
    assert_array_equal(np.isnan(values), [True, False, True, False])
    assert len(clf.finetune_history_["loss"]) == 4


def test_partial_fit_goes_on_after_pickling(once_fitted, started, later):
    again = pickle.loads(pickle.dumps(once_fitted))
    started.partial_fit(*later)
    again.partial_fit(*later)
    assert_same_weights(again.model_, started.model_)
    loaded = pickle.loads(pickle.dumps(again))
    assert_same_weights(loaded.model_, again.model_)
    loaded.partial_fit(*later)
    losses = loaded.finetune_history_["loss"]
    assert len(losses) == 4
    assert losses[3] < losses[2]


def test_unlabelled_rows_are_passed_over_in_partial_fit(once_fitted, later):
    X, y = later
    y = np.where(np.arange(len(y)) % 3 == 0, -1, y)
    every, labelled = (pickle.loads(pickle.dumps(once_fitted)) for _ in range(2))
    every.partial_fit(X, y)
    labelled.partial_fit(X[y != -1], y[y != -1])
    assert_same_weights(every.model_, labelled.model_)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (X, y + 1), r"among the classes \[0, 1.*got \[10\]"),
        (lambda X, y: (X, y, range(9)), "are not those of the first call"),
        (lambda X, y: (X[:, :7, :7], y), r"\(7, 7, 1\).*fitted on"),
        (lambda X, y: (X, y[1:]), "inconsistent numbers of samples"),
        (lambda X, y: (X, np.full_like(y, -1)), "no labelled row"),
        (lambda X, y: (X, y, None, np.full(len(y), -1.0)), "(?i)negative"),
    ],
)
def test_a_refused_partial_fit_changes_nothing(change, message, once_fitted, later):
    before, weights = dict(vars(once_fitted)), weights_of(once_fitted.model_)
    with pytest.raises(ValueError, match=message):
        once_fitted.partial_fit(*change(*later))
    assert vars(once_fitted) == before
    assert_same_weights(once_fitted.model_, weights)


def test_a_partial_fit_that_diverges_changes_nothing(started, later):
    before, weights = dict(vars(started)), weights_of(started.model_)
    started.set_params(estimator__optimizer__learning_rate=1e30)
    with pytest.raises(FloatingPointError, match="diverged"):
        started.partial_fit(*later)
    assert vars(started) == before
    assert_same_weights(started.model_, weights)


def test_an_interrupted_partial_fit_changes_nothing(
    once_fitted, started, later, interrupted
):
    spared = pickle.loads(pickle.dumps(once_fitted))
    for clf in (spared, started):
        clf.partial_fit(*later)
    before, weights = dict(vars(started)), weights_of(started.model_)
    with interrupted(at_its_end=True):
        started.partial_fit(*later)
    assert vars(started) == before
    assert_same_weights(started.model_, weights)
    for clf in (spared, started):  # the optimizer is where it was, too
        clf.partial_fit(*later)
    assert_same_weights(started.model_, spared.model_)


# warm_start


def test_warm_start_goes_on_with_both_stages(started, train):
    pretrained = weights_of(started.encoder_.backbone_)
    first = started.encoder_, started.model_
    histories = started.pretrain_history_, started.finetune_history_
    started.set_params(warm_start=True, estimator__epochs=3).fit(*train)
    pretraining, finetuning = started.pretrain_history_, started.finetune_history_
    assert len(pretraining["loss"]) == 2
    assert len(finetuning["loss"]) == 5
    assert pretraining["loss"][:1] == histories[0]["loss"]
    assert finetuning["accuracy"][:2] == histories[1]["accuracy"]
    assert pretraining["loss"][1] < pretraining["loss"][0]
    assert finetuning["loss"][2] < finetuning["loss"][0]
    assert finetuning["loss"][4] < finetuning["loss"][1]
    assert started.encoder_.history_ == pretraining
    assert started.model_ is not first[1]
    assert_same_weights(first[0].backbone_, pretrained)


def test_warm_start_without_pretraining_keeps_the_encoder(started, train, digits):
    encoder, history = started.encoder_, started.pretrain_history_
    started.set_params(warm_start=True, pretrain_epochs=0, estimator__epochs=15)
    started.fit(*train)
    assert started.encoder_ is encoder
    assert started.pretrain_history_ == history
    assert len(started.finetune_history_["loss"]) == 17
    assert started.score(digits[0][300:], digits[1][300:]) > 0.6
    started.set_params(warm_start=False).fit(*train)
    assert started.encoder_ is None


@pytest.mark.parametrize(
    ("params", "change", "message"),
    [
        ({}, lambda X, y: (X[y < 9], y[y < 9]), "same classes and shape.*Fit a clone"),
        ({}, lambda X, y: (X[:, 1:7, 1:7], y), r"\(8, 8, 1\), got .*\(6, 6, 1\)"),
        (
            {"estimator__model__dense_units": 8},
            lambda X, y: (X, y),
            "builds another network",
        ),
    ],
)
def test_warm_start_refuses_what_does_not_go_on(
    params, change, message, started, train
):
    started.set_params(warm_start=True, **params)
    before, weights = dict(vars(started)), weights_of(started.model_)
    with pytest.raises(ValueError, match=message):
        started.fit(*change(*train))
    assert vars(started) == before
    assert_same_weights(started.model_, weights)


# Callbacks


def too_fast_later(epoch):
    return 0.02 if epoch < 4 else 3.0


def test_early_stopping_restores_the_best_weights(train, quick):
    schedule = keras.callbacks.LearningRateScheduler(too_fast_later)
    stopping = keras.callbacks.EarlyStopping(
        "loss", patience=2, restore_best_weights=True
    )
    params = {"pretrain_epochs": 0, "random_state": 0}
    clf = two_stages(quick(callbacks=[schedule, stopping], epochs=20), **params).fit(
        *train
    )
    losses = clf.finetune_history_["loss"]
    assert np.argmin(losses) == 3
    assert len(losses) == 6
    assert clf.finetune_history_["learning_rate"] == pytest.approx([0.02] * 4 + [3] * 2)
    best = two_stages(quick(callbacks=[schedule], epochs=4), **params)
    assert_same_weights(clf.model_, best.fit(*train).model_)
    assert stopping.best_epoch == 3
    assert stopping.model is None


def test_a_learning_rate_schedule_is_that_of_the_optimizer(train, quick):
    still = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.0, 0.0])
    clf = two_stages(
        quick(optimizer="sgd", optimizer__learning_rate=still),
        pretrain_epochs=1,
        random_state=0,
    )
    after_two = weights_of(clf.fit(*train).model_)
    clf.set_params(estimator__epochs=4).fit(*train)
    assert_same_weights(clf.model_, after_two)
    moving = still.get_config() | {"boundaries": [12], "values": [0.0, 0.1]}
    clf.set_params(
        estimator__optimizer__learning_rate=type(still).from_config(moving)
    ).fit(*train)  # it moves after two epochs of five steps each
    assert not np.array_equal(clf.model_.get_weights()[-1], after_two[-1])


class Watching(keras.callbacks.Callback):
    """Stops after three epochs, and keeps what it saw."""

    def __init__(self):
        super().__init__()
        self.n_trainings = 0
        self.n_batches = 0

    def on_train_begin(self, logs=None):
        self.n_trainings += 1

    def on_train_batch_end(self, batch, logs=None):
        self.n_batches += 1

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == 2


def test_a_users_callback_sees_the_fine_tuning_of_each_fit(train, quick):
    watching = Watching()
    clf = two_stages(
        quick(callbacks=[watching], epochs=9), pretrain_epochs=1, random_state=0
    )
    for n_fits in (1, 2):
        clf.fit(*train)
        assert len(clf.pretrain_history_["loss"]) == 1
        assert len(clf.finetune_history_["loss"]) == 3
        assert watching.n_trainings == n_fits  # fine-tuning alone
        assert watching.n_batches == 15 * n_fits
    assert watching.model is None
    clf.partial_fit(*train)
    assert watching.n_trainings == 2
    assert len(clf.finetune_history_["loss"]) == 4
