"""Which rows have a label: the one place that compares labels with the mark."""

import numpy as np
from sklearn.utils import check_array, column_or_1d


def known_labels(y, unlabeled_label):
    """Return the rows of y that have a label, and these labels.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Labels.
    unlabeled_label : object
        What marks a row without a label; None if every row has one.

    Returns
    -------
    rows : ndarray of shape (n_labelled,), int64
        Indices of the labelled rows, ascending.
    labels : ndarray of shape (n_labelled,)
        Labels of these rows, of dtype object only where NumPy has no other for them.
    """
    if isinstance(y, list | tuple) and np.asarray(y).dtype.kind in "US":
        y = np.array(y, dtype=object)  # -1 among strings is to stay a number
    y = check_array(y, ensure_2d=False, dtype=None, input_name="y")
    y = column_or_1d(y, warn=True)
    # One by one, because strings and -1 do not compare as arrays.
    labelled = [
        unlabeled_label is None or label != unlabeled_label for label in y.tolist()
    ]
    rows = np.flatnonzero(labelled)
    labels = y[rows]
    return rows, np.array(labels.tolist()) if labels.dtype == object else labels
