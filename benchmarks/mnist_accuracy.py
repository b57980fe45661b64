"""Accuracy on MNIST, with and without pretraining.

python benchmarks/mnist_accuracy.py few-labels [--data mnist.npz] [--seeds 5]
    60,000 images, 10 labels per class, everything else at its default.
python benchmarks/mnist_accuracy.py few-images [--data mnist.npz] [--seeds 3]
    The same with 1,000 images in all, 200 of them labelled.
python benchmarks/mnist_accuracy.py tutorial [--data mnist.npz] [--seeds 3]
    1,000 labelled images, 5 epochs of pretraining and 5 of fine-tuning.
"""

import argparse
import time

import numpy as np
from _mnist import load_mnist
from scikeras.wrappers import KerasClassifier

from skssl import SelfSupervisedClassifier, build_cnn


def few_labels(seed, train, test, n_per_class=10):
    """Return test accuracies without and with pretraining, for the same labels."""
    X, y = train
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(np.flatnonzero(y == k))[:n_per_class] for k in range(10)]
    y_few = np.full(len(y), -1)
    y_few[np.concatenate(rows)] = y[np.concatenate(rows)]
    return with_and_without(seed, X, y_few, test)


def few_images(seed, train, test, n_images=1000, n_labels=200):
    """Return the same accuracies for few images with few labels."""
    rows = np.random.default_rng(seed).permutation(len(train[0]))[:n_images]
    X, y = train[0][rows], train[1][rows].astype(int)
    y[n_labels:] = -1
    return with_and_without(seed, X, y, test)


def with_and_without(seed, X, y_few, test):
    scores = {}
    for name, epochs in [("supervised", 0), ("pretrained", 5)]:
        clf = SelfSupervisedClassifier(
            pretrain_epochs=epochs,
            augmentation=None,
            self_training=None,
            random_state=seed,
        )
        scores[name] = clf.fit(X, y_few).score(*test)
    return scores


def tutorial(seed, train, test):
    """Return rotation accuracy on 200 held-out images, and digits on all 10,000."""
    X, y = train[0][:1000], train[1][:1000]
    scores = {}
    for name, frozen_layers in [("digits", 0), ("digits, convolutions frozen", 4)]:
        clf = SelfSupervisedClassifier(
            KerasClassifier(build_cnn, optimizer="adam", batch_size=64, epochs=5),
            pretrain_epochs=5,
            frozen_layers=frozen_layers,
            augmentation=None,
            self_training=None,
            random_state=seed,
        ).fit(X, y)
        scores["rotation"] = clf.score_pretext(test[0][:200])
        scores[name] = clf.score(*test)
    return scores


RUNS = {"few-labels": few_labels, "few-images": few_images, "tutorial": tutorial}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("setting", choices=RUNS)
    parser.add_argument("--data", help="mnist.npz; without it Keras downloads it")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    run = RUNS[arguments.setting]
    train, test = load_mnist(arguments.data)
    results = []
    for seed in range(arguments.seeds):
        start = time.perf_counter()
        results.append(run(seed, train, test))
        cells = "  ".join(f"{k} {v:.4f}" for k, v in results[-1].items())
        print(f"seed {seed}  {cells}  {time.perf_counter() - start:.0f} s", flush=True)
    for name in results[0]:
        values = [result[name] for result in results]
        print(f"{name}: mean {np.mean(values):.4f}, deviation {np.std(values):.4f}")


if __name__ == "__main__":
    main()
