"""
A network of keras.applications
===============================

MobileNetV2 as the network: its own scaling is found and kept, a pretext task trains it
on all images, then fine-tuning has two phases, the head first and then all layers at a
lower rate. With ``--weights imagenet`` the network starts from what it learned on
ImageNet, which Keras downloads. Without, it starts from random weights.
"""

# %%
# The network
# -----------
# A build function, as scikeras takes it. The last dense layer is the class head, all
# before it the backbone.

import argparse

import keras
import matplotlib.pyplot as plt
import numpy as np
from scikeras.wrappers import KerasClassifier
from sklearn.datasets import load_digits

from skssl import SelfSupervisedClassifier, TrainingCurveDisplay

parser = argparse.ArgumentParser()
parser.add_argument("--weights", choices=["imagenet"])
weights = parser.parse_args().weights


def mobile_net(meta, weights=None):
    """Return MobileNetV2 with a third of its filters and a class head."""
    inputs = keras.Input(meta["X_shape_"][1:])
    base = keras.applications.MobileNetV2(
        input_shape=inputs.shape[1:],
        alpha=0.35,
        include_top=False,
        weights=weights,
        pooling="avg",
    )
    x = keras.applications.mobilenet_v2.preprocess_input(inputs)
    outputs = keras.layers.Dense(meta["n_classes_"], activation="softmax")(base(x))
    return keras.Model(inputs, outputs)


# %%
# Images of the size and scale that it takes
# ------------------------------------------
# Digits of 32 by 32 pixels with three channels from 0 to 255.

X, y = load_digits(return_X_y=True)
X = X.reshape(-1, 8, 8, 1).repeat(4, axis=1).repeat(4, axis=2).repeat(3, axis=3)
X = (X * (255 / 16)).astype(np.uint8)
y_few = np.where(np.arange(1000) < 200, y[:1000], -1)

# %%
# With and without pretraining
# ----------------------------
# The backbone is frozen in the first phase. ``epochs`` counts those of the head,
# ``unfreeze_epochs`` those of all layers.

clf = SelfSupervisedClassifier(
    KerasClassifier(
        mobile_net, model__weights=weights, optimizer="adam", epochs=20, batch_size=32
    ),
    pretrain_epochs=5,
    frozen_layers="all",
    unfreeze_epochs=20,
    unfreeze_learning_rate=1e-4,
    self_training=None,
    random_state=0,
)
for epochs in 0, 5:
    clf.set_params(pretrain_epochs=epochs).fit(X[:1000], y_few)
    print(f"{epochs} epochs of pretraining: {clf.score(X[1000:], y[1000:]):.3f}")

# %%
# Both phases in one curve
# ------------------------
# From epoch 21 on, all layers learn.

TrainingCurveDisplay.from_estimator(clf)
plt.show()
