import numpy as np
import pandas as pd
import pytest
from networks import two_stages
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_digits, make_classification
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    StratifiedShuffleSplit,
    cross_val_predict,
    cross_validate,
    learning_curve,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier

from skssl import (
    SemiSupervisedKFold,
    label_efficiency_curve,
)
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
    classifier = two_stages(tiny, pretrain_epochs=1, random_state=0)
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


class Noting(ClassifierMixin, BaseEstimator):
    """Notes what it is fitted on and tested on, the first feature and y of each."""

    noted = []

    def fit(self, X, y):
        self.classes_ = np.unique([label for label in y if label in (0, 1, 2)])
        self.noted.append([np.array(X)[:, 0], np.array(y)])
        return self

    def score(self, X, y):
        self.noted[-1] += [np.array(X)[:, 0], np.array(y)]
        return 0.5


class NotingAll(Noting):
    """Learns from unlabelled rows, too."""

    def __init__(self, unlabeled_label=-1):
        self.unlabeled_label = unlabeled_label


@pytest.fixture
def noted(monkeypatch):
    """Return a list that grows by the rows and labels of each fit and its test."""
    monkeypatch.setattr(Noting, "noted", [])
    return Noting.noted


@pytest.fixture
def numbered():
    """Rows that are their own index, and labels of three classes, a sixth unknown."""
    y = np.repeat([0, 1, 2, -1], [50, 35, 15, 20])
    np.random.default_rng(0).shuffle(y)
    return np.arange(120.0)[:, None], y


def test_each_number_of_labels_is_stratified_and_holds_the_smaller_ones(
    noted, numbered
):
    X, y = numbered
    curve = label_efficiency_curve(
        Noting(), X, y, n_labels=[20, 3, 80, 4], cv=5, random_state=0
    )
    assert_array_equal(curve.n_labels, [3, 4, 20, 80])
    assert len(noted) == 20
    for k, (rows, labels, _, _) in enumerate(noted):
        n = curve.n_labels[k % 4]
        assert_array_equal(labels, y[rows.astype(int)])
        counts = np.bincount(labels, minlength=3)
        assert len(rows) == n == counts.sum()
        assert counts.min() >= 1
        if n >= 20:
            assert (abs(counts - n * np.array([0.5, 0.35, 0.15])) <= 1.5).all()
        if k % 4:
            assert set(noted[k - 1][0]) < set(rows)


def test_all_rows_for_those_that_learn_from_unlabelled_ones(noted, numbered):
    X, y = numbered
    label_efficiency_curve(
        [("labelled", Noting()), ("all", NotingAll("none"))],
        X,
        y,
        n_labels=[10, 20],
        cv=2,
        random_state=0,
    )
    labelled, everything = noted[:4], noted[4:]
    for (known, y_known, test, y_test), (rows, labels, *others) in zip(
        labelled, everything, strict=True
    ):
        assert len(rows) == 120 - len(test)
        assert set(np.flatnonzero(y == -1)) <= set(rows)
        marked = labels == "none"
        assert_array_equal(rows[~marked], known)
        assert_array_equal(labels[~marked], y_known)
        assert_array_equal(others[0], test)
        assert_array_equal(others[1], y_test)
        assert_array_equal(y_test, y[test.astype(int)])
        assert (y_test != -1).all()


@pytest.mark.parametrize(
    ("wrap", "n_rows"),
    [
        (lambda: make_pipeline(StandardScaler(), NotingAll()), 70),
        (lambda: make_pipeline(StandardScaler(), Noting()), 30),
        (
            lambda: GridSearchCV(
                make_pipeline(NotingAll()), {}, cv=SemiSupervisedKFold(2)
            ),
            70,
        ),
        (lambda: GridSearchCV(Noting(), {}, cv=2), 30),
    ],
)
def test_the_last_step_and_the_estimator_of_a_search_decide(
    wrap, n_rows, noted, numbered
):
    label_efficiency_curve(wrap(), *numbered, n_labels=[30], cv=2)
    assert max(len(rows) for rows, *_ in noted) == n_rows


def test_with_all_labels_scores_are_those_of_cross_validation(semi, self_training):
    X, y = semi
    n_labelled = (y != -1).sum()
    cv = StratifiedShuffleSplit(3, test_size=0.25, random_state=0)
    (train, _), *_ = cv.split(np.zeros(n_labelled), y[y != -1])
    curve = label_efficiency_curve(
        GaussianNB(), X, y, n_labels=[len(train)], cv=cv, scoring="f1_macro"
    )
    expected = cross_validate(
        GaussianNB(), X[y != -1], y[y != -1], cv=cv, scoring="f1_macro"
    )
    assert_array_equal(curve.test_scores["GaussianNB"], [expected["test_score"]])

    ours = label_efficiency_curve(self_training, X, y, n_labels=[30], cv=5)
    assert ours.test_scores["SelfTrainingClassifier"].mean() > 0.7
    assert ours.fit_times["SelfTrainingClassifier"].shape == (1, 5)


@pytest.mark.parametrize(
    "names",
    [
        np.array(["ant", "bee", "cat"]),
        np.array(["ant", "bee", "cat"], dtype=object),
        np.array([0, 1, 2], dtype="u1"),
        np.array([0.0, 1.0, 2.0]),
    ],
)
@pytest.mark.parametrize("mark", [-1, np.nan])
def test_labels_and_marks_of_any_kind(names, mark, semi, self_training):
    X, y = semi
    labels = [mark if label == -1 else names[label] for label in y.tolist()]
    curve = label_efficiency_curve(
        {"all": self_training, "labelled": GaussianNB()},
        X,
        labels,
        n_labels=[15],
        unlabeled_label=mark,
        cv=2,
        random_state=0,
        error_score="raise",
    )
    expected = label_efficiency_curve(
        {"all": self_training, "labelled": GaussianNB()},
        X,
        y,
        n_labels=[15],
        cv=2,
        random_state=0,
    )
    for name, scores in curve.test_scores.items():
        assert_array_equal(scores, expected.test_scores[name])


def test_booleans_are_labels(semi):
    X, y = semi
    curve = label_efficiency_curve(
        LabelSpreading(gamma=0.1), X[y != -1], y[y != -1] > 0, n_labels=[20], cv=2
    )
    assert curve.test_scores["LabelSpreading"].mean() > 0.6


def test_a_curve_repeats_with_a_seed_and_in_processes(semi, self_training):
    estimators = {"all": self_training, "labelled": GaussianNB()}

    def scores(seed, n_jobs=None):
        curve = label_efficiency_curve(
            estimators, *semi, n_labels=[6, 12], cv=3, random_state=seed, n_jobs=n_jobs
        )
        return np.stack(list(curve.test_scores.values()))

    serial = scores(0)
    assert serial.shape == (2, 2, 3)
    assert_array_equal(scores(0, n_jobs=2), serial)
    assert (scores(1) != serial).any()


def test_pretraining_runs_once_a_fold(tiny, digits, trainings):
    X, y = digits
    classifier = two_stages(tiny, pretrain_epochs=1)
    pipeline = make_pipeline(classifier)
    curve = label_efficiency_curve(
        pipeline, X[:80], y[:80] % 2, n_labels=[4, 8, 16], cv=2, random_state=0
    )
    assert curve.test_scores["Pipeline"].shape == (3, 2)
    assert len(trainings) == 2 * (1 + 3)
    assert classifier.memory is classifier.random_state is None


class Pretrained(NotingAll):
    """Has the parameters of an estimator that pretrains, and notes them in fit."""

    def __init__(self, pretrain_epochs=1, memory=None, encoder=None, random_state=None):
        super().__init__()
        self.pretrain_epochs = pretrain_epochs
        self.memory = memory
        self.encoder = encoder
        self.random_state = random_state

    def fit(self, X, y):
        super().fit(X, y)
        self.noted[-1].append(self.get_params())
        return self


def test_only_missing_memory_and_seeds_are_set(noted, numbered):
    def params(**given):
        label_efficiency_curve(Pretrained(**given), *numbered, n_labels=[9], cv=2)
        return noted[-1][2]

    seeded = params(random_state=3)
    assert seeded["random_state"] == 3
    assert isinstance(seeded["memory"], str)
    unseeded = params(random_state=np.random.RandomState(0))
    assert isinstance(unseeded["random_state"], int)
    assert params(memory="mine")["memory"] == "mine"
    assert params(encoder="fitted")["memory"] is None


class Failing(GaussianNB):
    """Fails to learn from few rows."""

    def fit(self, X, y):
        if len(X) < 10:
            raise RuntimeError("too few rows")
        return super().fit(X, y)


def test_fits_that_fail_get_the_error_score(semi):
    with pytest.warns(FitFailedWarning, match="(?s)set to -7: 2 of 4.*few") as caught:
        curve = label_efficiency_curve(
            Failing(), *semi, n_labels=[5, 10], cv=2, error_score=-7
        )
    assert caught[0].filename == __file__
    assert_array_equal(curve.test_scores["Failing"] == -7, [[True] * 2, [False] * 2])
    assert_array_equal(np.isnan(curve.fit_times["Failing"]), [[True] * 2, [False] * 2])
    with pytest.raises(RuntimeError, match="too few rows"):
        label_efficiency_curve(
            Failing(), *semi, n_labels=[5, 10], cv=2, error_score="raise"
        )
    with pytest.raises(ValueError, match="(?s)2 of 2 fits failed.*too few rows"):
        label_efficiency_curve(Failing(), *semi, n_labels=[5], cv=2)


@pytest.mark.parametrize(
    ("estimators", "params", "error", "message"),
    [
        (
            GaussianNB(),
            {"n_labels": [2]},
            ValueError,
            r"from 3, .* to \d+, .*\[2\]",
        ),
        (GaussianNB(), {"n_labels": [9, 999]}, ValueError, r"got \[9, 999\]\."),
        (GaussianNB(), {"n_labels": [0.5]}, TypeError, r"n_labels must .*\[0\.5\]"),
        (GaussianNB(), {"n_labels": []}, TypeError, "n_labels must hold numbers"),
        (GaussianNB(), {"scoring": ["f1"]}, TypeError, "scoring must .* once for each"),
        (GaussianNB(), {"error_score": "no"}, ValueError, "error_score must .* 'no'"),
        ("GaussianNB", {}, TypeError, "estimators must be a .* got 'GaussianNB'"),
        ([GaussianNB()], {}, TypeError, "estimators must be a classifier, or a dict"),
        ({}, {}, TypeError, "estimators must be a classifier, or a dict"),
        ({"a": 3}, {}, TypeError, "estimators must be a classifier, or a dict"),
        ([("a", GaussianNB())] * 2, {}, TypeError, "names that differ"),
        (NotingAll(2), {}, ValueError, r"NotingAll marks .* by 2, .*\[0, 1, 2\]"),
        (NotingAll(None), {}, ValueError, "by None, .* Set its unlabeled_label"),
    ],
)
def test_what_makes_no_curve(estimators, params, error, message, semi):
    with pytest.raises(error, match=message):
        label_efficiency_curve(estimators, *semi, **{"n_labels": [10], **params})


def test_labels_of_one_class_make_no_curve():
    with pytest.raises(ValueError, match="at least two classes .* got 1"):
        label_efficiency_curve(GaussianNB(), np.zeros((3, 1)), [0, 0, -1])
