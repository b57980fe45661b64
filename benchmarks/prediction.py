"""Prediction: one image against scikeras, 10,000 images against keras.Model.predict.

python benchmarks/prediction.py [--data mnist.npz]
"""

import argparse

import numpy as np
from _mnist import load_mnist
from _rivals import plain_cnn, scikeras_classifier, standardized
from _timing import alternate

from skssl import SelfSupervisedClassifier


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="mnist.npz; without it Keras downloads it")
    parser.add_argument("--pairs", type=int, default=11)
    arguments = parser.parse_args()
    (X, y), (X_test, _) = load_mnist(arguments.data)
    ours = SelfSupervisedClassifier(pretrain_epochs=0).fit(X[:200], y[:200])
    images = standardized(X_test)
    one, theirs_one = X_test[:1], images[:1]
    theirs = scikeras_classifier((28, 28, 1), 10, epochs=1)
    theirs.fit(standardized(X[:200]), y[:200])
    model = plain_cnn((28, 28, 1), 10)

    def predict_one():
        ours.predict(one)

    def predict_all():
        ours.predict(X_test)

    def scikeras_one():
        theirs.predict(theirs_one)

    def keras_all():
        model.predict(images, verbose=0).argmax(axis=1)

    for name, a, b, rival, target in [
        ("one image", predict_one, scikeras_one, "scikeras", 20.0),
        ("10,000 images", predict_all, keras_all, "Keras", 2.0),
    ]:
        print(name)
        times = alternate(
            a, b, rival=rival, n_pairs=arguments.pairs, n_warm_ups=3, target=target
        )
        medians = [1000 * np.median(side) for side in times]
        print(f"medians: skssl {medians[0]:.3g} ms, {rival} {medians[1]:.4g} ms\n")


if __name__ == "__main__":
    main()
