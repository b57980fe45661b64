"""Rotation of 1,200 images: RotationPretext against a loop with tf.image.rot90.

python benchmarks/rotation.py
"""

import statistics
import time

import numpy as np
import tensorflow as tf

from skssl import RotationPretext

N_IMAGES, N_PAIRS = 1200, 5


def with_a_loop(images):
    return np.array(
        [[tf.image.rot90(image, k).numpy() for k in range(4)] for image in images]
    )


def timed(function, images):
    start = time.perf_counter()
    views = function(images)
    return time.perf_counter() - start, views


def main():
    images = np.random.default_rng(0).random((N_IMAGES, 28, 28, 1), dtype=np.float32)
    ratios = []
    for _ in range(N_PAIRS):
        theirs, expected = timed(with_a_loop, images)
        ours, views = timed(RotationPretext().fit_transform, images)
        np.testing.assert_array_equal(views, expected)
        ratios.append(theirs / ours)
        print(f"loop {theirs:.2f} s, RotationPretext {1000 * ours:.1f} ms")
    print(
        f"ratio: median {statistics.median(ratios):.0f}, from {min(ratios):.0f} "
        f"to {max(ratios):.0f}"
    )


if __name__ == "__main__":
    main()
