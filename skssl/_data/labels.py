"""Which rows have a label, and the class index of each of these."""

from collections.abc import Hashable
from numbers import Integral

import numpy as np
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets

# Names that say that there is no class.
NO_CLASS = {"unlabelled", "unlabeled"}


def is_missing(label):
    """Whether a label is None, NaN, NaT or pd.NA, as `pandas.isna` has it."""
    if label is None or type(label).__name__ == "NAType":  # pandas may not be there
        return True
    return isinstance(label, Hashable) and bool(label != label)


def label_array(y, input_name="y"):
    """Return y as an array that keeps text, numbers and missing values apart.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Labels.
    input_name : str, default="y"
        What to call them in messages.

    Returns
    -------
    y : ndarray of shape (n_samples,)
        Labels, of dtype object where y is a DataFrame, is of a dtype that NumPy does
        not know, or holds masked values or text beside other objects.
    """
    dtype = getattr(y, "dtype", None)
    of_numpy = isinstance(dtype, np.dtype) and dtype.kind != "T"
    if np.ma.is_masked(y) or (dtype is not None and not of_numpy):
        # np.asarray would turn integers beside a missing value into floats.
        to_list = getattr(y, "tolist", getattr(y, "to_list", None))
        y = y if to_list is None else np.array(to_list(), dtype=object)
    elif hasattr(y, "iloc") and hasattr(y, "columns"):
        y = y.to_numpy(dtype=object)
    elif isinstance(y, list | tuple) and np.asarray(y).dtype.kind in "US":
        y = np.array(y, dtype=object)  # np.asarray makes -1 among strings a string
    y = check_array(
        y,
        ensure_2d=False,
        dtype=None,
        ensure_all_finite="allow-nan",
        input_name=input_name,
    )
    return column_or_1d(y, warn=True)


def known_labels(y, unlabeled_label, input_name="y"):
    """Return the rows of y that have a label, and these labels.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Labels.
    unlabeled_label : object
        What marks a row without a label; a missing value such as NaN stands for all of
        them, and None says that every row has a label.
    input_name : str, default="y"
        What to call the labels in messages.

    Returns
    -------
    rows : ndarray of shape (n_labelled,), int64
        Indices of the labelled rows, ascending.
    labels : ndarray of shape (n_labelled,)
        Labels of these rows, of dtype object only where NumPy has no other for them.

    Raises
    ------
    ValueError
        If a label is missing, looks like the mark without being it, or is called
        "unlabelled" or "unlabeled".
    TypeError
        If labels are bytes, or text beside other objects.
    """
    y = label_array(y, input_name)
    _check_not_wrapped(y, unlabeled_label, input_name)
    # One by one, because strings and -1 do not compare as arrays.
    values = y.tolist()
    missing = list(map(is_missing, values))
    if unlabeled_label is None:
        marked = [False] * len(values)
    elif is_missing(unlabeled_label):
        marked = missing
    else:
        marked = [
            not gone and bool(value == unlabeled_label)
            for value, gone in zip(values, missing, strict=True)
        ]
    rows = np.flatnonzero(np.logical_not(marked))
    values = [values[row] for row in rows]
    _check_none_missing(values, len(y), input_name)
    _check_kinds(values, input_name)
    if unlabeled_label is not None:
        _check_unlike_mark(values, unlabeled_label, input_name)
        _check_names(values, unlabeled_label, input_name)
    return rows, np.array(values) if y.dtype == object else y[rows]


def _check_not_wrapped(y, mark, input_name):
    """Refuse what NumPy makes of a negative mark among unsigned integers: 255 of -1."""
    if y.dtype.kind != "u" or not isinstance(mark, Integral) or mark >= 0:
        return
    wrapped = int(mark) % 2 ** (8 * y.dtype.itemsize)
    if (y == wrapped).any():
        raise ValueError(
            f"{input_name} holds {wrapped} of type {y.dtype}, which is what NumPy "
            f"makes of {mark!r}, the mark of rows without a label, among unsigned "
            "integers. "
            f"Mark them in {input_name}.astype(int), or give that if {wrapped} is a "
            "class."
        )


def _check_none_missing(labels, n_rows, input_name):
    missing = list(filter(is_missing, labels))
    if missing:
        name = "NaN" if isinstance(missing[0], float) else missing[0]
        raise ValueError(
            f"{input_name} must hold labels, but {input_name} contains {name} in "
            f"{len(missing)} of {n_rows} rows. Set unlabeled_label=np.nan if these are "
            "the rows without a label: it stands for NaN, None and pd.NA alike. Leave "
            "them out otherwise."
        )


def _check_kinds(labels, input_name):
    kinds = {type(label) for label in labels}
    if bytes in kinds:
        raise TypeError(
            f"{input_name} must hold numbers, booleans or text, got bytes. Decode them "
            f"first, as by {input_name}.astype(str)."
        )
    if str in kinds and len(kinds) > 1:
        raise _not_sortable(kinds, input_name)


def _not_sortable(kinds, input_name="y"):
    return TypeError(
        f"{input_name} must hold labels that can be sorted, got such of types "
        f"{sorted(kind.__name__ for kind in kinds)}. Make them all numbers or all text."
    )


def _check_unlike_mark(labels, mark, input_name):
    """Refuse labels that read like a mark but differ: "-1" beside -1, and "nan"."""
    for label in labels:
        for value in (mark, np.nan):
            if isinstance(label, str) != isinstance(value, str) and _reads_alike(
                label, value
            ):
                raise ValueError(
                    f"{input_name} holds {label!r} of type {type(label).__name__}, "
                    f"which reads like {value!r} of type {type(value).__name__}, a "
                    "mark of rows without a label, but does not equal it. NumPy and "
                    "CSV files turn numbers among text into text. Set "
                    f"unlabeled_label={label!r} if it marks rows without a label. If "
                    "it is a class, rename it or the mark, or set unlabeled_label=None "
                    "where every row has a label."
                )


def _check_names(labels, mark, input_name):
    """Refuse a class whose name says that it is none."""
    for label in labels:
        if isinstance(label, str) and label.strip().lower() in NO_CLASS:
            raise ValueError(
                f"{input_name} holds the class {label!r}, but the mark of rows without "
                f"a label is {mark!r}. Set unlabeled_label={label!r} if these rows "
                "have no label, or unlabeled_label=None if it is a class."
            )


def _reads_alike(label, mark):
    try:
        if float(label) == float(mark):  # "-1", "-1.0", " -1"
            return True
    except (TypeError, ValueError):
        pass
    return str(label).strip().lower() == str(mark).strip().lower()


def unlabelled_hint(unlabeled_label):
    """Return advice where too few rows are labelled, "" where all of them are."""
    if unlabeled_label is None:
        return ""
    return (
        f" Rows with y == {unlabeled_label!r} count as unlabelled; if that is a class, "
        "set unlabeled_label=None."
    )


def encode_labels(y, unlabeled_label, classes=None):
    """Return the classes in y, the rows that have one, and the class index of these.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Labels.
    unlabeled_label : object
        What marks a row without a label, as in `known_labels`.
    classes : array-like of shape (n_classes,), default=None
        All labels that there may be, the mark aside; None takes those in y.

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
    if classes is not None:
        classes = known_labels(classes, unlabeled_label, "classes")[1]
    try:
        if len(labels):
            check_classification_targets(labels)
        classes = np.unique(labels if classes is None else classes)
    except TypeError as error:
        raise _not_sortable(set(map(type, labels.tolist()))) from error
    if len(classes) < 2:
        raise ValueError(
            "y must hold at least two classes among its labelled rows, got "
            f"{len(classes)} class(es) in {len(rows)} labelled of {len(y)} rows."
            f"{unlabelled_hint(unlabeled_label)}"
        )
    unknown = np.setdiff1d(labels, classes)
    if len(unknown) or not len(rows):
        raise ValueError(
            f"y must hold labels among the classes {classes.tolist()}, got "
            f"{unknown.tolist() if len(unknown) else 'no labelled row'}."
        )
    return classes, rows, np.searchsorted(classes, labels)
