import re
from pathlib import Path

import keras
import numpy as np
import pytest
from networks import two_stages
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import uniform
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import ConfusionMatrixDisplay, log_loss, roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier

from skssl import (
    RotationPretext,
    SelfSupervisedClassifier,
    SelfSupervisedEncoder,
    SemiSupervisedKFold,
)

N_TRAIN = 240
GOOD = 0.6  # accuracy; chance is 0.1


@pytest.fixture(scope="module")
def flat(digits):
    """Flat rows, as most meta-estimators want them."""
    X, y = digits
    return X.reshape(len(X), -1), y


# Rows by turns, because neighbours come from the same writer.
@pytest.fixture(scope="module")
def train(flat):
    return flat[0][: 2 * N_TRAIN : 2], flat[1][: 2 * N_TRAIN : 2]


@pytest.fixture(scope="module")
def test(flat):
    return flat[0][1:400:2], flat[1][1:400:2]


@pytest.fixture(scope="module")
def make(quick):
    """Return a function that makes an unfitted classifier, without pretraining."""

    def unfitted(epochs=20, **params):
        params = {"pretrain_epochs": 0, "random_state": 0, **params}
        return two_stages(quick(epochs=epochs), **params)

    return unfitted


@pytest.fixture(scope="module")
def fitted(make, train):
    return make().fit(*train)


@pytest.fixture(scope="module")
def encoder(flat, quick):
    network = quick(model__filters=(8,), model__dense_units=64)
    optimizer = keras.optimizers.Adam(0.01)
    return SelfSupervisedEncoder(
        network, epochs=3, optimizer=optimizer, random_state=0
    ).fit(flat[0])


# Pipelines


def test_scalers_before_it(make, fitted, train, test):
    pipeline = make_pipeline(MinMaxScaler(), StandardScaler(), make()).fit(*train)
    assert pipeline.score(*test) > GOOD
    assert_array_equal(pipeline.classes_, fitted.classes_)
    assert pipeline[-1].image_shape_ == (8, 8, 1)
    assert pipeline[:-1].transform(test[0]).min() < 0  # they did scale


def test_views_before_it(make, train, test):
    X, X_test = (flat.reshape(-1, 8, 8) for flat in (train[0], test[0]))
    optimizer = keras.optimizers.Adam(0.01)
    pretrained = {"pretrain_epochs": 3, "pretrain_optimizer": optimizer}
    pipeline = make_pipeline(RotationPretext((0, 90)), make(**pretrained))
    results = cross_validate(pipeline, X, train[1], cv=2, return_estimator=True)
    assert results["test_score"].min() > GOOD
    for fold in results["estimator"]:
        assert fold[-1].encoder_.pretext_.n_views == 2
        views = fold[:-1].transform(X_test)
        assert fold[-1].score_pretext(views) > 0.6  # chance is 0.5


def test_embeddings_for_another_classifier(train, test):
    pipeline = make_pipeline(
        SelfSupervisedEncoder(epochs=2, random_state=0),
        LogisticRegression(max_iter=1000),
    ).fit(*train)
    assert pipeline.score(*test) > GOOD
    assert pipeline[-1].n_features_in_ == 128


def test_a_frozen_encoder_in_a_pipeline(encoder, train, test):
    before = encoder.transform(test[0])
    pipeline = make_pipeline(
        FrozenEstimator(encoder), StandardScaler(), LogisticRegression(max_iter=1000)
    )
    assert cross_val_score(pipeline, *train, cv=3).min() > GOOD
    assert pipeline.fit(*train).score(*test) > GOOD
    assert_array_equal(pipeline[0].transform(test[0]), before)


def test_a_frozen_encoder_to_start_from(encoder, train):
    before = encoder.transform(train[0])
    clf = two_stages(
        clone(encoder.estimator).set_params(epochs=20),
        encoder=FrozenEstimator(encoder),
        frozen_layers="all",
        random_state=0,
    )
    results = cross_validate(clf, *train, cv=2, return_estimator=True)
    assert results["test_score"].min() > 0.4  # a linear probe
    for fold in results["estimator"]:
        assert fold.encoder_ is encoder
        assert_array_equal(fold.transform(train[0]), before)


# Searches


def test_a_grid_of_pretext_tasks(make, train, test):
    pretexts = [RotationPretext((0, 180)), RotationPretext()]
    search = GridSearchCV(
        make(),
        {"pretext": pretexts, "pretrain_epochs": [1]},
        cv=2,
        error_score="raise",
    ).fit(*train)
    assert search.score(*test) > GOOD
    assert search.best_params_["pretext"] in pretexts
    assert search.best_estimator_.encoder_.pretext_.angles == (
        search.best_params_["pretext"].angles
    )
    first, second = search.cv_results_["mean_test_score"]
    assert first != second  # the task makes a difference
    assert search.best_score_ == max(first, second)


def test_halving_gives_epochs_to_the_best(make, train, test):
    search = HalvingGridSearchCV(
        make(),
        {"estimator__optimizer__learning_rate": [1e-5, 0.01]},
        resource="estimator__epochs",
        min_resources=8,
        max_resources=16,
        factor=2,
        cv=2,
        error_score="raise",
    ).fit(*train)
    assert search.n_resources_ == [8, 16]
    assert search.best_params_["estimator__optimizer__learning_rate"] == 0.01
    assert len(search.best_estimator_.finetune_history_["loss"]) == 16
    assert search.score(*test) > GOOD


# Where memory is short, joblib starts its workers anew.
@pytest.mark.filterwarnings("ignore:A worker stopped while some jobs were given")
def test_a_random_search_in_two_processes(make, train, test):
    search = RandomizedSearchCV(
        make(epochs=8),
        {"estimator__optimizer__learning_rate": uniform(0.005, 0.02)},
        n_iter=2,
        cv=2,
        n_jobs=2,
        random_state=0,
        error_score="raise",
    ).fit(*train)
    alone = clone(search).set_params(n_jobs=None).fit(*train)
    assert search.best_params_ == alone.best_params_
    assert_allclose(
        search.cv_results_["mean_test_score"],
        alone.cv_results_["mean_test_score"],
        atol=0.02,  # the number of threads is another
    )
    assert search.score(*test) > GOOD - 0.1


# Cross-validation


def test_predictions_of_all_folds(make, train):
    X, y = train
    probabilities = cross_val_predict(make(), X, y, cv=3, method="predict_proba")
    assert probabilities.shape == (N_TRAIN, 10)
    assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert (probabilities.argmax(axis=1) == y).mean() > GOOD


def test_several_metrics_and_the_estimators(make, train, test):
    scoring = ["accuracy", "neg_log_loss", "roc_auc_ovr"]
    results = cross_validate(
        make(), *train, cv=2, scoring=scoring, return_estimator=True
    )
    assert results["test_accuracy"].min() > GOOD
    assert results["test_neg_log_loss"].min() > -np.log(10)
    assert results["test_roc_auc_ovr"].min() > 0.9
    first, second = results["estimator"]
    assert min(first.score(*test), second.score(*test)) > GOOD
    assert np.abs(first.transform(test[0]) - second.transform(test[0])).max() > 0.01


def test_folds_are_stratified(make, train):
    X, y = train
    order = np.argsort(y)  # plain folds would lack classes in training
    results = cross_validate(
        make(epochs=1), X[order], y[order], cv=3, return_estimator=True
    )
    for fold in results["estimator"]:
        assert_array_equal(fold.classes_, np.arange(10))


def test_unlabelled_rows_stay_in_training(make, train):
    X, y = train
    y = np.where(np.arange(N_TRAIN) < 100, y, -1)
    scores = cross_val_score(
        make(pretrain_epochs=1), X, y, cv=SemiSupervisedKFold(2), error_score="raise"
    )
    assert scores.min() > 0.4


def test_more_rows_are_better(make, train):
    sizes, _, scores = learning_curve(
        make(), *train, cv=2, train_sizes=[0.3, 1.0], shuffle=True, random_state=0
    )
    assert_array_equal(sizes, [36, 120])
    assert scores[1].mean() > scores[0].mean() + 0.05


# Meta-estimators


def test_calibration(make, fitted, train, test):
    X, y = test
    folds = CalibratedClassifierCV(make(), cv=2).fit(*train)
    assert folds.score(X, y) > GOOD
    assert len(folds.calibrated_classifiers_) == 2
    frozen = CalibratedClassifierCV(FrozenEstimator(fitted)).fit(X[:100], y[:100])
    probabilities = frozen.predict_proba(X[100:])
    assert_allclose(probabilities.sum(axis=1), 1)
    assert log_loss(y[100:], probabilities) < np.log(10) - 1
    assert roc_auc_score(y[100:], probabilities, multi_class="ovr") > 0.9


def test_voting(make, fitted, train, test):
    linear = LogisticRegression(max_iter=1000)
    vote = VotingClassifier([("cnn", make()), ("linear", linear)], voting="soft")
    vote.fit(*train)
    assert vote.score(*test) > 0.8
    cnn, linear = (x.predict_proba(test[0]) for x in vote.estimators_)
    assert_allclose(cnn, fitted.predict_proba(test[0]), atol=1e-6)
    assert_allclose(vote.predict_proba(test[0]), (cnn + linear) / 2)


def guide_block(text):
    """Return the code block of the guide's page that contains some text."""
    page = Path(__file__).parents[1] / "docs" / "guide" / "from_scikit_learn.md"
    found = re.findall("```python\n(.*?)```", page.read_text(), re.S)
    (block,) = (x for x in found if text in x)
    return block


def test_few_labels_in_meta_estimators_as_the_guide_has_it(train, test):
    X, y = train
    names = {"X": X, "y": y, "SelfSupervisedClassifier": SelfSupervisedClassifier}
    exec(guide_block("FrozenEstimator(encoder)"), names)
    clf, labelled, y_few = (names[x] for x in ("clf", "labelled", "y_few"))
    linear = LogisticRegression(max_iter=1000)
    vote = VotingClassifier([("cnn", clf), ("linear", linear)], voting="soft")
    bag = BaggingClassifier(clf, n_estimators=1, random_state=0)
    others = [x.fit(X[labelled], y_few[labelled]) for x in (vote, bag)]
    for meta in [names["calibrated"], *others]:
        assert_array_equal(meta.classes_, np.arange(10))
        assert meta.score(*test) > 0.8
    encoders = [
        *(x.estimator.encoder_ for x in names["calibrated"].calibrated_classifiers_),
        vote.named_estimators_["cnn"].encoder_,
        *(x.encoder_ for x in bag.estimators_),
    ]
    assert len(encoders) == 5
    assert all(x is names["encoder"] for x in encoders)  # none was pretrained anew


def test_stacking(make, train, test):
    stack = StackingClassifier(
        [("cnn", make())], LogisticRegression(max_iter=1000), cv=2
    ).fit(*train)
    assert stack.score(*test) > GOOD
    assert stack.final_estimator_.n_features_in_ == 10
    assert_array_equal(
        stack.transform(test[0]), stack.estimators_[0].predict_proba(test[0])
    )


def test_bagging(make, train, test):
    bag = BaggingClassifier(make(), n_estimators=2, random_state=0).fit(*train)
    assert bag.score(*test) > GOOD
    first, second = (x.predict_proba(test[0]) for x in bag.estimators_)
    assert np.abs(first - second).max() > 0.01  # of other rows, with another seed
    assert_allclose(bag.predict_proba(test[0]), (first + second) / 2, atol=1e-6)


def test_one_class_against_the_rest(make, train, test):
    (X, y), (X_test, y_test) = ((X[y < 3], y[y < 3]) for X, y in (train, test))
    ovr = OneVsRestClassifier(make()).fit(X, y)
    assert ovr.score(X_test, y_test) > 0.8
    assert len(ovr.estimators_) == 3
    assert_array_equal(ovr.estimators_[0].classes_, [0, 1])


def test_self_training(make, train, test):
    X, y = train
    y = np.where(np.arange(N_TRAIN) < 100, y, -1)
    clf = SelfTrainingClassifier(make(), threshold=0.9, max_iter=1).fit(X, y)
    assert clf.score(*test) > GOOD
    added = clf.labeled_iter_ == 1
    assert added[100:].any()
    assert not added[:100].any()
    assert (clf.transduction_[added] == train[1][added]).mean() > GOOD
    assert_array_equal(clf.classes_, np.arange(10))


# Inspection


def test_importance_of_pixels(fitted, test):
    X, y = test
    result = permutation_importance(fitted, X, y, n_repeats=2, random_state=0)
    assert result.importances.shape == (64, 2)
    constant = np.ptp(X, axis=0) == 0
    assert constant.any()
    assert_array_equal(result.importances[constant], 0)
    centre = result.importances_mean.reshape(8, 8)[1:7, 2:6]
    assert centre.max() == result.importances_mean.max() > 0.02


def test_a_confusion_matrix(fitted, test):
    import matplotlib.pyplot as plt

    display = ConfusionMatrixDisplay.from_estimator(fitted, *test)
    plt.close(display.figure_)
    matrix = display.confusion_matrix
    assert_array_equal(display.display_labels, fitted.classes_)
    assert matrix.sum() == len(test[1])
    assert np.trace(matrix) / matrix.sum() == pytest.approx(fitted.score(*test))
    assert fitted.score(*test) > GOOD
