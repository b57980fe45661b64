"""Which rows have a label: the one place that compares labels with the mark."""

import numpy as np
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets


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


def encode_labels(y, unlabeled_label, classes=None):
    """Part y into classes, the rows that have one, and the class index of these.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Labels.
    unlabeled_label : object
        What marks a row without a label; None if every row has one.
    classes : array-like of shape (n_classes,), default=None
        All labels that there may be; None takes those in y.

    Returns
    -------
    classes : ndarray of shape (n_classes,)
        Sorted labels.
    rows : ndarray of shape (n_labelled,), int64
        Indices of the labelled rows.
    targets : ndarray of shape (n_labelled,), int64
        Index into `classes` of each.
    """
    rows, labels = known_labels(y, unlabeled_label)
    try:
        if len(labels):
            check_classification_targets(labels)
        classes = np.unique(labels if classes is None else classes)
    except TypeError as error:
        kinds = sorted({type(label).__name__ for label in labels.tolist()})
        raise TypeError(
            f"y must hold labels that can be sorted, got such of types {kinds}. Make "
            "them all numbers or all text."
        ) from error
    if len(classes) < 2:
        remark = ""
        if unlabeled_label is not None:
            remark = (
                f" Rows with y == {unlabeled_label!r} count as unlabelled; if that is "
                "a class, set unlabeled_label=None."
            )
        raise ValueError(
            "y must hold at least two classes among its labelled rows, got "
            f"{len(classes)} class(es) in {len(rows)} labelled of {len(y)} rows."
            f"{remark}"
        )
    unknown = np.setdiff1d(labels, classes)
    if len(unknown) or not len(rows):
        raise ValueError(
            f"y must hold labels among the classes {classes.tolist()}, got "
            f"{unknown.tolist() if len(unknown) else 'no labelled row'}."
        )
    return classes, rows, np.searchsorted(classes, labels)
