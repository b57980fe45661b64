"""Fine-tuning with frozen convolutions, against Keras with trainable=False.

python benchmarks/frozen_layers.py [--data mnist.npz]
    Both sides start from the same pretrained weights.
"""

import argparse

import numpy as np
from _mnist import load_mnist
from _rivals import plain_cnn, standardized, with_new_head
from _timing import alternate
from scikeras.wrappers import KerasClassifier
from sklearn.frozen import FrozenEstimator

from skssl import SelfSupervisedClassifier, SelfSupervisedEncoder, build_cnn


def plain_copy(encoder, image_shape):
    """Return a network made with Keras alone, with the weights of a backbone."""
    model = plain_cnn(image_shape, 4)
    own = {tuple(weight.shape) for weight in model.weights}
    weights = [w for w in encoder.backbone_.get_weights() if w.shape in own]
    model.set_weights(weights[-6:] + model.get_weights()[-2:])
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="mnist.npz; without it Keras downloads it")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    (X, y), (X_test, y_test) = load_mnist(arguments.data)
    X, y = X[: arguments.images], y[: arguments.images]
    network = KerasClassifier(
        build_cnn, optimizer="adam", batch_size=64, epochs=arguments.epochs
    )
    encoder = SelfSupervisedEncoder(network, epochs=1, random_state=0).fit(X[:1000])
    pretrained = plain_copy(encoder, (28, 28, 1))

    def ours():
        classifier = SelfSupervisedClassifier(
            network,
            encoder=FrozenEstimator(encoder),
            frozen_layers=4,
            augmentation=None,
        ).fit(X, y)
        return lambda: classifier.score(X_test, y_test)

    def theirs():
        model = with_new_head(pretrained, 10, frozen=4)
        model.fit(standardized(X), y, epochs=arguments.epochs, batch_size=64, verbose=0)
        images = (X_test[..., np.newaxis] - X.mean()) / X.std()
        return lambda: model.evaluate(images, y_test, verbose=0)[1]

    alternate(ours, theirs, rival="Keras", n_pairs=arguments.pairs, target=5.0)


if __name__ == "__main__":
    main()
