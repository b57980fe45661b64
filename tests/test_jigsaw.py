"""Jigsaw puzzles on tiny images written by hand."""

import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_array_equal

from skssl import JigsawPretext
from skssl.pretext._jigsaw import distant_permutations, permuted_tiles


def permuted(image, grid, order):
    batch = tf.constant(np.array(image)[None, :, :, None])
    return permuted_tiles(batch, grid, tf.constant([order]))[0, :, :, 0]


def test_tiles_change_places():
    image = [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert_array_equal(
        permuted(image, (2, 2), [1, 0, 3, 2]), [[3, 4, 1, 2], [7, 8, 5, 6]]
    )
    assert_array_equal(
        permuted(image, (2, 2), [2, 3, 0, 1]), [[5, 6, 7, 8], [1, 2, 3, 4]]
    )
    assert_array_equal(
        permuted(image, (1, 4), [3, 0, 1, 2]), [[4, 1, 2, 3], [8, 5, 6, 7]]
    )


def test_pixels_that_the_grid_leaves_over_stay():
    image = np.arange(1, 16).reshape(3, 5)
    moved = permuted(image, (2, 2), [3, 2, 1, 0])
    # Tiles of one row and two columns; the last row and column are left over.
    assert_array_equal(moved, [[8, 9, 6, 7, 5], [3, 4, 1, 2, 10], *image[2:]])
    image = np.arange(1, 37).reshape(6, 6)
    moved = np.array(permuted(image, (4, 4), list(range(15, -1, -1))))
    assert_array_equal(moved[1:5, 1:5], image[1:5, 1:5][::-1, ::-1])
    moved[1:5, 1:5] = image[1:5, 1:5]
    assert_array_equal(moved, image)


@pytest.mark.parametrize(
    ("n_tiles", "n_permutations", "distance"),
    [(2, 2, 2), (4, 4, 4), (4, 12, 3), (4, 24, 2), (6, 6, 6), (9, 20, 7)],
)
def test_permutations_are_far_apart(n_tiles, n_permutations, distance):
    chosen = distant_permutations(n_tiles, n_permutations)
    assert chosen.shape == (n_permutations, n_tiles)
    assert_array_equal(chosen[0], range(n_tiles))
    assert_array_equal(np.sort(chosen, axis=1), chosen[[0] * n_permutations])
    different = (chosen[:, None] != chosen[None]).sum(axis=-1)
    assert different[~np.eye(n_permutations, dtype=bool)].min() >= distance
    distant_permutations.cache_clear()
    assert_array_equal(distant_permutations(n_tiles, n_permutations), chosen)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_targets_say_how_the_tiles_lie(dtype):
    task = JigsawPretext((2, 3), n_permutations=20)
    image = np.arange(6).reshape(2, 3, 1).astype(dtype)
    images = np.stack([image] * 100)
    task.fit(images)
    inputs, targets = task.make_batch(tf.constant(images), [1, 2])
    assert np.array(inputs).dtype == dtype
    names = np.array(task.class_names)[np.array(targets)]
    for pixels, name in zip(np.array(inputs), names, strict=True):
        assert " ".join(str(int(x) + 1) for x in pixels.ravel()) == name
    assert len(set(names)) > 15
    _, others = task.make_batch(tf.constant(images), [1, 3])
    assert (np.array(others) != np.array(targets)).any()


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"grid": 2}, TypeError, r"grid must be a pair .* such as \(2, 2\), got 2"),
        ({"grid": (2, 2, 2)}, TypeError, "grid must be a pair of integers"),
        ({"grid": (2.0, 2)}, TypeError, "rows of grid must be an integer .* got 2.0"),
        ({"grid": (9, 2)}, ValueError, r"rows of grid .* got 9. The images .*\(8, 6,"),
        ({"grid": (2, 7)}, ValueError, "columns of grid must .* below 7, got 7"),
        ({"grid": (1, 1)}, ValueError, "grid must have at least two tiles"),
        ({"n_permutations": 25}, ValueError, "above 1 and below 25, got 25. That many"),
        ({"n_permutations": 1}, ValueError, "n_permutations must be .*above 1.*got 1"),
        ({"n_permutations": 2.5}, TypeError, "n_permutations must be an integer"),
    ],
)
def test_wrong_parameters_are_named(params, error, message):
    with pytest.raises(error, match=message):
        JigsawPretext(**params).fit(np.zeros((1, 8, 6, 3)))
