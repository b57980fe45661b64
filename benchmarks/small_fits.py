"""Fits on 100 images of 8x8, one epoch of each stage, which are mostly fixed cost.

python benchmarks/small_fits.py
    Against Keras; the first fit of the process is not counted.
"""

import argparse
import contextlib
import time

from _rivals import (
    keras_pretraining,
    standardized,
    turned_in_a_loop,
    with_new_head,
)
from _timing import alternate, seconds, spread
from scikeras.wrappers import KerasClassifier
from sklearn.datasets import load_digits
from tensorflow.python.eager.polymorphic_function import tracing_compilation

import skssl._networks.network
from skssl import SelfSupervisedClassifier, build_cnn


@contextlib.contextmanager
def time_inside(module, name):
    """Yield a list of the seconds spent in each outermost call of a function."""
    function, durations, depth = getattr(module, name), [], 0

    def timed(*args, **kwargs):
        nonlocal depth
        depth, start = depth + 1, time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            depth -= 1
            if not depth:
                durations.append(time.perf_counter() - start)

    setattr(module, name, timed)
    try:
        yield durations
    finally:
        setattr(module, name, function)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    arguments = parser.parse_args()
    X, y = load_digits(return_X_y=True)
    X, y = X[:100].reshape(-1, 8, 8), y[:100]
    network = KerasClassifier(build_cnn, optimizer="adam", batch_size=64, epochs=1)

    def ours():
        SelfSupervisedClassifier(network, pretrain_epochs=1, augmentation=None).fit(
            X, y
        )

    def theirs():
        images = standardized(X)
        model = keras_pretraining(*turned_in_a_loop(images), epochs=1)
        model = with_new_head(model, 10, frozen=0)
        model.fit(images, y, epochs=1, batch_size=64, verbose=0)

    alternate(ours, theirs, rival="Keras", n_pairs=arguments.pairs, target=2.0)
    for name, job in [("skssl", ours), ("Keras", theirs)]:
        parts = {"building": [], "tracing": [], "training and everything else": []}
        for _ in range(arguments.pairs):
            with (
                time_inside(skssl._networks.network, "build_network") as building,
                time_inside(tracing_compilation, "trace_function") as tracing,
            ):
                whole, _ = seconds(job)
            spent = sum(building), sum(tracing)
            for part, value in zip(parts, [*spent, whole - sum(spent)], strict=True):
                parts[part].append(1000 * value)
        for part, values in parts.items():
            if any(values):  # for Keras, building counts as everything else
                print(f"{name}, ms of {part}: {spread(values)}")


if __name__ == "__main__":
    main()
