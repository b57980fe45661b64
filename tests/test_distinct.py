import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skssl._data.training_set import distinct_images, merge_equal_rows

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
    assert_array_equal(distinct.rows, np.arange(0, 8000, 2))
    assert_array_equal(distinct.index, np.arange(4000).repeat(2))


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


@pytest.mark.parametrize(
    "rescale", [lambda X: X / 255, lambda X: X * 3.5 - 100, lambda X: X.astype(float)]
)
def test_the_order_does_not_depend_on_the_scale(rescale):
    images = images_of(50)
    images[:3] = np.array([7, 5, 6])[:, None, None, None]  # alike but for the value
    distinct = distinct_of(images)
    assert_array_equal(distinct_of(rescale(images)).rows, distinct.rows)
    assert distinct_of(rescale(images)).digest != distinct.digest


@pytest.mark.parametrize("rescale", [lambda X: X / 3, lambda X: X * 7 + 1])
def test_rises_falls_and_level_steps_all_count_for_the_order(rescale):
    pixels = ["222", "114", "330", "033", "024", "141", "411", "420", "303"]
    images = np.array([list(map(int, p)) for p in pixels]).reshape(9, 1, 3, 1)
    # All have the same sum, so that nothing but the steps tells them apart.
    assert_array_equal(distinct_of(rescale(images)).rows, distinct_of(images).rows)


def test_sums_of_large_images_are_exact():
    images = np.full((8, 300, 300, 1), 250, np.uint8)  # beyond 2**24, float32 rounds
    images[:, -1, -1, 0] = np.arange(8)
    assert_array_equal(distinct_of(images).rows, np.arange(8))
    assert_array_equal(distinct_of(images.astype(float)).rows, np.arange(8))


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
    assert_array_equal(distinct_of(images).rows, [1, 2, 0])


def test_weights_of_equal_rows_are_added():
    index, targets = np.array([1, 0, 1, 1]), np.array([0, 1, 0, 1])
    merged = merge_equal_rows(index, targets, np.array([1.0, 2.0, 3.0, 4.0]))
    assert_array_equal(merged[0], [0, 1, 1])
    assert_array_equal(merged[1], [1, 0, 1])
    assert_allclose(merged[2], np.array([2, 4, 4]) / (10 / 3))
    assert_allclose(merge_equal_rows(index, targets, None)[2], [0.75, 1.5, 0.75])


def test_equal_weights_are_none():
    index, targets = np.arange(3), np.array([0, 1, 0])
    assert merge_equal_rows(index, targets, None)[2] is None
    assert merge_equal_rows(index, targets, np.full(3, 7.0))[2] is None
