import os
import random
import subprocess
import sys

import joblib
import keras
import numpy as np
import pytest
from networks import assert_same_weights, two_stages, weights_of
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

from skssl import (
    RotationPretext,
    SelfSupervisedClassifier,
    SelfSupervisedEncoder,
    build_cnn,
)
from skssl._data.labels import encode_labels


def cnn(units=10, activation="softmax", dropout=0.0):
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    x = keras.layers.Dropout(dropout)(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Dense(units, activation=activation)(x))


def test_it_learns_from_few_labels(fitted, digits):
    X, y = digits
    assert fitted.score(X[100:], y[100:]) > 0.8
    assert fitted.score_pretext(X) > 0.8
    probabilities = fitted.predict_proba(X)
    assert probabilities.shape == (len(X), 10)
    assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert_array_equal(fitted.classes_[probabilities.argmax(axis=1)], fitted.predict(X))
    assert fitted.transform(X[:3]).shape == (3, 128)
    assert fitted.image_shape_ == (8, 8, 1)
    assert fitted.n_features_in_ == 64


def test_histories_are_plain_and_by_epoch(fitted):
    assert sorted(fitted.pretrain_history_) == ["accuracy", "loss"]
    assert len(fitted.pretrain_history_["loss"]) == 16  # of 38 steps, to give 600
    assert len(fitted.finetune_history_["loss"]) == 20
    assert isinstance(fitted.finetune_history_["loss"][0], float)


def test_the_encoder_stays_as_it_was_when_pretraining_ended(fitted, digits):
    X, _ = digits
    assert fitted.encoder_.score(X) == fitted.score_pretext(X)
    assert fitted.pretrain_history_ is fitted.encoder_.history_
    pretrained = fitted.encoder_.backbone_.get_weights()
    finetuned = fitted.model_.get_layer("backbone").get_weights()
    assert not np.allclose(pretrained[-1], finetuned[-1])
    assert np.abs(fitted.encoder_.transform(X) - fitted.transform(X)).max() > 0.01


def test_the_same_seed_gives_the_same_bits(fitted, few_labels):
    again = SelfSupervisedClassifier(random_state=0).fit(*few_labels)
    X, _ = few_labels
    assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    other = two_stages(random_state=1).fit(*few_labels)
    assert not np.allclose(other.predict_proba(X), fitted.predict_proba(X))


def test_pickles_and_seeds_hold_in_another_process(fitted, few_labels, tmp_path, quick):
    X, y = few_labels
    joblib.dump(fitted, tmp_path / "fitted.joblib")
    joblib.dump(SelfSupervisedClassifier(random_state=0), tmp_path / "new.joblib")
    joblib.dump((X, y), tmp_path / "data.joblib")
    code = (
        "import joblib, numpy as np\n"
        "X, y = joblib.load('data.joblib')\n"
        "np.save('fitted', joblib.load('fitted.joblib').predict_proba(X))\n"
        "np.save('new', joblib.load('new.joblib').fit(X, y).predict_proba(X))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    expected = fitted.predict_proba(X)
    assert_array_equal(np.load(tmp_path / "fitted.npy"), expected)
    assert_array_equal(np.load(tmp_path / "new.npy"), expected)


def test_the_callers_generators_stay_where_they_were(few_labels, quick):
    def draw():
        return random.random(), np.random.random(), float(keras.random.normal(()))

    keras.utils.set_random_seed(3)
    expected = draw()
    keras.utils.set_random_seed(3)
    clf = two_stages(quick(cnn, model__dropout=0.5), pretrain_epochs=1, random_state=0)
    clf.fit(*few_labels).predict_proba(few_labels[0])
    assert draw() == expected


def test_random_layers_are_seeded_too(few_labels, quick):
    clf = two_stages(quick(cnn, model__dropout=0.5), pretrain_epochs=1, random_state=0)
    X, y = few_labels
    first = clf.fit(X, y).predict_proba(X)
    random.random()
    assert_array_equal(clone(clf).fit(X, y).predict_proba(X), first)


@pytest.mark.parametrize(
    "rescale",
    [
        lambda X: (X / 16).astype(np.float32),
        lambda X: np.round(X * 255 / 16),
        lambda X: np.round(X * 255 / 16).astype(np.uint8),
    ],
)
def test_the_scale_of_the_pixels_does_not_matter(rescale, few_labels, quick):
    X, y = few_labels
    X = np.round(X * 255 / 16) * 16 / 255  # so that bytes hold the same images
    clf = two_stages(quick(epochs=20), pretrain_epochs=2, random_state=0)
    expected = clf.fit(X, y).predict_proba(X)
    scaled = clf.fit(rescale(X), y).predict_proba(rescale(X))
    assert_allclose(scaled, expected, atol=2e-3)


def test_a_refit_starts_from_fresh_weights(few_labels, quick):
    X, y = few_labels
    clf = two_stages(quick(), pretrain_epochs=1, random_state=0)
    first = clf.fit(X, y).predict_proba(X)
    clf.fit(X[::-1], y[::-1])
    assert_array_equal(clf.fit(X, y).predict_proba(X), first)


def test_a_model_of_the_user_stays_untouched(few_labels):
    X, y = few_labels
    model = cnn()
    before = weights_of(model)
    clf = two_stages(model, pretrain_epochs=1, random_state=0)
    first = clf.fit(X, y).predict_proba(X)
    assert_array_equal(clf.fit(X, y).predict_proba(X), first)
    assert clf.estimator is model
    assert not model.compiled
    assert_same_weights(model, before)


def test_without_pretraining_it_is_the_supervised_network(few_labels, quick):
    clf = two_stages(quick(epochs=30), pretrain_epochs=0, random_state=0).fit(
        *few_labels
    )
    X, y = few_labels
    assert clf.score(X[y != -1], y[y != -1]) > 0.8
    assert clf.encoder_ is None
    assert clf.pretrain_history_ is None
    assert not hasattr(clf, "predict_pretext")
    with pytest.raises(AttributeError, match="has no attribute 'score_pretext'"):
        clf.score_pretext(X)


def test_scoring_rows_without_a_label_warns(few_labels, quick):
    X, y = few_labels
    clf = two_stages(quick(), pretrain_epochs=0).fit(X, y)
    n_marked = np.count_nonzero(y == -1)
    message = f"{n_marked} of {len(y)} rows to score on have no label, and count as wr"
    with pytest.warns(UserWarning, match=message) as caught:
        score = clf.score(X, y)
    assert caught[0].filename == __file__
    labelled = y != -1
    assert score == pytest.approx(clf.score(X[labelled], y[labelled]) * labelled.mean())
    with pytest.warns(UserWarning, match="rows to score on have no label"):
        cross_val_score(clf, X, y, cv=2)


def test_a_refit_sets_every_attribute(few_labels, quick):
    clf = two_stages(quick(), pretrain_epochs=1).fit(*few_labels)
    clf.set_params(pretrain_epochs=0).fit(*few_labels)
    assert clf.encoder_ is None
    assert clf.pretrain_history_ is None


@pytest.mark.parametrize("frozen_layers", [1, "all"])
def test_frozen_layers_keep_their_pretrained_weights(frozen_layers, few_labels, quick):
    clf = two_stages(
        quick(epochs=3), frozen_layers=frozen_layers, pretrain_epochs=1, random_state=0
    ).fit(*few_labels)
    pretrained = clf.encoder_.backbone_.get_weights()
    finetuned = clf.model_.get_layer("backbone").get_weights()
    # three of standardisation, then kernel and bias of each layer
    same = [np.array_equal(a, b) for a, b in zip(pretrained, finetuned, strict=True)]
    assert same == [True] * 5 + [frozen_layers == "all"] * 2


def test_unfrozen_layers_are_trained_at_a_rate_of_their_own(few_labels, quick):
    clf = two_stages(quick(epochs=3), frozen_layers="all", pretrain_epochs=1)
    clf.set_params(random_state=0)
    head = clone(clf).fit(*few_labels)
    slow = clone(clf).set_params(unfreeze_epochs=2, unfreeze_learning_rate=1e-7)
    fast = clone(slow).set_params(unfreeze_learning_rate=1e-2)
    slow, fast = slow.fit(*few_labels), fast.fit(*few_labels)
    start = head.model_.get_layer("backbone").trainable_variables
    assert start == []
    for fitted in slow, fast:
        assert len(fitted.finetune_history_["loss"]) == 5
        losses = fitted.finetune_history_["loss"][:3]
        assert losses == head.finetune_history_["loss"]
    before = weights_of(head.model_)
    moved = [
        [np.abs(a - b).max() for a, b in zip(before, weights_of(x.model_), strict=True)]
        for x in (slow, fast)
    ]
    # three of standardisation, then kernels and biases
    assert all(0 < x < 1e-5 for x in moved[0][3:])
    assert all(x > 1e-3 for x in moved[1][3:])


def test_an_unfrozen_network_learns_more(few_labels, quick):
    clf = two_stages(
        quick(epochs=5), frozen_layers="all", pretrain_epochs=0, random_state=0
    ).fit(*few_labels)
    loss = clf.finetune_history_["loss"][-1]
    clf.set_params(unfreeze_epochs=20, unfreeze_learning_rate=0.01).fit(*few_labels)
    assert clf.finetune_history_["loss"][-1] < loss / 2


def test_flat_rows_and_images_are_one(few_labels, quick):
    X, y = few_labels
    clf = two_stages(quick(), pretrain_epochs=1, random_state=0)
    expected = clf.fit(X, y).predict_proba(X)
    rows = X.reshape(len(X), -1)
    assert_array_equal(clf.fit(rows, y).predict_proba(rows), expected)
    assert_array_equal(clf.predict_proba(X[..., None]), expected)


def test_strings_are_classes_and_minus_one_marks_the_rest(few_labels, quick):
    X, y = few_labels
    names = np.array(["even", "odd"])
    labels = np.array(
        [names[label % 2] if label != -1 else -1 for label in y], dtype=object
    )
    clf = two_stages(quick(epochs=30), pretrain_epochs=1, random_state=0).fit(X, labels)
    assert_array_equal(clf.classes_, names)
    labelled = y != -1
    assert clf.score(X[labelled], labels[labelled].astype(str)) > 0.8


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_one_sigmoid_unit_serves_two_classes(activation, few_labels, quick):
    X, y = few_labels
    y = np.where(y == -1, -1, y > 4)
    clf = two_stages(
        quick(cnn, model__units=1, model__activation=activation, epochs=30),
        pretrain_epochs=1,
        random_state=0,
    ).fit(X, y)
    probabilities = clf.predict_proba(X)
    assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    assert clf.score(X[y != -1], y[y != -1]) > 0.8


def test_minus_one_is_a_class_where_nothing_marks_unlabelled_rows():
    classes, rows, targets = encode_labels([-1, 1, -1], unlabeled_label=None)
    assert_array_equal(classes, [-1, 1])
    assert_array_equal(rows, [0, 1, 2])
    assert_array_equal(targets, [0, 1, 0])


def test_none_is_no_mark_where_nothing_marks_unlabelled_rows():
    with pytest.raises((TypeError, ValueError), match="y must hold labels|unknown"):
        encode_labels(["cat", None, "dog"], unlabeled_label=None)


def test_a_single_class_is_no_fault_of_the_mark_where_there_is_none():
    with pytest.raises(ValueError, match=r"1 class.* in 2 labelled of 2 rows\.$"):
        encode_labels([1, 1], unlabeled_label=None)


def test_labels_that_are_no_classes_are_refused_before_any_training():
    with pytest.raises(ValueError, match="continuous"):
        encode_labels([0.1, 0.2, -1, 0.3], unlabeled_label=-1)


def test_one_hot_losses_train(few_labels, quick):
    X, y = few_labels
    clf = two_stages(
        quick(epochs=30, loss="categorical_crossentropy"),
        pretrain_epochs=0,
        random_state=0,
    ).fit(X, y)
    assert clf.score(X[y != -1], y[y != -1]) > 0.8


def test_validation_split_holds_out_labelled_rows(few_labels, quick):
    clf = two_stages(
        quick(validation_split=0.2, epochs=3), pretrain_epochs=1, random_state=0
    ).fit(*few_labels)
    assert sorted(clf.finetune_history_) == [
        "accuracy",
        "loss",
        "val_accuracy",
        "val_loss",
    ]


def test_callbacks_act_in_fine_tuning(few_labels, quick):
    stopping = keras.callbacks.EarlyStopping("loss", min_delta=100, patience=1)
    clf = two_stages(
        quick(callbacks=[stopping], epochs=9), pretrain_epochs=3, random_state=0
    ).fit(*few_labels)
    assert len(clf.pretrain_history_["loss"]) == 3
    assert len(clf.finetune_history_["loss"]) == 2
    assert stopping.stopped_epoch == 1
    assert stopping.model is None  # so that the classifier can be pickled


def test_weight_zero_is_absence(digits, quick):
    X, y = digits
    weight = np.ones(len(X))
    weight[300:] = 0
    clf = two_stages(quick(), pretrain_epochs=1, random_state=0)
    expected = clf.fit(X[:300], y[:300], np.ones(300)).predict_proba(X)
    assert_array_equal(clf.fit(X, y, weight).predict_proba(X), expected)


def test_class_weight_shifts_the_predictions(digits, quick):
    X, y = digits
    clf = two_stages(quick(), pretrain_epochs=0, random_state=0)
    plain = (clf.fit(X, y).predict(X) == 3).mean()
    clf.set_params(class_weight={3: 50})
    assert (clf.fit(X, y).predict(X) == 3).mean() > plain + 0.1


def test_an_encoder_replaces_pretraining(few_labels, quick):
    X, y = few_labels
    encoder = SelfSupervisedEncoder(quick(), epochs=1, random_state=0).fit(X)
    before = encoder.transform(X)
    clf = two_stages(encoder=FrozenEstimator(encoder), random_state=0)
    clf = clone(clf).fit(X, y)
    assert_array_equal(clf.encoder_.transform(X), before)
    assert clf.pretrain_history_ == encoder.history_
    assert_array_equal(encoder.transform(X), before)
    assert clf.model_.get_layer("backbone").output_shape == (None, 16)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"pretrain_epochs": 9}, "so pretrain_epochs=9 has no effect"),
        ({"pretrain_batch_size": 8}, "so pretrain_batch_size=8 has no effect"),
        ({"memory": "cache"}, "so memory='cache' has no effect"),
        (
            {"pretrain_epochs": 1, "memory": "cache"},
            "so pretrain_epochs=1, memory='cache' has no effect: give it to the",
        ),
    ],
)
def test_what_has_no_effect_beside_an_encoder_is_said_before_training(
    params, message, fitted, few_labels, interrupted, recwarn
):
    X, y = few_labels
    clf = two_stages(encoder=FrozenEstimator(fitted.encoder_), random_state=0, **params)
    with (
        interrupted(),
        pytest.warns(UserWarning, match=message) as caught,
    ):
        clf.fit(X, y)
    assert [x.filename for x in caught] == [__file__]
    with interrupted():  # defaults are passed over without a word
        two_stages(encoder=fitted.encoder_, checkpoint_dir="c").fit(X, y)
    assert len(recwarn) == 0


def user_warnings(caught):
    """Return the warnings for the user, without those of Keras about NumPy."""
    return [x for x in caught if x.category is UserWarning]


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 16, 16)])
def test_channels_that_come_first_do_not_train_without_a_word(shape, quick):
    X = np.random.default_rng(0).normal(size=(20, *shape))
    y = np.arange(20) % 2
    half_turns = {"pretext": RotationPretext((0, 180))}
    advice = r"np\.moveaxis\(X, 1, -1\)"
    for params in ({"pretrain_epochs": 1}, {"pretrain_epochs": 0}):
        clf = two_stages(quick(), **params)
        with pytest.raises(ValueError, match=f"square images.*{advice}"):
            clf.fit(X, y)
        clf.set_params(**half_turns)
        with pytest.warns(UserWarning, match=advice) as caught:
            clf.fit(X, y)
        assert len(user_warnings(caught)) == 1
    encoder = SelfSupervisedEncoder(quick(), epochs=1, **half_turns)
    with pytest.warns(UserWarning, match=advice):
        encoder.fit(X)
    with pytest.raises(ValueError, match=rf"The encoder was fitted.*{advice}"):
        other = SelfSupervisedEncoder(quick(), epochs=1).fit(np.moveaxis(X, 1, -1))
        two_stages(encoder=other).fit(X, y)


def test_a_volume_does_not_pass_for_views_without_a_word(quick):
    X = np.random.default_rng(0).normal(size=(20, 6, 8, 8, 1))
    y = np.arange(20) % 2
    clf = two_stages(quick(), pretrain_epochs=1)
    message = r"read as 6 views of each image.*np\.moveaxis\(X, 1, 3\)\.reshape"
    with pytest.warns(UserWarning, match=message) as caught:
        clf.fit(X, y)
    (once,) = user_warnings(caught)
    assert once.filename == __file__
    clf.partial_fit(X, y).predict(X)
    with pytest.warns(UserWarning, match=message) as caught:
        clf.set_params(pretrain_epochs=0).fit(X, y)
    assert len(user_warnings(caught)) == 1


def test_views_from_a_pipeline_are_the_task(few_labels, quick):
    X, y = few_labels
    pipeline = make_pipeline(
        RotationPretext((0, 180)),
        two_stages(quick(epochs=30), pretrain_epochs=2, random_state=0),
    ).fit(X, y)
    assert pipeline.score(X[y != -1], y[y != -1]) > 0.8
    clf = pipeline[-1]
    assert clf.encoder_.pretext_.n_views == 2
    direct = two_stages(
        quick(epochs=30),
        pretext=RotationPretext((0, 180)),
        pretrain_epochs=2,
        random_state=0,
    ).fit(X, y)
    agreement = (direct.predict(X) == pipeline.predict(X)).mean()
    assert agreement == 1


def test_grid_search_reaches_every_part(digits, quick):
    X, y = digits[0][:200], digits[1][:200]
    search = GridSearchCV(
        two_stages(quick(epochs=20), pretext=RotationPretext(), random_state=0),
        {
            "pretext__angles": [(0, 180)],
            "pretrain_epochs": [0, 1],
            "frozen_layers": [0],
            "estimator__optimizer__learning_rate": [0.01],
        },
        cv=2,
        error_score="raise",
    ).fit(X, y)
    assert search.best_score_ > 0.5
    assert float(search.best_estimator_.estimator.optimizer__learning_rate) == 0.01


def test_cross_validation_stratifies(digits, quick):
    X, y = digits
    order = np.argsort(y)  # unstratified folds would lack classes
    scores = cross_val_score(
        two_stages(quick(epochs=10), pretrain_epochs=0, random_state=0),
        X[order],
        y[order],
        cv=3,
    )
    assert scores.min() > 0.5


def test_parameters_clone_and_repr(quick):
    clf = two_stages(quick(), pretext=RotationPretext((0, 180)))
    copied = clone(clf)
    assert copied.get_params()["pretext__angles"] == (0, 180)
    copied.set_params(estimator__epochs=7, pretext__angles=(0, 90))
    assert copied.estimator.epochs == 7
    assert clf.estimator.epochs == 2
    assert clf.pretext.angles == (0, 180)
    assert "pretext=RotationPretext(angles=(0, 180))" in repr(clf)
    assert "SelfSupervisedClassifier" in clf._repr_html_()


def test_verbose_shows_stage_and_progress_bar(few_labels, quick, capsys):
    two_stages(quick(), pretrain_epochs=1, random_state=0, verbose=1).fit(*few_labels)
    output = capsys.readouterr().out
    assert "Pretraining: RotationPretext on 600 images" in output
    assert "Fine-tuning on 100 labelled images" in output
    assert "Epoch 2/2" in output
    assert "━" in output


def test_silent_by_default(few_labels, quick, capsys):
    two_stages(quick(), pretrain_epochs=1).fit(*few_labels)
    assert capsys.readouterr().out == ""


IMAGES = np.random.default_rng(0).normal(size=(6, 8, 8))
LABELS = np.array([0, 1, 0, 1, -1, -1])


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.full((6, 8, 8), np.nan), LABELS, "NaN"),
        (np.full((6, 8, 8), np.inf), LABELS, "infinity"),
        (IMAGES[:0], LABELS[:0], "0 sample"),
        (IMAGES, LABELS[:5], "inconsistent numbers of samples"),
        (IMAGES, None, "requires y to be passed"),
        (IMAGES, np.full(6, -1), "0 class.* in 0 labelled.*unlabeled_label=None"),
        (IMAGES, np.where(LABELS == 1, -1, LABELS), "1 class.* in 2 labelled"),
        (IMAGES, np.linspace(0, 1, 6), "continuous"),
        (IMAGES[:, :7], LABELS, "need square images"),
    ],
)
def test_wrong_data_says_what_is_wrong(X, y, message):
    with pytest.raises(ValueError, match=message):
        two_stages().fit(X, y)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"frozen_layers": 99}, ValueError, "out of range"),
        ({"frozen_layers": "some"}, TypeError, "an int or 'all', got 'some'"),
        ({"frozen_layers": True}, TypeError, "an int or 'all', got True"),
        ({"unfreeze_epochs": -1}, ValueError, "unfreeze_epochs == -1"),
        ({"unfreeze_learning_rate": 0}, ValueError, "unfreeze_learning_rate == 0"),
        ({"pretrain_epochs": -1}, ValueError, "pretrain_epochs == -1"),
        ({"pretrain_batch_size": 0}, ValueError, "pretrain_batch_size == 0"),
        ({"pretext": RotationPretext}, TypeError, "must be a PretextTask"),
        ({"pretext": RotationPretext((0, 30))}, ValueError, "got 30"),
        ({"image_shape": (4, 4)}, ValueError, "does not match"),
        ({"estimator": "cnn"}, TypeError, "estimator must be"),
        ({"estimator": lambda: cnn(7)}, ValueError, "2 units.*has 7 units"),
        ({"encoder": 3}, TypeError, "fitted SelfSupervisedEncoder, got 3"),
        ({"encoder": SelfSupervisedEncoder()}, NotFittedError, "FrozenEstimator"),
        (
            {"encoder": SelfSupervisedEncoder(), "pretext": RotationPretext()},
            ValueError,
            "give one of them",
        ),
    ],
)
def test_wrong_parameters_say_what_is_wrong(params, error, message):
    with pytest.raises(error, match=message):
        two_stages(**params).fit(IMAGES, LABELS)


def test_an_encoder_must_fit_images_and_network(fitted):
    encoder = fitted.encoder_
    with pytest.raises(ValueError, match=r"images of shape \(8, 8, 1\), but X"):
        two_stages(encoder=encoder).fit(IMAGES[:, :7, :7], LABELS)
    with pytest.raises(ValueError, match="other layers"):
        two_stages(lambda: cnn(2), encoder=encoder).fit(IMAGES, LABELS)


def test_a_failed_fit_changes_nothing(fitted, few_labels):
    before = dict(vars(fitted))
    with pytest.raises(ValueError, match="two classes"):
        fitted.fit(IMAGES[:, :6, :6], np.full(6, -1))
    assert vars(fitted) == before


def test_another_shape_at_predict_is_refused(fitted):
    with pytest.raises(ValueError, match=r"\(9, 9, 1\).*fitted on .*\(8, 8, 1\)"):
        fitted.predict(np.zeros((2, 9, 9)))
    with pytest.raises(ValueError, match="81 features"):
        fitted.predict(np.zeros((2, 81)))


@pytest.mark.parametrize(
    "method",
    ["predict", "predict_proba", "transform", "predict_pretext", "score_pretext"],
)
def test_an_unfitted_classifier_says_so(method):
    with pytest.raises(NotFittedError):
        getattr(two_stages(), method)(IMAGES)


@pytest.mark.skipif("SKSSL_MNIST" not in os.environ, reason="SKSSL_MNIST names no file")
def test_the_tutorial_setting_on_mnist():
    from scikeras.wrappers import KerasClassifier

    with np.load(os.environ["SKSSL_MNIST"]) as data:
        X, y = data["x_train"][:1000], data["y_train"][:1000]
        X_test, y_test = data["x_test"], data["y_test"]
    clf = two_stages(
        KerasClassifier(build_cnn, optimizer="adam", batch_size=64, epochs=5)
    )
    rotations, digits = [], []
    for seed in range(3):
        clf.set_params(random_state=seed).fit(X, y)
        rotations.append(clf.score_pretext(X_test[:200]))
        digits.append(clf.score(X_test, y_test))
    assert np.mean(rotations) > 0.93
    assert np.mean(digits) > 0.915
