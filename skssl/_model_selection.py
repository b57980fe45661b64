"""SemiSupervisedKFold and label_efficiency_curve: scores where labels are few."""

import tempfile
import traceback
import warnings
from numbers import Integral, Real

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import (
    StratifiedKFold,
    check_cv,
    cross_validate,
)
from sklearn.pipeline import Pipeline
from sklearn.utils import Bunch, check_random_state, indexable
from sklearn.utils.parallel import Parallel, delayed

from ._data.labels import encode_labels, known_labels, unlabelled_hint
from ._docs import fill_docstrings


@fill_docstrings
class SemiSupervisedKFold(StratifiedKFold):
    """Stratified folds of the labelled rows, with every unlabelled row in training.

    Other splitters treat the mark of unlabelled rows as a class: they put some of these
    rows into the test fold, where every prediction for them counts as wrong, instead of
    training on them. Here a test fold holds labelled rows only, stratified by class.
    The training fold holds all other labelled rows and every unlabelled one.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    {unlabeled_label}
    shuffle : bool, default=False
        Whether to shuffle the labelled rows of each class before they are distributed
        among the folds. The indices of each fold are sorted in any case.
    random_state : int, RandomState instance or None, default=None
        Seeds the shuffling; has to be None where `shuffle` is False.

    See Also
    --------
    SelfSupervisedClassifier : Learns from labelled and unlabelled images.
    label_efficiency_curve : Scores by number of labels, with such folds.
    sklearn.model_selection.StratifiedKFold : Makes the folds of the labelled rows.
    sklearn.semi_supervised.SelfTrainingClassifier : Takes -1 for unlabelled, too.

    Notes
    -----
    Training folds hold unlabelled rows, so training scores
    (``return_train_score=True``, those of ``learning_curve``) count these as wrong.
    ``learning_curve`` takes the first rows of a training fold, labelled or not;
    ``shuffle=True`` there mixes them. ``cross_val_predict`` needs a prediction for
    every row and therefore refuses this splitter.

    Examples
    --------
    >>> import numpy as np
    >>> from skssl import SemiSupervisedKFold
    >>> X = np.zeros((8, 2))
    >>> y = np.array([0, 1, -1, 0, -1, 1, -1, -1])  # -1: no label
    >>> cv = SemiSupervisedKFold(n_splits=2)
    >>> for train, test in cv.split(X, y):
    ...     print("train", train, "test", test)
    train [2 3 4 5 6 7] test [0 1]
    train [0 1 2 4 6 7] test [3 5]
    """

    def __init__(
        self, n_splits=5, *, unlabeled_label=-1, shuffle=False, random_state=None
    ):
        super().__init__(n_splits=n_splits, shuffle=shuffle, random_state=random_state)
        self.unlabeled_label = unlabeled_label

    def split(self, X, y, groups=None):
        """Generate the indices of training and test rows of each fold.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples of any kind; only their number matters.
        y : array-like of shape (n_samples,)
            Labels; rows marked by `unlabeled_label` are in every training fold.
        groups : array-like of shape (n_samples,), default=None
            Ignored, as in `StratifiedKFold`; here for compatibility.

        Yields
        ------
        train : ndarray of shape (n_train,), int64
            Rows to train on, ascending.
        test : ndarray of shape (n_test,), int64
            Labelled rows to test on, ascending.

        Raises
        ------
        ValueError
            If y is None or differs from X in length, if fewer than `n_splits` rows are
            labelled, if no class has `n_splits` members, if y does not hold classes, or
            if a label is missing or looks like the mark without being it.
        TypeError
            If labels are bytes, or text beside other objects.
        """
        if y is None:
            raise ValueError(
                f"{type(self).__name__} needs y to tell labelled rows from the others, "
                "got y=None. KFold splits without y."
            )
        if groups is not None:
            warnings.warn(
                f"The groups parameter is ignored by {type(self).__name__}",
                UserWarning,
                stacklevel=2,
            )
        X, y, groups = indexable(X, y, groups)
        rows, labels = known_labels(y, self.unlabeled_label)
        n_samples = len(y)
        if len(rows) < self.n_splits:
            raise ValueError(
                f"n_splits={self.n_splits} needs at least {self.n_splits} labelled "
                f"rows, got {len(rows)} in {n_samples} rows."
                f"{unlabelled_hint(self.unlabeled_label)}"
            )
        for _, test in super().split(labels, labels):
            yield np.delete(np.arange(n_samples), rows[test]), rows[test]


@fill_docstrings
def label_efficiency_curve(
    estimators,
    X,
    y,
    *,
    n_labels=(10, 20, 50, 100),
    unlabeled_label=-1,
    cv=None,
    scoring=None,
    n_jobs=None,
    random_state=None,
    error_score=np.nan,
):
    """Measure how scores grow with the number of labels.

    In each training fold some rows keep their label, and the others count as
    unlabelled. Classifiers that learn from unlabelled rows get them all; others get the
    labelled rows alone. So the curve shows what the unlabelled rows are worth on your
    own data.

    Parameters
    ----------
    {estimators_to_compare}
    {X_to_split}
    {y_to_hide}
    {n_labels}
    {unlabeled_label}
    {cv_of_labelled}
    {scoring}
    {n_jobs}
    {random_labels}
    error_score : "raise" or float, default=np.nan
        Score where a fit fails, with a warning; "raise" raises the error instead.

    Returns
    -------
    curve : Bunch
        With the attributes:

        n_labels : ndarray of shape (n_ticks,), int64
            Numbers of labels, ascending.
        test_scores : dict of {str: ndarray of shape (n_ticks, n_splits)}
            Scores of each estimator on the test folds.
        fit_times : dict of {str: ndarray of shape (n_ticks, n_splits)}
            Seconds of each fit. Where pretraining is done once, the time of the
            smallest number of labels includes it.

    Raises
    ------
    ValueError
        If y holds fewer than two classes, if a training fold has fewer labelled rows or
        more classes than one of `n_labels`, if a class equals the mark of an estimator
        or this mark is None, if `error_score` is something else, or if every fit fails.
    TypeError
        If `estimators`, `n_labels` or `scoring` are of a type that is not supported, or
        if the labels are bytes, or text beside other objects.

    See Also
    --------
    LabelEfficiencyDisplay : Draws the curve.
    SemiSupervisedKFold : Folds of the labelled rows.
    sklearn.model_selection.learning_curve : Scores by number of training rows.

    Notes
    -----
    Labels are taken away at random, from all classes alike. Each class keeps at least
    one. The rows that are labelled with 10 labels are so with 20, and for each
    estimator they are the same.

    An estimator learns from unlabelled rows if it has a parameter `unlabeled_label` or
    comes from :mod:`sklearn.semi_supervised`. Of a pipeline the last step decides, of a
    search its estimator; the `cv` of a search should then be a `SemiSupervisedKFold`.

    An estimator with `pretrain_epochs`, whose `memory` and `encoder` are None,
    pretrains once in each fold: its clone gets a temporary folder as `memory`, and an
    int as `random_state` if it has none.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.semi_supervised import LabelSpreading
    >>> from skssl import label_efficiency_curve
    >>> X, y = load_digits(return_X_y=True)
    >>> curve = label_efficiency_curve(
    ...     {
    ...         "labelled rows": LogisticRegression(max_iter=1000),
    ...         "all rows": LabelSpreading(gamma=0.01),
    ...     },
    ...     X,
    ...     y,
    ...     n_labels=[20, 100],
    ...     random_state=0,
    ... )
    >>> for name, scores in curve.test_scores.items():
    ...     print(name, scores.mean(axis=1).round(1))
    labelled rows [0.7 0.9]
    all rows [0.8 0.9]
    """
    named = _named(estimators)
    if scoring is not None and not isinstance(scoring, str) and not callable(scoring):
        raise TypeError(
            "scoring must be the name of a scorer, a callable or None, got "
            f"{scoring!r}. Call label_efficiency_curve once for each metric."
        )
    if error_score != "raise" and not isinstance(error_score, Real):
        raise ValueError(
            f"error_score must be 'raise' or a number, got {error_score!r}."
        )
    X, y = indexable(X, y)
    classes, rows, targets = encode_labels(y, unlabeled_label)
    rng = check_random_state(random_state)
    splits = [
        (rows[train[_nested_order(targets[train], rng)]], rows[test])
        for train, test in check_cv(cv, classes[targets], classifier=True).split(
            np.zeros(len(rows)), classes[targets]
        )
    ]
    labels = np.zeros(len(y), dtype=classes.dtype)
    labels[rows] = classes[targets]
    n_labels = _checked_n_labels(n_labels, labels, splits)

    unlabelled = np.delete(np.arange(len(y)), rows)
    seed = int(rng.randint(np.iinfo(np.int32).max))
    with tempfile.TemporaryDirectory(prefix="skssl-") as folder:
        jobs = [
            delayed(_scores_of_split)(
                _pretraining_once(estimator, folder, seed),
                X,
                *_marked(estimator, name, labels, classes),
                unlabelled,
                *split,
                n_labels,
                scoring,
                error_score,
            )
            for name, estimator in named.items()
            for split in splits
        ]
        results = Parallel(n_jobs=n_jobs)(jobs)
    scores, times, errors = zip(*results, strict=True)
    _report_failures([x for of_split in errors for x in of_split], error_score)
    shape = len(named), len(splits), len(n_labels)
    scores, times = (
        dict(zip(named, np.reshape(x, shape).transpose(0, 2, 1), strict=True))
        for x in (scores, times)
    )
    return Bunch(n_labels=n_labels, test_scores=scores, fit_times=times)


def _named(estimators):
    """Return name to estimator, whatever way the estimators are given."""
    if hasattr(estimators, "fit"):
        return {type(estimators).__name__: estimators}
    try:
        named = dict(estimators)
    except (TypeError, ValueError):
        named = {}
    if not (
        named
        and len(named) == len(estimators)
        and all(hasattr(estimator, "fit") for estimator in named.values())
    ):
        raise TypeError(
            "estimators must be a classifier, or a dict or list of (name, classifier) "
            f"with names that differ, got {estimators!r}."
        )
    return named


def _nested_order(targets, rng):
    """Return an order of which each prefix is stratified, one of each class first."""
    order = rng.permutation(len(targets))
    _, targets, sizes = np.unique(
        targets[order], return_inverse=True, return_counts=True
    )
    by_class = np.argsort(targets, kind="stable")
    rank = np.empty(len(targets), dtype=np.int64)
    rank[by_class] = np.concatenate([np.arange(size) for size in sizes])
    # Members of a class are evenly spaced, from a random place for each class.
    place = (rank + rng.uniform(size=len(sizes))[targets]) / sizes[targets]
    return order[np.lexsort((place, rank > 0))]


def _checked_n_labels(n_labels, labels, splits):
    """Return the numbers of labels, ascending, which each split can give."""
    sizes = np.unique(n_labels)
    if sizes.dtype.kind not in "iu" or not len(sizes):
        raise TypeError(
            f"n_labels must hold numbers of labels, as (10, 20, 50), got {n_labels!r}."
        )
    fewest = max(len(np.unique(labels[train])) for train, _ in splits)
    most = min(len(train) for train, _ in splits)
    if sizes[0] < fewest or sizes[-1] > most:
        raise ValueError(
            f"n_labels must be from {fewest}, so that each class has a label, to "
            f"{most}, the number of labelled rows in the smallest training fold, got "
            f"{sizes.tolist()}."
        )
    return sizes.astype(np.int64)


def _learner(estimator):
    """Return what learns from the labels, within pipelines and searches."""
    if isinstance(estimator, Pipeline):
        return _learner(estimator.steps[-1][1])
    if hasattr(estimator, "refit"):  # a search, of scikit-learn or like those
        return _learner(estimator.estimator)
    return estimator


def _marked(estimator, name, labels, classes):
    """Return labels of a dtype that holds the estimator's mark, and this mark.

    The mark is None where the estimator learns from labelled rows alone.
    """
    from sklearn.semi_supervised import (
        LabelPropagation,
        LabelSpreading,
        SelfTrainingClassifier,
    )

    learner = _learner(estimator)
    if hasattr(learner, "unlabeled_label"):
        mark = learner.unlabeled_label
    elif isinstance(
        learner, LabelPropagation | LabelSpreading | SelfTrainingClassifier
    ):
        mark = -1
    else:
        return labels, None
    if mark is None or mark in classes.tolist():
        raise ValueError(
            f"{name} marks rows without a label by {mark!r}, which has to be a value "
            f"that is no class, got classes {classes.tolist()}. Set its "
            "unlabeled_label, or rename the class."
        )
    dtype = np.asarray(mark).dtype
    if {dtype.kind, labels.dtype.kind} <= set("biuf"):
        dtype = np.result_type(dtype, labels.dtype)
    else:  # NumPy would make a number among text a text
        dtype = object
    return labels.astype(dtype), mark


def _pretraining_once(estimator, folder, seed):
    """Return a clone that keeps pretraining in a folder, where it is not kept yet."""
    estimator = clone(estimator)
    learner = _learner(estimator)
    params = learner.get_params()
    if (
        {"memory", "pretrain_epochs"} <= set(params)
        and params["memory"] is None
        and params.get("encoder") is None
    ):
        learner.set_params(memory=folder)
        # The seed of the network counts where the estimator has none.
        seeds = params.get("random_state"), params.get("estimator__random_state")
        if not any(isinstance(x, Integral) for x in seeds):
            learner.set_params(random_state=seed)
    return estimator


def _scores_of_split(
    estimator, X, y, mark, unlabelled, labelled, test, n_labels, scoring, error_score
):
    """Return score, seconds of the fit and errors of one split, by number of labels.

    One after the other, so that all but the first find the pretraining finished.
    """
    scores, times, errors = [], [], []
    for n in n_labels:
        if mark is None:
            train, y_known = np.sort(labelled[:n]), y
        else:
            train = np.sort(np.append(unlabelled, labelled))
            y_known = y.copy()
            y_known[unlabelled] = y_known[labelled[n:]] = mark
        try:
            result = cross_validate(
                estimator,
                X,
                y_known,
                cv=[(train, test)],
                scoring=scoring,
                error_score="raise",
            )
        except Exception:
            if error_score == "raise":
                raise
            result = {"test_score": [error_score], "fit_time": [np.nan]}
            errors.append(traceback.format_exc())
        else:
            errors.append(None)
        scores.append(result["test_score"][0])
        times.append(result["fit_time"][0])
    return scores, times, errors


def _report_failures(errors, error_score):
    """Warn of fits that failed, and raise if all of them did."""
    failed = [error for error in errors if error is not None]
    if not failed:
        return
    message = (
        f"{len(failed)} of {len(errors)} fits failed. error_score='raise' raises the "
        f"first error. The last was:\n{failed[-1]}"
    )
    if len(failed) == len(errors):
        raise ValueError(message)
    warnings.warn(
        f"Scores are set to {error_score}: {message}", FitFailedWarning, stacklevel=3
    )
