"""A training by two workers of one thread each, against one process of two threads.

python benchmarks/workers.py [--data mnist.npz] [--pairs 5]
    Pretraining of one epoch and fine-tuning of 1,000 labels. Time is that of `fit`,
    without imports; the accuracy on 10,000 test images is printed beside it.
"""

import argparse
import time

import numpy as np
from _mnist import load_mnist
from _workers import run_workers, strategy_of_process


def fit_once(path, n_images):
    """Fit under the strategy that TF_CONFIG asks for; print seconds and accuracy."""
    strategy = strategy_of_process()
    from skssl import SelfSupervisedClassifier

    (X, y), (X_test, y_test) = load_mnist(path)
    X, y = (
        X[:n_images],
        np.where(np.arange(n_images) < 1000, y[:n_images].astype(int), -1),
    )
    with strategy.scope():
        classifier = SelfSupervisedClassifier(
            pretrain_epochs=1, augmentation=None, self_training=None, random_state=0
        )
        start = time.perf_counter()
        classifier.fit(X, y)
        seconds = time.perf_counter() - start
    print(seconds, classifier.score(X_test, y_test))


def run(n_workers, arguments):
    """Return the seconds of the slowest worker, and the accuracy."""
    data = ["--data", arguments.data] if arguments.data else []
    rows = run_workers(
        n_workers, __file__, "--once", "--images", arguments.images, *data
    )
    seconds, accuracies = zip(*rows, strict=True)
    assert len(set(accuracies)) == 1
    return max(seconds), accuracies[0]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="mnist.npz; without it Keras downloads it")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--once", action="store_true")
    arguments = parser.parse_args()
    if arguments.once:
        fit_once(arguments.data, arguments.images)
        return
    ratios = []
    for _ in range(arguments.pairs):
        alone, accuracy = run(1, arguments)
        together, other_accuracy = run(2, arguments)
        ratios.append(together / alone)
        print(
            f"one process {alone:.1f} s, {accuracy:.4f}; two workers {together:.1f} s, "
            f"{other_accuracy:.4f}: {ratios[-1]:.2f}",
            flush=True,
        )
    print(
        f"two workers take {np.median(ratios):.2f} ({min(ratios):.2f} to "
        f"{max(ratios):.2f}) of the time of one process (target 1.15 or less)"
    )


if __name__ == "__main__":
    main()
