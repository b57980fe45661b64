import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits, make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    cross_val_predict,
    cross_validate,
    learning_curve,
)
from sklearn.semi_supervised import SelfTrainingClassifier

from skssl import SelfSupervisedClassifier, SemiSupervisedKFold
from skssl._data.labels import known_labels


@pytest.fixture(scope="module")
def semi():
    """Features, and labels of three classes, about two thirds of them unknown."""
    X, y = make_classification(
        150, 6, n_classes=3, n_informative=6, n_redundant=0, class_sep=2, random_state=0
    )
    known = np.random.default_rng(0).random(150) < 1 / 3
    return X, np.where(known, y, -1)


@pytest.fixture(scope="module")
def self_training():
    return SelfTrainingClassifier(LogisticRegression(), max_iter=2)


def labels_in_test(cv, X, y):
    """Return the labels that the folds of `cv` test on."""
    return {label for _, test in cv.split(X, y) for label in np.asarray(y)[test]}


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("shuffle", [False, True])
def test_folds_test_every_labelled_row_once_and_train_on_the_rest(seed, shuffle):
    rng = np.random.default_rng(seed)
    n_samples, n_splits = rng.integers(60, 200), int(rng.integers(2, 6))
    n_classes = rng.integers(2, 5)
    y = rng.integers(-1, n_classes, size=n_samples)
    y[: n_splits * n_classes] = np.tile(np.arange(n_classes), n_splits)
    rng.shuffle(y)
    cv = SemiSupervisedKFold(
        n_splits, shuffle=shuffle, random_state=seed if shuffle else None
    )
    folds = list(cv.split(np.empty((n_samples, 1)), y))
    assert len(folds) == cv.get_n_splits() == n_splits
    tested = np.concatenate([test for _, test in folds])
    assert_array_equal(np.sort(tested), np.flatnonzero(y != -1))
    for train, test in folds:
        for rows in (train, test):
            assert rows.dtype == np.int64
            assert (np.diff(rows) > 0).all()
        assert_array_equal(np.sort(np.append(train, test)), np.arange(n_samples))
        for label in range(n_classes):
            share = (y == label).sum() / n_splits
            assert abs((y[test] == label).sum() - share) < 1


def test_an_ordinary_splitter_tests_on_the_mark_and_ours_does_not(semi):
    X, y = semi
    assert labels_in_test(StratifiedKFold(), X, y) == {-1, 0, 1, 2}
    assert labels_in_test(SemiSupervisedKFold(), X, y) == {0, 1, 2}


def test_the_mark_spoils_ordinary_scores(semi, self_training):
    ordinary, ours = (
        cross_validate(self_training, *semi, cv=cv)["test_score"].mean()
        for cv in (StratifiedKFold(), SemiSupervisedKFold())
    )
    assert ordinary < (semi[1] != -1).mean()  # no better than the labelled share
    assert ours > 0.7


@pytest.mark.parametrize("shuffle", [False, True])
def test_without_unlabelled_rows_folds_are_those_of_stratified_k_fold(shuffle):
    params = {"n_splits": 3, "shuffle": shuffle, "random_state": 7 if shuffle else None}
    y = [-1, 0, 1] * 7
    X = np.zeros(len(y))
    ours = SemiSupervisedKFold(unlabeled_label=None, **params).split(X, y)
    for fold, expected in zip(ours, StratifiedKFold(**params).split(X, y), strict=True):
        for rows, expected_rows in zip(fold, expected, strict=True):
            assert_array_equal(rows, expected_rows)


@pytest.mark.parametrize(
    ("y", "mark"),
    [
        ([0, 1, -1] * 4, -1),
        (["cat", "dog", -1] * 4, -1),
        (("cat", "dog", "none") * 4, "none"),
        (("cat", "dog", -1) * 4, -1),
        (np.array(["cat", "dog", -1] * 4, dtype=object), -1),
        (np.array(["cat", "dog", "-1"] * 4), "-1"),
        (np.array([0.0, 1.0, -1.0] * 4), -1),
        ([False, True, -1] * 4, -1),
        (pd.Series(["cat", "dog", "none"] * 4, index=range(100, 112)), "none"),
        (pd.Series([0, 1, -1] * 4, dtype="Int64"), -1),
        (pd.Series(["cat", "dog", "none"] * 4, dtype="category"), "none"),
    ],
)
def test_labels_of_any_kind(y, mark):
    cv = SemiSupervisedKFold(2, unlabeled_label=mark)
    tests = [test.tolist() for _, test in cv.split(range(12), y)]
    assert tests == [[0, 1, 3, 4], [6, 7, 9, 10]]


@pytest.mark.parametrize(
    "X",
    [
        np.zeros((9, 2, 2, 1)),
        np.zeros((9, 4, 2, 2, 1)),
        pd.DataFrame({"a": range(9)}),
        [[0]] * 9,
        ["text"] * 9,
    ],
)
def test_samples_of_any_shape(X):
    cv = SemiSupervisedKFold(3)
    assert len(list(cv.split(X, [0, 1, -1] * 3))) == 3


def test_shuffled_folds_repeat_with_a_seed(semi):
    def tests(seed):
        cv = SemiSupervisedKFold(shuffle=True, random_state=seed)
        return [test.tolist() for _, test in cv.split(*semi)]

    assert tests(0) == tests(0)
    assert tests(0) != tests(1)


def test_repr_names_what_was_set():
    assert repr(SemiSupervisedKFold(3, unlabeled_label="none")) == (
        "SemiSupervisedKFold(n_splits=3, random_state=None, shuffle=False,\n"
        "          unlabeled_label='none')"
    )


def test_grid_search_and_its_clone_score_labelled_rows(semi, self_training):
    X, y = semi
    seen = set()

    def score(y_true, y_pred):
        seen.update(y_true)
        return accuracy_score(y_true, y_pred)

    cv = SemiSupervisedKFold(3, shuffle=True, random_state=0)
    search = GridSearchCV(
        self_training,
        {"estimator__C": [1e-4, 1.0]},
        cv=cv,
        scoring=make_scorer(score),
    )
    copied = clone(search)
    assert repr(copied.cv) == repr(cv)
    first = search.fit(X, y).best_score_
    assert copied.fit(X, y).best_score_ == first > 0.7
    assert seen == {0, 1, 2}
    assert search.n_splits_ == 3
    assert set(search.predict(X)) == {0, 1, 2}


def test_learning_curve(semi, self_training):
    sizes, _, scores = learning_curve(
        self_training,
        *semi,
        cv=SemiSupervisedKFold(4),
        train_sizes=[0.3, 1.0],
        shuffle=True,
        random_state=0,
    )
    assert scores.shape == (2, 4)
    n_tested = (semi[1] != -1).sum() / 4
    assert abs(sizes[-1] - (150 - n_tested)) < 1
    assert scores.mean() > 0.6


def test_self_supervised_classifier_is_scored_on_labelled_digits(tiny):
    X, y = load_digits(n_class=2, return_X_y=True)
    y = np.where(np.arange(60) % 3, -1, y[:60])
    classifier = SelfSupervisedClassifier(tiny, pretrain_epochs=1, random_state=0)
    scores = cross_validate(
        classifier, X[:60], y, cv=SemiSupervisedKFold(2), return_indices=True
    )
    assert np.isfinite(scores["test_score"]).all()
    for train, test in zip(*scores["indices"].values(), strict=True):
        assert (y[test] != -1).all()
        assert set(np.flatnonzero(y == -1)) < set(train)


def test_cross_val_predict_refuses_rows_that_are_never_tested(semi, self_training):
    with pytest.raises(ValueError, match="only works for partitions"):
        cross_val_predict(self_training, *semi, cv=SemiSupervisedKFold())


@pytest.mark.parametrize(
    ("n_splits", "y", "message"),
    [
        (2, None, "needs y to tell labelled rows from the others, got y=None"),
        (2, [-1] * 6, "at least 2 labelled rows, got 0 in 6 .*unlabeled_label=None"),
        (4, [0, 1, 1, -1, -1, -1], "at least 4 labelled rows, got 3 in 6 rows"),
        (4, [0, 0, 1, 1, 1, -1], "number of members in each class"),
        (2, [0.1, 0.2, 0.3, 0.4, -1, -1], "Supported target types .* 'continuous'"),
        (2, [0, 1, np.nan, 0, 1, -1], "y contains NaN"),
        (2, [0, 1, 0, 1, -1], "inconsistent numbers of samples"),
        (2, [[0, 1]] * 6, "1d array"),
    ],
)
def test_labels_that_make_no_folds(n_splits, y, message):
    with pytest.raises(ValueError, match=message):
        next(SemiSupervisedKFold(n_splits).split(np.zeros((6, 1)), y))


def test_one_labelled_row_a_fold_is_enough():
    cv = SemiSupervisedKFold(2)
    tests = [test.tolist() for _, test in cv.split([0] * 3, [0, -1, 0])]
    assert tests == [[0], [2]]


def test_too_few_rows_where_every_row_is_labelled():
    cv = SemiSupervisedKFold(3, unlabeled_label=None)
    with pytest.raises(
        ValueError, match=r"at least 3 labelled rows, got 2 in 2 rows.$"
    ):
        next(cv.split([0, 0], [-1, 1]))


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"n_splits": 1}, ValueError, "n_splits=2 or more"),
        ({"n_splits": 2.5}, ValueError, "must be of Integral type"),
        ({"shuffle": 1}, TypeError, "shuffle must be True or False"),
        ({"random_state": 0}, ValueError, "random_state has no effect"),
    ],
)
def test_parameters_are_checked_as_those_of_stratified_k_fold(params, error, message):
    with pytest.raises(error, match=message):
        SemiSupervisedKFold(**params)


def test_a_class_with_few_members_and_groups_warn():
    y = [0, 0, 1, 1, 1, 1, -1]
    with pytest.warns(UserWarning, match="only 2 members, which is less than n_spl"):
        list(SemiSupervisedKFold(3).split(np.zeros(7), y))
    with pytest.warns(UserWarning, match="groups .* ignored by SemiSup") as caught:
        list(SemiSupervisedKFold(2).split(np.zeros(7), y, groups=range(7)))
    assert caught[0].filename == __file__


@pytest.mark.parametrize("dtype", ["i1", "u2", "f4", "<U7", bool])
def test_labels_keep_their_dtype(dtype):
    y = np.array([1, 0, 1]).astype(dtype)
    assert known_labels(y, None)[1].dtype == dtype


def test_minus_one_in_a_list_of_strings_stays_the_mark():
    rows, labels = known_labels(["cat", -1, "dog"], -1)
    assert_array_equal(rows, [0, 2])
    assert_array_equal(labels, ["cat", "dog"])
    assert labels.dtype.kind == "U"
