"""SemiSupervisedKFold: cross-validation where most rows have no label."""

import warnings

import numpy as np
from sklearn.model_selection import StratifiedKFold
from sklearn.utils import indexable

from ._data.labels import known_labels, unlabelled_hint
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
