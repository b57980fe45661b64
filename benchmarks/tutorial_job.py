"""The tutorial: pretrain, freeze the convolutions, fine-tune, and predict twice.

1,000 images for training and 200 to predict, 5 epochs of each stage; the rotations of
the 200 images are predicted, then their digits.

python benchmarks/tutorial_job.py [--data mnist.npz] [--imports]
    --imports: in fresh processes, time to import the libraries included.
"""

import argparse
import time

import numpy as np
from _mnist import load_mnist
from _timing import alternate, in_fresh_process


def with_skssl(train, test, epochs):
    from scikeras.wrappers import KerasClassifier

    from skssl import SelfSupervisedClassifier, build_cnn

    classifier = SelfSupervisedClassifier(
        KerasClassifier(build_cnn, optimizer="adam", batch_size=64, epochs=epochs),
        pretrain_epochs=epochs,
        frozen_layers=4,
        augmentation=None,
        self_training=None,
    ).fit(*train)
    rotations = classifier.predict_pretext(test[0])
    digits = classifier.predict(test[0])
    return np.mean(rotations == np.arange(4)), np.mean(digits == test[1])


def with_keras(train, test, epochs):
    from _rivals import (
        keras_pretraining,
        standardized,
        turned_in_a_loop,
        with_new_head,
    )

    images, test_images = standardized(train[0]), standardized(test[0])
    model = keras_pretraining(*turned_in_a_loop(images), epochs)
    turned, turns = turned_in_a_loop(test_images)
    rotations = model.predict(turned, verbose=0).argmax(axis=1)
    model = with_new_head(model, 10, frozen=4)
    model.fit(images, train[1], epochs=epochs, batch_size=64, verbose=0)
    digits = model.predict(test_images, verbose=0).argmax(axis=1)
    return np.mean(rotations == turns), np.mean(digits == test[1])


JOBS = {"skssl": with_skssl, "keras": with_keras}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="mnist.npz; without it Keras downloads it")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--imports", action="store_true")
    parser.add_argument("--once", choices=JOBS, help="one side alone; prints seconds")
    arguments = parser.parse_args()
    (X, y), (X_test, y_test) = load_mnist(arguments.data)
    data = (X[:1000], y[:1000]), (X_test[:200], y_test[:200]), arguments.epochs
    if arguments.once:
        start = time.perf_counter()
        JOBS[arguments.once](*data)
        print(time.perf_counter() - start)
        return
    rotations = {name: [] for name in JOBS}

    def job(name):
        def run():
            rotation, digit = JOBS[name](*data)
            rotations[name].append(rotation)
            return lambda: digit

        return run

    def fresh(name):
        # The process of its own starts, imports and reads the data on both sides.
        options = ["--data", arguments.data] if arguments.data else []
        options += ["--once", name, "--epochs", arguments.epochs]
        return lambda: in_fresh_process(__file__, *options) and None

    make_job = fresh if arguments.imports else job
    alternate(
        make_job("skssl"),
        make_job("keras"),
        rival="Keras",
        n_pairs=arguments.pairs,
        n_warm_ups=0 if arguments.imports else 1,
        target=None if arguments.imports else 3.0,
    )
    for name, values in rotations.items():
        if values:
            print(f"rotation accuracy, {name}: mean {np.mean(values):.3f}")


if __name__ == "__main__":
    main()
