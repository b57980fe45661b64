"""Time and memory of a fit, for 1,000 to 1,000,000 images and one or two workers.

python benchmarks/scale.py
    Images of 32 by 32 pixels in colour, in a file that is mapped, and 1,000 labels. One
    epoch of rotation and one of fine-tuning, with a network that takes hardly any time,
    so that what grows is all else. Draws benchmarks/figures/scale.png.
python benchmarks/scale.py --default --sizes 10000
    The same with the default network.
"""

import argparse
import tempfile
import threading
import time
from pathlib import Path

import matplotlib
import numpy as np
from _workers import run_workers, strategy_of_process
from memory import COLOUR, tiny_network, watch

matplotlib.use("agg")
N_LABELS = 1000


def fit_once(path, n_images, is_default):
    """Fit in this worker; print seconds and the peak of private memory in MB."""
    strategy = strategy_of_process()
    from scikeras.wrappers import KerasClassifier

    from skssl import SelfSupervisedClassifier, build_cnn

    X = np.memmap(path, np.uint8, "r", shape=(n_images, *COLOUR))
    y = np.where(np.arange(n_images) < N_LABELS, np.arange(n_images) % 4, -1)
    network = build_cnn if is_default else tiny_network
    with strategy.scope():
        classifier = SelfSupervisedClassifier(
            KerasClassifier(network, optimizer="adam", epochs=1, batch_size=64),
            pretrain_epochs=1,
            pretrain_batch_size=256,
            self_training=None,
            random_state=0,
        )
        peaks = {"RssAnon": 0.0}
        threading.Thread(target=watch, args=(peaks,), daemon=True).start()
        start = time.perf_counter()
        classifier.fit(X, y)
    print(time.perf_counter() - start, peaks["RssAnon"])


def plot(sizes, results, path):
    """Draw times and peaks of each number of workers."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for n_workers, rows in results.items():
        label = f"{n_workers} worker{'s' * (n_workers > 1)}"
        for ax, values in zip(axes, np.transpose(rows), strict=True):
            ax.plot(sizes, values, "o-", label=label)
    axes[0].set(ylabel="seconds of a fit", yscale="log")
    axes[1].set(ylabel="peak of private memory of a worker, MB", ylim=0)
    for ax in axes:
        ax.set(xscale="log", xlabel="images of 32×32 in colour")
        ax.grid(alpha=0.3)
        ax.legend()
    figure.savefig(path, dpi=100)
    print(f"Figure: {path}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = [1000, 10_000, 100_000, 1_000_000]
    parser.add_argument("--sizes", type=int, nargs="+", default=sizes)
    parser.add_argument("--default", action="store_true")
    parser.add_argument("--once", nargs=2, metavar=("PATH", "IMAGES"))
    arguments = parser.parse_args()
    if arguments.once:
        fit_once(arguments.once[0], int(arguments.once[1]), arguments.default)
        return
    sizes, rng = arguments.sizes, np.random.default_rng(0)
    results = {1: [], 2: []}
    with tempfile.NamedTemporaryFile() as file:
        for n_rows in np.diff(np.linspace(0, max(sizes), 101, dtype=int)):
            file.write(rng.bytes(n_rows * int(np.prod(COLOUR))))
        file.flush()
        for n_images in sizes:
            for n_workers, rows in results.items():
                kind = ["--default"] if arguments.default else []
                once = ["--once", file.name, n_images]
                seconds, peak = np.max(
                    run_workers(n_workers, __file__, *kind, *once), axis=0
                )
                rows.append([seconds, peak])
                print(
                    f"{n_images} images, workers: {n_workers}: {seconds:.1f} s, "
                    f"{peak:.0f} MB",
                    flush=True,
                )
    if len(sizes) > 1:
        plot(sizes, results, Path(__file__).parent / "figures" / "scale.png")


if __name__ == "__main__":
    main()
