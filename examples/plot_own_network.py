"""
A network of keras.applications
===============================

Pretraining is for any Keras network, here for the smallest MobileNetV2, with random
weights and ten labels of each hand sign. Give the photographs with
``--data signs.npz``, with arrays `x_train`, `y_train`, `x_test` and `y_test`, the
images as bytes of shape (n, 64, 64, 3). Without it, the example makes images of its
own, digits in random colours, of which MobileNetV2 learns very little.
``--weights imagenet`` downloads what the network has learned of other photographs, and
starts from there.
"""

# %%
# The photographs
# ---------------
# At half their size, 32 by 32 pixels, they take less time.

import argparse

import keras
import matplotlib.pyplot as plt
import numpy as np
from scikeras.wrappers import KerasClassifier
from sklearn.datasets import load_digits

from skssl import SelfSupervisedClassifier, build_cnn

parser = argparse.ArgumentParser()
parser.add_argument("--data")
parser.add_argument("--weights")
options = parser.parse_args()


def colored_digits():
    """Return digits in random colours on random colours, and their labels."""
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    ink, paper = rng.integers(256, size=(2, len(X), 1, 1, 3))
    share = X.reshape(-1, 8, 8, 1).repeat(8, axis=1).repeat(8, axis=2) / 16
    return (share * ink + (1 - share) * paper).astype(np.uint8), y


if options.data:
    with np.load(options.data) as file:
        X_train, y_train, X_test, y_test = (
            file[name] for name in ("x_train", "y_train", "x_test", "y_test")
        )
else:
    X, y = colored_digits()
    X_train, y_train, X_test, y_test = X[:1297], y[:1297], X[1297:], y[1297:]
X_train, X_test = (
    X.reshape(-1, 32, 2, 32, 2, 3).mean(axis=(2, 4)).astype(np.uint8)
    for X in (X_train, X_test)
)
order = np.random.default_rng(0).permutation(len(y_train))
few = np.concatenate([order[y_train[order] == k][:10] for k in range(10)])
y_few = np.full(len(y_train), -1)
y_few[few] = y_train[few]


# %%
# The network
# -----------
# Its own preprocessing is part of it, so it takes images from 0 to 255. Its batch
# normalization is made for long training: at each step the running mean and variance,
# which predictions use, keep 0.999 of their value. After a thousand steps they still
# hold a third of where they started. The network then has learned in training, and yet
# its predictions are guesses. With a momentum of 0.9 they follow in time.


def mobilenet(meta):
    """Return a MobileNetV2 with a class head."""
    inputs = keras.Input(meta["X_shape_"][1:])
    base = keras.applications.MobileNetV2(
        alpha=0.35,
        include_top=False,
        weights=options.weights,
        input_shape=inputs.shape[1:],
        pooling="avg",
    )
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9
    x = keras.applications.mobilenet_v2.preprocess_input(inputs)
    outputs = keras.layers.Dense(meta["n_classes_"], activation="softmax")(base(x))
    return keras.Model(inputs, outputs)


# %%
# With and without pretraining
# ----------------------------
# Eight passes over all photographs, each in four positions, teach which way up a hand
# is. Then the labels: 200 passes over 100 photographs.


def fitted(build, epochs=200, **settings):
    """Return a classifier that has learned from ten labels of each class."""
    network = KerasClassifier(build, optimizer="adam", batch_size=64, epochs=epochs)
    clf = SelfSupervisedClassifier(
        network, self_training=None, random_state=0, **settings
    )
    return clf.fit(X_train, y_few)


alone = fitted(mobilenet, pretrain_epochs=0)
pretrained = fitted(mobilenet, pretrain_epochs=8)
print(f"which way up: {pretrained.score_pretext(X_test):.3f} of the test images")

# %%
# Two phases
# ----------
# First the head alone, behind frozen layers, then all layers at a lower rate. The
# pretrained network is in ``encoder_``, so nothing is pretrained again. On the hand
# signs this comes out behind. It is meant for a network that has learned more than
# which way up a hand is.

two_phases = fitted(
    mobilenet,
    encoder=pretrained.encoder_,
    frozen_layers="all",
    unfreeze_epochs=200,
    unfreeze_learning_rate=3e-4,
)

# %%
# Beside the default network
# --------------------------
# It is made for few images, and has no batch normalization.

classifiers = {
    "MobileNetV2, labels alone": alone,
    "MobileNetV2, pretrained": pretrained,
    "MobileNetV2, pretrained, two phases": two_phases,
    "default network, pretrained": fitted(build_cnn, pretrain_epochs=8),
}
scores = {name: clf.score(X_test, y_test) for name, clf in classifiers.items()}
figure, ax = plt.subplots(figsize=(8, 2.8), layout="constrained")
bars = ax.barh(list(scores), list(scores.values()), color=["C7", "C0", "C0", "C1"])
ax.bar_label(bars, fmt="%.2f", padding=3)
ax.axvline(0.1, color="k", linestyle=":")
ax.text(0.11, -0.75, "chance", va="center", fontsize="small")
ax.set(xlim=(0, 1), ylim=(3.6, -1.1), xlabel="accuracy on test images")
plt.show()
