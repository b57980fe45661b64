import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.datasets import load_digits, make_blobs
from sklearn.decomposition import PCA
from sklearn.semi_supervised import LabelSpreading

from skssl import _labeling as labeling
from skssl import suggest_to_label

CENTERS = np.array([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0], [20.0, 20.0]])


@pytest.fixture(scope="module")
def blobs():
    """Rows around four centres, 40, 30, 20 and 10 of them, and the centre of each."""
    return make_blobs([40, 30, 20, 10], 2, centers=CENTERS, random_state=0)


@pytest.fixture(scope="module")
def embedded_digits():
    X, y = load_digits(return_X_y=True)
    return PCA(50, random_state=0).fit_transform(X), y


def only(y, rows):
    """Return labels of these rows alone."""
    few = np.full(len(y), -1)
    few[rows] = y[rows]
    return few


def spread_accuracy(X, y, rows):
    """Return the share of unlabelled rows to which the labels of `rows` spread."""
    learner = LabelSpreading(kernel="knn", n_neighbors=10).fit(X, only(y, rows))
    others = np.delete(np.arange(len(y)), rows)
    return (learner.transduction_[others] == y[others]).mean()


def test_the_row_nearest_to_each_centre_is_suggested(blobs):
    X, y = blobs
    rows = suggest_to_label(X, 4, random_state=0)
    assert rows.dtype == np.int64
    assert sorted(y[rows]) == [0, 1, 2, 3]
    for row in rows:
        members = X[y == y[row]]
        distances = np.linalg.norm(members - members.mean(axis=0), axis=1)
        assert np.linalg.norm(X[row] - members.mean(axis=0)) == distances.min()


def test_the_largest_cluster_comes_first_and_then_one_far_from_it(blobs):
    X, y = blobs
    assert y[suggest_to_label(X, 4, random_state=0)[0]] == 0
    # The smallest of three explains more than the second, which is next to the first.
    line = np.repeat([[0.0], [1.0], [50.0]], [40, 60, 30], axis=0)
    assert_array_equal(line[suggest_to_label(line, 3, random_state=0), 0], [1, 50, 0])


def test_labels_that_are_there_are_covered_and_never_suggested_again(blobs):
    X, y = blobs
    known = only(y, np.flatnonzero(y < 2)[::10])
    rows = suggest_to_label(X, 2, y=known, random_state=0)
    assert sorted(y[rows]) == [2, 3]
    many = suggest_to_label(X, 90, y=known, random_state=0)
    assert not np.isin(many, np.flatnonzero(known != -1)).any()


def test_another_mark_and_text_labels(blobs):
    X, y = blobs
    names = np.where(y == 0, "cat", "none")
    rows = suggest_to_label(X, 3, y=names, unlabeled_label="none", random_state=0)
    assert 0 not in y[rows]


def test_they_beat_random_rows_on_digits_and_so_do_the_first_of_them(embedded_digits):
    X, y = embedded_digits
    chance, chosen, first = [], [], []
    for seed in range(3):
        order = np.random.RandomState(seed).permutation(len(y))
        chance.append(spread_accuracy(X, y, order[:20]))
        chosen.append(spread_accuracy(X, y, suggest_to_label(X, 20, random_state=seed)))
        rows = suggest_to_label(X, 50, random_state=seed)[:20]
        first.append(spread_accuracy(X, y, rows))
    assert np.mean(chosen) > np.mean(chance) + 0.05
    assert np.mean(first) > np.mean(chance) + 0.05


def test_they_repeat_with_a_seed_whatever_the_order_of_the_rows(embedded_digits):
    X, y = embedded_digits
    known = only(y, [3, 5, 8])
    rows = suggest_to_label(X, 30, y=known, random_state=0)
    assert_array_equal(suggest_to_label(X, 30, y=known, random_state=0), rows)
    order = np.random.RandomState(0).permutation(len(y))
    shuffled = suggest_to_label(X[order], 30, y=known[order], random_state=0)
    assert_array_equal(order[shuffled], rows)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4"])
def test_every_row_can_be_asked_for_once(dtype):
    X = np.random.RandomState(0).normal(size=(40, 3)) * 10
    rows = suggest_to_label(X.astype(dtype), 40, random_state=0)
    assert_array_equal(np.sort(rows), np.arange(40))


def test_equal_rows_come_after_all_different_ones():
    X = np.repeat([[0.0], [1.0], [5.0]], [3, 1, 2], axis=0)
    rows = suggest_to_label(X, 6, random_state=0)
    assert_array_equal(np.sort(X[rows[:3], 0]), [0, 1, 5])
    assert_array_equal(np.sort(rows), np.arange(6))


def test_a_copy_of_a_labelled_row_comes_last():
    X = np.array([[0.0], [0.0], [1.0], [5.0]])
    assert_array_equal(
        np.sort(suggest_to_label(X, 2, y=[7, -1, -1, -1], random_state=0)), [2, 3]
    )


def test_further_rows_of_each_cluster_follow_where_clusters_do_not_suffice(
    blobs, monkeypatch
):
    X, y = blobs
    monkeypatch.setattr(labeling, "MAX_CLUSTERS", 4)
    rows = suggest_to_label(X, 100, random_state=0)
    for turn in range(10):
        assert sorted(y[rows[4 * turn : 4 * turn + 4]]) == [0, 1, 2, 3]
    of_largest = X[rows[y[rows] == 0]]
    distances = np.linalg.norm(of_largest - of_largest.mean(axis=0), axis=1)
    assert (np.diff(distances) >= 0).all()


@pytest.mark.parametrize(
    ("X", "n_samples", "y", "message"),
    [
        (np.zeros((3, 8, 8, 1)), 1, None, r"got shape \(3, 8, 8, 1\)\. Embed images"),
        (np.zeros(3), 1, None, r"embeddings of shape .*got shape \(3,\)"),
        ([[0.0], [np.nan]], 1, None, "X contains NaN"),
        (np.eye(3), 4, None, "at most .* 3 of 3, got 4"),
        (np.eye(3), 2, [0, 1, -1], "at most .* 1 of 3, got 2"),
        (np.eye(3), 0, None, "n_samples == 0, must be >= 1"),
        (np.eye(3), 1, [0, -1], "inconsistent numbers of samples"),
        (np.eye(3), 1, [0, np.nan, -1], "y contains NaN"),
    ],
)
def test_what_cannot_be_chosen_from(X, n_samples, y, message):
    with pytest.raises(ValueError, match=message):
        suggest_to_label(X, n_samples, y=y)


def test_a_number_of_rows_that_is_no_int():
    with pytest.raises(TypeError, match="n_samples must be an instance of int"):
        suggest_to_label(np.eye(3), 1.5)
