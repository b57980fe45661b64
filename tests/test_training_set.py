import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skssl._data.training_set import distinct_images

RNG = np.random.default_rng(0)


def images_of(n_images, channels=1, dtype=np.uint8):
    return RNG.integers(0, 255, (n_images, 4, 5, channels)).astype(dtype)


def distinct_of(images, **params):
    return distinct_images(images, np.arange(len(images)), **params)


def test_equal_images_are_found_wherever_they_are():
    images = images_of(6)[[0, 1, 0, 2, 1, 0]]
    distinct = distinct_of(images, chunk_values=40)
    assert sorted(distinct.rows) == [0, 1, 3]
    assert_array_equal(images[distinct.rows][distinct.index], images)


def test_equal_images_are_found_among_thousands():
    images = np.arange(4000).repeat(2).reshape(-1, 1, 1, 1)
    distinct = distinct_of(images)
    assert_array_equal(np.sort(distinct.rows), np.arange(0, 8000, 2))
    assert_array_equal(images[distinct.rows][distinct.index], images)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_the_layout_in_memory_changes_nothing(dtype):
    images = images_of(9, channels=3, dtype=dtype)
    distinct = distinct_of(images)
    for same in (np.asfortranarray(images), images[:, ::-1].copy()[:, ::-1]):
        assert_array_equal(distinct_of(same).rows, distinct.rows)
        assert distinct_of(same).digest == distinct.digest


@pytest.mark.parametrize("chunk_values", [1, 50, 10**6])
def test_order_and_copies_of_rows_change_nothing(chunk_values):
    images = images_of(30)
    distinct = distinct_of(images)
    order = RNG.integers(30, size=100)
    order = RNG.permutation(np.concatenate([order, np.arange(30)]))
    again = distinct_of(images[order], chunk_values=chunk_values)
    assert_array_equal(images[order][again.rows], images[distinct.rows])
    assert again.digest == distinct.digest
    assert_allclose(again.mean, distinct.mean)
    assert_allclose(again.scale, distinct.scale)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
@pytest.mark.parametrize("chunk_values", [50, 10**6])
def test_the_statistics_are_those_of_all_pixels(dtype, chunk_values):
    images = images_of(40, channels=3, dtype=dtype)
    images[..., 2] = 7
    distinct = distinct_of(images[[*range(40), 3, 5]], chunk_values=chunk_values)
    pixels = images.reshape(-1, 3)
    assert_allclose(distinct.mean, pixels.mean(axis=0), rtol=1e-12)
    assert_allclose(distinct.scale, [*pixels.std(axis=0)[:2], 1], rtol=1e-12)


@pytest.mark.parametrize(
    "rescale", [lambda X: X / 255, lambda X: X * 3.5 - 100, lambda X: X.astype(float)]
)
def test_the_order_does_not_depend_on_the_scale(rescale):
    images = images_of(50)
    distinct = distinct_of(images)
    assert_array_equal(distinct_of(rescale(images)).rows, distinct.rows)
    assert distinct_of(rescale(images)).digest != distinct.digest


@pytest.mark.parametrize("rescale", [lambda X: X / 3, lambda X: X * 7 + 1])
def test_rises_falls_and_level_steps_all_count_for_the_order(rescale):
    pixels = ["222", "114", "330", "033", "024", "141", "411", "420", "303"]
    images = np.array([list(map(int, p)) for p in pixels]).reshape(9, 1, 3, 1)
    assert_array_equal(distinct_of(rescale(images)).rows, distinct_of(images).rows)


def test_images_that_differ_by_a_constant_are_distinct_and_in_one_order():
    image = images_of(1).astype(int)
    images = image + np.arange(5)[:, None, None, None]
    distinct = distinct_of(images)
    assert sorted(distinct.rows) == [*range(5)]
    order = RNG.permutation(5)
    shuffled = distinct_of(images[order])
    assert_array_equal(images[order][shuffled.rows], images[distinct.rows])


def test_the_digest_tells_shapes_apart():
    images = images_of(3)
    turned = images.reshape(3, 5, 4, 1)
    assert distinct_of(images).digest != distinct_of(turned).digest
    assert distinct_of(images).digest != distinct_of(images[:2]).digest


def test_of_ready_views_the_first_gives_the_order_and_all_tell_apart():
    images = images_of(20)
    views = np.stack([images, images_of(20)], axis=1)
    assert_array_equal(distinct_of(views).rows, distinct_of(images).rows)
    same_first = np.concatenate([views, np.stack([images, images], axis=1)])
    assert len(distinct_of(same_first).rows) == 40


def test_only_the_given_rows_are_looked_at():
    images = images_of(10)
    distinct = distinct_images(images, np.array([2, 3, 7]))
    assert sorted(distinct.rows) == [2, 3, 7]
    assert_allclose(distinct.mean, images[[2, 3, 7]].mean(axis=(0, 1, 2)))


def test_images_are_read_a_chunk_at_a_time():
    images = np.zeros((100, 150, 150, 1), np.uint8)
    tracemalloc.start()
    try:
        distinct_of(images, chunk_values=10**4)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < images.nbytes / 4


def test_statistics_in_chunks_are_those_of_the_whole():
    images = images_of(50, channels=3)
    distinct = distinct_of(images, chunk_values=130)
    assert_allclose(distinct.mean, images.mean(axis=(0, 1, 2)))
    assert_allclose(distinct.scale, images.std(axis=(0, 1, 2)))


def test_a_constant_channel_is_not_scaled():
    distinct = distinct_of(np.full((3, 2, 2, 1), 0.1, np.float32))
    assert_allclose(distinct.mean, 0.1, rtol=1e-6)
    assert_array_equal(distinct.scale, [1])


def test_a_single_pixel_is_an_image():
    images = np.array([3, 1, 2, 3.0]).reshape(4, 1, 1, 1)
    assert sorted(distinct_of(images).rows) == [0, 1, 2]


# Labelled rows


def labelled_of(images, targets, weights=None, **params):
    every = np.arange(len(images))
    return distinct_of(images).labelled(every, np.array(targets), weights, **params)


def by_content(data):
    """Return what a set holds of each row, in its order."""
    weights = np.ones(len(data)) if data.weights is None else data.weights
    pixels = data.images[data.rows].reshape(len(data), -1)
    return list(zip(map(bytes, pixels), data.targets, weights, strict=True))


def test_weights_of_equal_rows_of_a_class_are_added():
    first, second = images_of(2)
    images = np.stack([second, first, second, second])
    targets, weights = [0, 1, 0, 1], np.array([1.0, 2.0, 3.0, 4.0])
    expected = {(bytes(second), 0): 4, (bytes(first), 1): 2, (bytes(second), 1): 4}
    for scale, params in [(10 / 3, {}), (1, {"scale_weights": False})]:
        data = labelled_of(images, targets, weights, **params)
        found = {(pixels, target): w for pixels, target, w in by_content(data)}
        assert found.keys() == expected.keys()
        for row in expected:
            assert_allclose(found[row], expected[row] / scale)
    counts = labelled_of(images, targets, scale_weights=False)
    assert sorted(counts.weights) == [1, 1, 2]


def test_equal_weights_are_none():
    images, targets = images_of(3), [0, 1, 0]
    assert labelled_of(images, targets).weights is None
    assert labelled_of(images, targets, np.full(3, 7.0)).weights is None
    assert labelled_of(images, targets, np.ones(3), scale_weights=False).weights is None
    kept = labelled_of(images, targets, np.full(3, 7.0), scale_weights=False)
    assert_array_equal(kept.weights, [7, 7, 7])


def test_some_rows_have_labels():
    images = images_of(8)
    looked_at = np.array([7, 1, 4, 2])
    given = np.array([0, 2, 3])
    data = distinct_images(images, looked_at).labelled(given, np.array([3, 0, 5]))
    assert dict(zip(data.rows, data.targets, strict=True)) == {7: 3, 4: 0, 2: 5}
    assert len(data) == 3


def test_the_statistics_of_a_labelled_set_are_those_of_all_images():
    images = images_of(6)
    every = distinct_of(images)
    few = every.labelled(np.arange(2), np.array([0, 1]))
    assert_array_equal(few.mean, every.mean)
    assert_array_equal(few.scale, every.scale)


def test_positions_take_rows_with_their_targets_and_weights():
    data = labelled_of(images_of(5), range(5), np.arange(1.0, 6.0))
    taken = data.take(np.array([3, 0]))
    assert by_content(taken) == [by_content(data)[k] for k in (3, 0)]
    assert taken.images is data.images
    without = distinct_of(images_of(3)).take([1])
    assert (len(without), without.targets, without.weights) == (1, None, None)


def test_the_digest_of_a_labelled_set_depends_on_all_that_is_learned():
    images, targets = images_of(9), np.arange(9) % 3
    weights = np.linspace(1, 2, 9)
    first = labelled_of(images, targets, weights).digest
    order = RNG.permutation(9)
    again = labelled_of(images[order], targets[order], weights[order])
    assert again.digest == first
    # A repeated row is a row with the sum of the weights.
    repeated = np.append(np.arange(9), 4)
    halves = np.append(weights, weights[4] / 2)
    halves[4] /= 2
    assert labelled_of(images[repeated], targets[repeated], halves).digest == first
    others = [
        labelled_of(images, (targets + 1) % 3, weights),
        labelled_of(images, targets, weights[::-1]),
        labelled_of(images, targets),
        labelled_of(images_of(9), targets, weights),
        labelled_of(images[:8], targets[:8], weights[:8]),
        distinct_of(images),
    ]
    assert len({first, *(other.digest for other in others)}) == 7
