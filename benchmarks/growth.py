"""Time per epoch of pretraining, from 1,000 to 60,000 images, which should be linear.

python benchmarks/growth.py [--data mnist.npz]
    Draws benchmarks/figures/growth.png.
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from _mnist import load_mnist
from _timing import seconds

from skssl import SelfSupervisedEncoder

matplotlib.use("agg")


def epoch_seconds(images, n_extra):
    """Return the time of one epoch, from the difference between two fits."""
    durations = [
        seconds(lambda n=epochs: SelfSupervisedEncoder(epochs=n).fit(images))[0]
        for epochs in (1, 1 + n_extra)
    ]
    return (durations[1] - durations[0]) / n_extra


def plot(sizes, medians, path):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    axes.plot(sizes, medians, "o", label="measured")
    rate = medians[-1] / sizes[-1]
    axes.plot([0, sizes[-1]], [0, medians[-1]], label=f"{1e6 * rate:.0f} µs per image")
    axes.set(xlabel="images", ylabel="seconds per epoch", title="Pretraining on MNIST")
    axes.legend()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"Figure: {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="mnist.npz; without it Keras downloads it")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=[1000, 3000, 10_000, 30_000, 60_000],
    )
    arguments = parser.parse_args()
    (images, _), _ = load_mnist(arguments.data)
    sizes = arguments.sizes
    epoch_seconds(images[: sizes[0]], 1)  # warms up
    times = np.array(
        [
            [epoch_seconds(images[:n], max(1, 10_000 // n)) for n in sizes]
            for _ in range(arguments.repeats)  # all sizes in turn
        ]
    )
    per_image = 1e6 * times / sizes
    relative = np.median(per_image / per_image[:, -1:], axis=0)
    for n, column, ratio in zip(sizes, per_image.T, relative, strict=True):
        print(
            f"{n:6} images: {np.median(column):.0f} µs per image and epoch, from "
            f"{column.min():.0f} to {column.max():.0f}; {ratio:.2f} of that of "
            f"{sizes[-1]}"
        )
    worst = np.abs(relative - 1).max()
    print(f"largest deviation from linear: {worst:.0%} (target 15% or less)")
    name = Path(__file__).parent / "figures" / "growth.png"
    plot(sizes, np.median(times, axis=0), name)


if __name__ == "__main__":
    main()
