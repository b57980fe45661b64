"""
Learning from rotations on MNIST, step by step
==============================================

The eight steps of learning from rotations: load images, turn them, pretrain a network
to tell the angle, look at its predictions, replace its last layer, freeze its first
layers, fine-tune it on labelled digits, and look again.

Run it with ``--data mnist.npz``, or without: then Keras downloads the data.
"""

# %%
# 1. Load the images
# ------------------

import argparse
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from scikeras.wrappers import KerasClassifier

from skssl import (
    PredictionDisplay,
    PretextDisplay,
    RotationPretext,
    SelfSupervisedClassifier,
    SelfSupervisedEncoder,
    TrainingCurveDisplay,
    build_cnn,
)

parser = argparse.ArgumentParser(description="Learning from rotations on MNIST")
parser.add_argument("--data", help="an mnist.npz; without it Keras downloads one")
arguments, _ = parser.parse_known_args()

if arguments.data:
    with np.load(arguments.data) as data:
        X_train, y_train = data["x_train"], data["y_train"]
        X_test, y_test = data["x_test"], data["y_test"]
else:
    from keras.datasets import mnist

    (X_train, y_train), (X_test, y_test) = mnist.load_data()
X_train, y_train = X_train[:1000], y_train[:1000]

# %%
# 2. Turn them
# ------------
# Only to look at them: in training, batches are turned as they are read.

X_task, y_task = RotationPretext().make_task(X_train)
print(
    f"{len(X_train)} images make {len(X_task)} turned ones, labels 0 to {y_task.max()}"
)

# %%
# 3. Pretrain a network to tell the angle
# ---------------------------------------

network = KerasClassifier(build_cnn, optimizer="adam", batch_size=64, epochs=5)
encoder = SelfSupervisedEncoder(network, epochs=5, random_state=0).fit(X_train)

# %%
# 4. Look at its predictions
# --------------------------

print(f"Rotation accuracy on 200 test images: {encoder.score(X_test[:200]):.3f}")
figures = {
    "mnist_rotations": PretextDisplay.from_estimator(
        encoder, X_test, n_samples=10, random_state=0, title="Which way up?"
    )
}

# %%
# 5. to 7. Replace the last layer, freeze, and fine-tune on labelled digits
# -------------------------------------------------------------------------
# ``frozen_layers=4`` keeps both convolutions with their pooling as they are. Training
# all layers (``frozen_layers=0``, the default) ends higher, so compare the two, and
# both with the same network that never saw a rotation. ``augmentation=None`` and
# ``self_training=None`` leave out what the recipe does not have.

settings = {
    "trained from scratch": {"pretrain_epochs": 0},
    "pretrained, convolutions frozen": {"encoder": encoder, "frozen_layers": 4},
    "pretrained, all layers trained": {"encoder": encoder},
}
print(f"Accuracy on {len(X_test)} test digits, with {len(X_train)} labels")
for name, params in settings.items():
    clf = SelfSupervisedClassifier(
        network, augmentation=None, self_training=None, random_state=0, **params
    )
    clf.fit(X_train, y_train)
    print(f"{name:32} {clf.score(X_test, y_test):.3f}")

# %%
# 8. Look again
# -------------

figures["mnist_predictions"] = PredictionDisplay.from_estimator(
    clf, X_test, y_test, n_samples=10, random_state=0, title="Which digit?"
)
figures["mnist_training"] = TrainingCurveDisplay.from_estimator(clf, title="Training")

if matplotlib.get_backend().lower() == "agg" and "__file__" in globals():
    folder = Path(__file__).parent / "figures"
    folder.mkdir(exist_ok=True)
    for name, display in figures.items():
        display.figure_.savefig(folder / f"{name}.png", dpi=120)
    print(f"Figures are in {folder}")
else:
    plt.show()
