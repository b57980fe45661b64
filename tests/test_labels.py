import subprocess
import sys
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from networks import two_stages
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from skssl import (
    EmbeddingDisplay,
    SemiSupervisedKFold,
    load,
)
from skssl._data.labels import encode_labels, is_missing, known_labels

MISSING = [np.nan, float("nan"), np.float32("nan"), pd.NA, pd.NaT]


@pytest.mark.parametrize(
    "value", [None, *MISSING, np.datetime64("NaT"), Decimal("NaN")]
)
def test_every_kind_of_missing_value_is_known(value):
    assert is_missing(value)


@pytest.mark.parametrize("value", [0, "", "nan", False, -1, np.array([np.nan]), ()])
def test_other_values_are_not_missing(value):
    assert not is_missing(value)


# Two labels of each kind, and what is missing between them.
WITH_MISSING = {
    "floats": (np.array([1.0, np.nan, 0.0]), [0.0, 1.0], np.float64),
    "float32": (np.array([1.0, np.nan, 0.0], np.float32), [0.0, 1.0], np.float32),
    "list of ints and None": ([1, None, 0], [0, 1], np.int64),
    "list of text and None": (["b", None, "a"], ["a", "b"], "<U1"),
    "list of text and NaN": (["b", np.nan, "a"], ["a", "b"], "<U1"),
    "objects": (np.array([1, np.nan, 0], dtype=object), [0, 1], np.int64),
    "booleans": (np.array([True, None, False]), [False, True], bool),
    "masked": (np.ma.array([1, 5, 0], mask=[0, 1, 0]), [0, 1], np.int64),
    "Int64": (pd.Series([1, None, 0], dtype="Int64"), [0, 1], np.int64),
    "Int64 array": (pd.array([1, None, 0], dtype="Int64"), [0, 1], np.int64),
    "Int64 frame": (pd.DataFrame({"y": [1, None, 0]}, dtype="Int64"), [0, 1], np.int64),
    "boolean": (pd.Series([True, None, False], dtype="boolean"), [False, True], bool),
    "string": (pd.Series(["b", None, "a"], dtype="string"), ["a", "b"], "<U1"),
    "text": (pd.Series(["b", np.nan, "a"]), ["a", "b"], "<U1"),
    "text objects": (pd.Series(["b", None, "a"], dtype=object), ["a", "b"], "<U1"),
    "category": (pd.Series(["b", None, "a"], dtype="category"), ["a", "b"], "<U1"),
    "categorical": (pd.Categorical([1, None, 0]), [0, 1], np.int64),
}


# scikit-learn says that a column is no row of labels.
@pytest.mark.filterwarnings("ignore:A column-vector y was passed")
@pytest.mark.parametrize("mark", MISSING, ids=str)
@pytest.mark.parametrize("kind", WITH_MISSING)
def test_a_missing_mark_stands_for_all_missing_values(kind, mark):
    y, expected, dtype = WITH_MISSING[kind]
    classes, rows, targets = encode_labels(y, mark)
    assert_array_equal(classes, expected)
    assert classes.dtype == dtype
    assert_array_equal(rows, [0, 2])
    assert_array_equal(targets, [1, 0])


@pytest.mark.filterwarnings("ignore:A column-vector y was passed")
@pytest.mark.parametrize("mark", [-1, "none", None])
@pytest.mark.parametrize("kind", WITH_MISSING)
def test_without_a_missing_mark_missing_labels_are_refused(kind, mark):
    message = r"contains (NaN|None|<NA>) in 1 of 3 rows.*Set unlabeled_label=np\.nan"
    with pytest.raises(ValueError, match=message):
        encode_labels(WITH_MISSING[kind][0], mark)


def test_minus_one_is_a_class_where_the_mark_is_missing():
    assert_array_equal(encode_labels([0, -1, np.nan], np.nan)[0], [-1, 0])


def test_a_string_dtype_of_numpy_is_text():
    if not hasattr(np.dtypes, "StringDType"):
        pytest.skip("NumPy 2 has it")
    dtype = np.dtypes.StringDType(na_object=np.nan)
    classes, rows, _ = encode_labels(np.array(["b", np.nan, "a"], dtype), np.nan)
    assert_array_equal(classes, ["a", "b"])
    assert_array_equal(rows, [0, 2])


def test_missing_labels_are_found_without_pandas():
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "from skssl._data.labels import known_labels\n"
        "print(known_labels([1, None, 0, float('nan')], float('nan')))"
    )
    output = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert output.strip() == "(array([0, 2]), array([1, 0]))"


# Text that reads like the mark


READS_LIKE_THE_MARK = [
    (np.array(["a", "b", -1]), -1, "-1"),
    (["a", "b", "-1", -1], -1, "-1"),
    (np.array(["a", "-1", -1], dtype=object), -1, "-1"),
    (np.array(["0.0", "1.0", "-1.0"]), -1, "-1.0"),
    (np.array(["0", "1", "-1"]), -1.0, "-1"),
    (["a", " -1"], -1, " -1"),
    (pd.Series(["a", "b", "-1"], dtype="string"), -1, "-1"),
    (pd.Series(["a", "b", "-1"], dtype="category"), -1, "-1"),
    (np.array(["a", "b", np.nan]), np.nan, "nan"),
    (["a", "NaN"], np.nan, "NaN"),
    (np.array(["a", "b", np.nan]), -1, "nan"),
    (["a", "none", "nan"], "none", "nan"),
    (np.array(["a", "b", 0]), 0, "0"),
    ([0, 1, -1], "-1", -1),
    ([0.0, 1.0, -1.0], "-1", -1.0),
]


@pytest.mark.parametrize(("y", "mark", "label"), READS_LIKE_THE_MARK)
def test_a_label_that_reads_like_the_mark_is_refused(y, mark, label):
    message = f"holds {label!r} of type .* Set unlabeled_label={label!r} if it marks"
    for call in (
        lambda: encode_labels(y, mark),
        lambda: next(SemiSupervisedKFold(2, unlabeled_label=mark).split(y, y)),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("mark", [-1, "unlabeled", np.nan])
def test_a_class_called_unlabelled_is_refused(mark):
    y = np.array(["cat", "unlabelled", "dog"])
    message = "holds the class 'unlabelled', .* Set unlabeled_label='unlabelled' if"
    for call in (
        lambda: encode_labels(y, mark),
        lambda: next(SemiSupervisedKFold(2, unlabeled_label=mark).split(y, y)),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert encode_labels(y, "unlabelled")[0].tolist() == ["cat", "dog"]
    assert encode_labels(y, None)[0].tolist() == ["cat", "dog", "unlabelled"]


@pytest.mark.parametrize("dtype", ["u1", ">u2", "u8"])
def test_a_mark_that_has_become_unsigned_is_refused(dtype):
    y = np.array([3, 0, 7]).astype(dtype)
    assert known_labels(y, -1)[0].tolist() == [0, 1, 2]
    y[1] = wrapped = np.array(-1).astype(dtype)
    with pytest.raises(
        ValueError, match=rf"holds {wrapped} .*of -1, .*y.astype\(int\)"
    ):
        known_labels(y, -1)
    assert known_labels(y, None)[1].tolist() == y.tolist()
    assert known_labels(y, int(wrapped))[0].tolist() == [0, 2]


@pytest.mark.parametrize(("mark", "expected"), [("-1", "ab"), (None, ["-1", "a", "b"])])
def test_text_that_reads_like_another_mark_is_taken_at_its_word(mark, expected):
    classes = encode_labels(np.array(["a", "b", -1]), mark)[0]
    assert_array_equal(classes, list(expected))


@pytest.mark.parametrize("labels", [["-2", "1"], ["-1 point", "x"], ["None", "nope"]])
@pytest.mark.parametrize("mark", [-1, np.nan])
def test_other_text_is_a_class(labels, mark):
    assert_array_equal(encode_labels([*labels, mark], mark)[0], labels)


def test_a_float_mark_among_ints_and_an_int_mark_among_floats():
    assert_array_equal(known_labels([0, 1, -1], -1.0)[0], [0, 1])
    assert_array_equal(known_labels([0.0, 1.0, -1.0], -1)[0], [0, 1])


# Labels that are of no use


@pytest.mark.parametrize(
    "y", [np.array([b"a", b"b", b"-1"]), [b"a", b"b", -1], [b"a", "b"]]
)
def test_bytes_are_no_labels(y):
    with pytest.raises(TypeError, match=r"got bytes.*y\.astype\(str\)"):
        encode_labels(y, -1)


@pytest.mark.parametrize("mark", [-1, None])
@pytest.mark.parametrize("y", [["a", 1, "b"], np.array(["a", 2.5, "b"], dtype=object)])
def test_numbers_among_text_are_refused(y, mark):
    with pytest.raises(TypeError, match=r"types \['(int|float)', 'str'\].* all text"):
        encode_labels(y, mark)


# In folds, in training, in files


@pytest.mark.parametrize(
    "y",
    [
        [0, 1, None] * 4,
        np.array([0.0, 1.0, np.nan] * 4),
        pd.Series([0, 1, None] * 4, dtype="Int64"),
        pd.Series(["a", "b", None] * 4),
        pd.Categorical(["a", "b", None] * 4),
    ],
)
def test_folds_train_on_all_rows_with_missing_labels(y):
    cv = SemiSupervisedKFold(2, unlabeled_label=np.nan)
    tests = [test.tolist() for _, test in cv.split(range(12), y)]
    assert tests == [[0, 1, 3, 4], [6, 7, 9, 10]]
    with pytest.raises(ValueError, match=r"Set unlabeled_label=np\.nan"):
        next(SemiSupervisedKFold(2).split(range(12), y))


@pytest.fixture(scope="module")
def binary(digits):
    """Images of zeros and ones, and labels of which every third is missing."""
    X, y = digits
    X, y = X[y < 2][:90], y[y < 2][:90]
    return X, pd.Series(y, dtype="Int64").where(np.arange(90) % 3 != 0)


@pytest.fixture(scope="module")
def make(quick):
    def unfitted(mark=np.nan, **params):
        params = {"pretrain_epochs": 0, "random_state": 0, **params}
        return two_stages(quick(), unlabeled_label=mark, **params)

    return unfitted


def test_missing_labels_train_as_marked_ones_do(make, binary):
    X, y = binary
    expected = make(-1).fit(X, y.fillna(-1).astype(int)).predict_proba(X)
    for labels in (y, y.astype(float), y.astype(object)):
        clf = make().fit(X, labels)
        assert_array_equal(clf.predict_proba(X), expected)
        assert_array_equal(clf.classes_, [0, 1])
    assert make(pd.NA).fit(X, y).predict(X).dtype == np.int64
    clf.partial_fit(X, y, classes=[0, 1])
    assert len(clf.finetune_history_["loss"]) == 3


@pytest.mark.parametrize("mark", [np.nan, pd.NA], ids=str)
def test_a_missing_mark_survives_clone_and_search(mark, make, binary):
    clf = make(mark)
    assert clone(clf).get_params()["unlabeled_label"] is mark
    cv = SemiSupervisedKFold(2, unlabeled_label=mark)
    assert "unlabeled_label=" in repr(cv) and "unlabeled_label=" in repr(clf)
    grid = {"frozen_layers": [0], "unlabeled_label": [mark]}
    search = GridSearchCV(clf, grid, cv=cv, error_score="raise")
    assert search.fit(*binary).best_score_ > 0.5


@pytest.mark.parametrize("mark", [np.nan, pd.NA], ids=str)
def test_a_missing_mark_is_saved(mark, make, binary, tmp_path):
    X, y = binary
    make(mark).fit(X, y).save(tmp_path / "binary.skssl")
    loaded = load(tmp_path / "binary.skssl")
    assert is_missing(loaded.unlabeled_label) and loaded.unlabeled_label is not None
    loaded.set_params(estimator=make().estimator).partial_fit(X, y)
    assert_array_equal(loaded.classes_, [0, 1])


def test_weights_leave_the_mark_among_text_a_number(make, digits):
    X, y = digits[0][:60], digits[1][:60]
    y = [-1 if label > 7 else f"{label % 2}" for label in y]
    weights = np.ones(60)
    weights[:10] = 0
    clf = make(-1).fit(X, y, weights)
    assert_array_equal(clf.classes_, ["0", "1"])


def test_the_mark_among_the_classes_of_partial_fit_is_none_of_them(make, binary):
    X, y = binary
    y = y.fillna(-1).astype(int)
    clf = make(-1).partial_fit(X, y, classes=np.unique(y))
    assert_array_equal(clf.classes_, [0, 1])
    clf.partial_fit(X, y, classes=np.unique(y))
    with pytest.raises(ValueError, match="are not those of the first call"):
        clf.partial_fit(X, y, classes=[-1, 0, 1, 2])


def test_missing_labels_are_drawn_unlabelled():
    import matplotlib.pyplot as plt

    display = EmbeddingDisplay.from_embeddings(
        np.eye(4), ["a", None, "b", "a"], unlabeled_label=np.nan
    )
    texts = [text.get_text() for text in display.axes_.get_legend().texts]
    plt.close(display.figure_)
    assert texts == ["a", "b", "unlabelled"]
