"""MNIST, from a file or from Keras."""

import numpy as np


def load_mnist(path):
    """Return ((x_train, y_train), (x_test, y_test)), images as bytes."""
    if path is None:
        import keras

        return keras.datasets.mnist.load_data()
    with np.load(path) as data:
        return (
            (data["x_train"], data["y_train"]),
            (data["x_test"], data["y_test"]),
        )
