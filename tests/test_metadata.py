import numpy as np
import pytest
from networks import two_stages
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.class_weight import compute_sample_weight

N_TRAIN = 120
# Of the last rows, those that have a label.
TESTED = np.array([row for row in range(90, N_TRAIN) if row % 3 != 2])


@pytest.fixture(scope="module")
def train(digits):
    """Flat rows, a third of them without a label."""
    X, y = digits
    y = np.where(np.arange(N_TRAIN) % 3 == 2, -1, y[:N_TRAIN])
    return X[:N_TRAIN].reshape(N_TRAIN, -1), y


@pytest.fixture(scope="module")
def weights():
    return np.random.default_rng(0).integers(1, 5, size=N_TRAIN)


@pytest.fixture(scope="module")
def unfitted(quick):
    return two_stages(quick(), pretrain_epochs=0, random_state=0)


@pytest.fixture(scope="module")
def pretraining(unfitted):
    return clone(unfitted).set_params(pretrain_epochs=1)


@pytest.fixture(scope="module")
def predict(unfitted, train):
    """Return a function from weights and parameters to the probabilities they give."""

    def fit_and_predict(sample_weight=None, **params):
        clf = clone(unfitted).set_params(**params).fit(*train, sample_weight)
        return clf.predict_proba(train[0])

    return fit_and_predict


@pytest.fixture(scope="module")
def plain(predict):
    return predict()


@pytest.fixture(scope="module")
def weighted(predict, weights):
    return predict(weights)


def test_a_weight_is_a_number_of_rows(pretraining, train, weights, plain, weighted):
    X, y = train
    rows = np.random.default_rng(1).permutation(np.arange(N_TRAIN).repeat(weights))
    repeated = clone(pretraining).fit(X[rows], y[rows])
    once = clone(pretraining).fit(X, y, weights)
    assert_allclose(repeated.predict_proba(X), once.predict_proba(X), atol=1e-6)
    assert repeated.pretrain_history_ == once.pretrain_history_
    assert np.abs(weighted - plain).max() > 0.01


def test_repeated_images_leave_the_statistics_alone(unfitted, train):
    X, y = train
    rows = np.repeat(np.arange(N_TRAIN), np.where(X.mean(axis=1) > 5, 9, 1))
    models = [clone(unfitted).fit(X[k], y[k]).model_ for k in (rows, slice(None))]
    repeated, once = (x.get_layer("backbone").get_weights()[:2] for x in models)
    assert_allclose(repeated, once, rtol=1e-6)


def test_a_weight_pulls_towards_its_rows(unfitted, train, plain):
    X, y = train
    clf = clone(unfitted).fit(X, y, np.where(y == 3, 50, 1))
    assert (clf.predict(X) == 3).mean() > (plain.argmax(axis=1) == 3).mean() + 0.1


def test_weight_zero_is_absence(pretraining, train):
    X, y = train
    kept = (y != 9) & (np.arange(N_TRAIN) % 5 != 0)
    X_junk = np.where(kept[:, None], X, 1000 * X + 7)
    present = clone(pretraining).fit(X[kept], y[kept])
    zeroed = clone(pretraining).fit(X_junk, y, kept.astype(float))
    assert_array_equal(zeroed.classes_, np.arange(9))
    assert_array_equal(zeroed.predict_proba(X), present.predict_proba(X))
    assert zeroed.pretrain_history_ == present.pretrain_history_


@pytest.mark.parametrize("scale", [1e-3, 1000])
def test_the_scale_of_all_weights_does_not_matter(scale, predict, weights, weighted):
    assert_allclose(predict(scale * weights), weighted, atol=1e-4)


def test_equal_weights_are_no_weights(predict, plain):
    assert_array_equal(predict(np.full(N_TRAIN, 2.5)), plain)


@pytest.mark.parametrize("class_weight", ["balanced", {3: 20, 5: 0.5}])
def test_class_weight_is_the_sample_weight_that_it_stands_for(
    class_weight, predict, train, plain
):
    X, y = train
    # The unlabelled rows are no class: they do not count for the balance.
    labelled = y != -1
    equivalent = np.ones(N_TRAIN)
    equivalent[labelled] = compute_sample_weight(class_weight, y[labelled])
    expected = predict(equivalent)
    assert np.abs(expected - plain).max() > 0.01
    assert_allclose(predict(class_weight=class_weight), expected, atol=1e-6)
    by_wrapper = predict(estimator__class_weight=class_weight)
    assert_allclose(by_wrapper, expected, atol=1e-6)


def test_class_weight_and_sample_weight_multiply(predict, train, weights):
    class_weight = {3: 20, 5: 0.5}
    product = weights * compute_sample_weight(class_weight, train[1])
    both = predict(weights, class_weight=class_weight)
    assert_allclose(both, predict(product), atol=1e-6)


def test_partial_fit_takes_weights(unfitted, train, weights):
    X, y = train
    kept = np.arange(N_TRAIN) < 100
    clf = [clone(unfitted).fit(X, y) for _ in range(2)]
    clf[0].partial_fit(X, y, sample_weight=weights * kept)
    rows = np.flatnonzero(kept).repeat(weights[kept])
    clf[1].partial_fit(X[rows], y[rows])
    assert_allclose(clf[0].predict_proba(X), clf[1].predict_proba(X), atol=1e-6)


@pytest.mark.parametrize(
    ("sample_weight", "message"),
    [
        (np.ones(N_TRAIN - 1), "shape"),
        (np.full(N_TRAIN, -1.0), "(?i)negative"),
        (np.full(N_TRAIN, np.nan), "NaN"),
        (np.zeros(N_TRAIN), "above zero|non-zero"),  # ours or scikit-learn's own
    ],
)
def test_wrong_weights_are_refused(sample_weight, message, unfitted, train):
    with pytest.raises(ValueError, match=message):
        clone(unfitted).fit(*train, sample_weight)


# Through meta-estimators


def pipeline(clf):
    # The scale of the pixels does not matter, so results are those without it.
    return Pipeline([("scale", MinMaxScaler((0, 16))), ("clf", clf)])


def grid_search(clf):
    split = [(np.arange(90), TESTED)]
    return GridSearchCV(clf, {"frozen_layers": [0]}, cv=split, error_score="raise")


@pytest.fixture(scope="module")
def weighted_by_hand(unfitted, train, weights):
    """Return probabilities after scaling, and the score of the split, with weights."""
    X, y = train
    scaled = MinMaxScaler((0, 16)).fit_transform(X)
    probabilities = clone(unfitted).fit(scaled, y, weights).predict_proba(scaled)
    clf = clone(unfitted).fit(X[:90], y[:90], weights[:90])
    return probabilities, clf.score(X[TESTED], y[TESTED], weights[TESTED])


def test_weights_reach_a_step_of_a_pipeline(unfitted, train, weights, weighted_by_hand):
    X, y = train
    piped = pipeline(clone(unfitted)).fit(X, y, clf__sample_weight=weights)
    assert_allclose(piped.predict_proba(X), weighted_by_hand[0], atol=1e-6)


def test_weights_are_routed_through_a_pipeline(
    unfitted, train, weights, weighted_by_hand
):
    X, y = train
    with config_context(enable_metadata_routing=True):
        with pytest.raises(UnsetMetadataPassedError, match="set_fit_request"):
            pipeline(clone(unfitted)).fit(X, y, sample_weight=weights)
        clf = clone(unfitted).set_fit_request(sample_weight=True)
        piped = pipeline(clf).fit(X, y, sample_weight=weights)
        assert_allclose(piped.predict_proba(X), weighted_by_hand[0], atol=1e-6)


def test_weights_reach_a_grid_search(unfitted, train, weights, weighted):
    X, y = train
    search = grid_search(clone(unfitted)).fit(X, y, sample_weight=weights)
    assert_allclose(search.predict_proba(X), weighted, atol=1e-6)


def test_weights_are_routed_through_a_grid_search(
    unfitted, train, weights, weighted, weighted_by_hand
):
    X, y = train
    with config_context(enable_metadata_routing=True):
        clf = clone(unfitted).set_fit_request(sample_weight=True)
        clf.set_score_request(sample_weight=True)
        search = grid_search(clf).fit(X, y, sample_weight=weights)
    assert_allclose(search.predict_proba(X), weighted, atol=1e-6)
    assert search.best_score_ == pytest.approx(weighted_by_hand[1])


def test_weights_requested_by_score_alone_stay_out_of_fit(
    unfitted, train, weights, plain
):
    X, y = train
    with config_context(enable_metadata_routing=True):
        clf = clone(unfitted).set_fit_request(sample_weight=False)
        clf.set_score_request(sample_weight=True)
        search = grid_search(clf).fit(X, y, sample_weight=weights)
    assert_array_equal(search.predict_proba(X), plain)
    clf = clone(unfitted).fit(X[:90], y[:90])
    expected = clf.score(X[TESTED], y[TESTED], weights[TESTED])
    assert search.best_score_ == pytest.approx(expected)
    assert clf.score(X[TESTED], y[TESTED]) != pytest.approx(expected)
