"""What changing images at random adds to a step of training, and a second view.

python benchmarks/augmentation.py [--data mnist.npz] [--photographs clothes.npz]
    Steps of fine-tuning on 64 images with and without augmentation, and of SimCLR on
    two views of 64 images against fine-tuning with augmentation. The default network,
    images of 28 by 28 pixels and, with --photographs, of 64 by 64 in colour.
"""

import argparse

import numpy as np
from _mnist import load_mnist
from _timing import seconds, spread

from skssl import SelfSupervisedClassifier, SelfSupervisedEncoder, SimCLRPretext

BATCH = 64
EPOCHS = 2, 8


def step_seconds(fit, n_steps):
    """Return the time of a step, from the difference between a short and a long fit."""
    few, many = (seconds(lambda n=n: fit(n))[0] for n in EPOCHS)
    return (many - few) / (EPOCHS[1] - EPOCHS[0]) / n_steps


def measure(name, images, labels, n_rounds):
    """Print the ratios of the times of steps."""
    from scikeras.wrappers import KerasClassifier

    from skssl import build_cnn

    def fine_tuning(augmentation):
        def fit(epochs):
            SelfSupervisedClassifier(
                KerasClassifier(
                    build_cnn, optimizer="adam", batch_size=BATCH, epochs=epochs
                ),
                pretrain_epochs=0,
                augmentation=augmentation,
                self_training=None,
            ).fit(images, labels)

        return fit

    def two_views(epochs):
        SelfSupervisedEncoder(
            pretext=SimCLRPretext(), epochs=epochs, batch_size=2 * BATCH
        ).fit(images)

    fits = [fine_tuning(None), fine_tuning("auto"), two_views]
    for fit in fits:
        fit(1)  # traces
    n_steps = len(images) // BATCH
    times = np.array(
        [[step_seconds(fit, n_steps) for fit in fits] for _ in range(n_rounds)]
    )
    plain, augmented, views = times.T
    print(f"{name}: a step takes {1000 * np.median(plain):.1f} ms")
    print(f"  with augmentation: {spread(augmented / plain)} (target 1.15 or less)")
    print(f"  two views: {spread(views / augmented)} (target 2.1 or less)", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="mnist.npz; without it Keras downloads it")
    parser.add_argument("--photographs", help="a file like mnist.npz")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    n_images = 40 * BATCH
    (X, y), _ = load_mnist(arguments.data)
    measure("28 by 28", X[:n_images], y[:n_images], arguments.rounds)
    if arguments.photographs:
        (X, y), _ = load_mnist(arguments.photographs)
        measure("64 by 64 in colour", X[:n_images], y[:n_images], arguments.rounds)


if __name__ == "__main__":
    main()
