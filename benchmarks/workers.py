"""A training by two workers of one thread each, against one process of two threads.

python benchmarks/workers.py [--data mnist.npz] [--pairs 5]
    Pretraining of one epoch and fine-tuning of 1,000 labels. Time is that of `fit`,
    without imports; the accuracy on 10,000 test images is printed beside it.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time

import numpy as np
from _mnist import load_mnist


def fit_once(path, n_images):
    """Fit under the strategy that TF_CONFIG asks for; print seconds and accuracy."""
    import tensorflow as tf

    has_workers = "TF_CONFIG" in os.environ
    strategies = tf.distribute
    strategy = (
        strategies.MultiWorkerMirroredStrategy()
        if has_workers
        else strategies.get_strategy()
    )
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
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n_workers)]
    addresses = [f"127.0.0.1:{x.getsockname()[1]}" for x in sockets]
    for x in sockets:
        x.close()
    command = [sys.executable, __file__, "--once", "--images", str(arguments.images)]
    command += ["--data", arguments.data] if arguments.data else []
    processes = []
    for index in range(n_workers):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment["OMP_NUM_THREADS"] = str(2 // n_workers)
        if n_workers > 1:
            task = {"type": "worker", "index": index}
            config = {"cluster": {"worker": addresses}, "task": task}
            environment["TF_CONFIG"] = json.dumps(config)
        processes.append(
            subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, text=True
            )
        )
    lines = [process.communicate()[0].splitlines()[-1] for process in processes]
    seconds, accuracies = np.transpose(
        [[float(x) for x in row.split()] for row in lines]
    )
    assert len(set(accuracies)) == 1
    return seconds.max(), accuracies[0]


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
