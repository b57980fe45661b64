"""
Photographs of hand signs
=========================

Ten hand signs for the digits, about 1,500 photographs, ten labels of each: the other
photographs teach without a label. Give the file with ``--data signs.npz``, with arrays
`x_train`, `y_train`, `x_test` and `y_test`, the images as bytes of shape
(n, 64, 64, 3). Without it, the example makes images of its own: digits in random
colours.
"""

# %%
# The photographs
# ---------------
# At half their size, 32 by 32 pixels, they take a quarter of the time.

import argparse

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.svm import SVC

from skssl import PredictionDisplay, PretextDisplay, SelfSupervisedClassifier
from skssl.self_training import FixMatch

parser = argparse.ArgumentParser()
parser.add_argument("--data")
path = parser.parse_args().data


def colored_digits():
    """Return digits in random colours on random colours, and their labels."""
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    ink, paper = rng.integers(256, size=(2, len(X), 1, 1, 3))
    share = X.reshape(-1, 8, 8, 1).repeat(8, axis=1).repeat(8, axis=2) / 16
    return (share * ink + (1 - share) * paper).astype(np.uint8), y


if path:
    with np.load(path) as file:
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

# %%
# Ten labels of each sign
# -----------------------

rng = np.random.default_rng(0)
order = rng.permutation(len(y_train))
few = np.concatenate([order[y_train[order] == k][:10] for k in range(10)])
y_few = np.full(len(y_train), -1)
y_few[few] = y_train[few]
print(f"{len(few)} labels, {len(y_train) - len(few)} photographs without one")

# %%
# Training
# --------
# The classifier is told nothing about photographs: at three channels "auto" changes
# colours, brightness and contrast as well. A thousand steps of FixMatch alone take less
# time than the default.

clf = SelfSupervisedClassifier(self_training=FixMatch(n_steps=1000), random_state=0)
clf.fit(X_train, y_few)
rows_train, rows_test = (X.reshape(len(X), -1) for X in (X_train, X_test))
svc = SVC(C=10).fit(rows_train[few], y_train[few])
print(f"SVC {svc.score(rows_test, y_test):.3f}")
print(f"skssl {clf.score(X_test, y_test):.3f}")

# %%
# What it learned first
# ---------------------
# Which way up is a hand? These are test images, turned.

PretextDisplay.from_estimator(clf, X_test, n_samples=10, random_state=0)

# %%
# What it says of test images
# ---------------------------

PredictionDisplay.from_estimator(clf, X_test, y_test, n_samples=15, random_state=1)

# %%
# Which signs it takes for each other
# -----------------------------------

ConfusionMatrixDisplay.from_estimator(clf, X_test, y_test, colorbar=False)
plt.show()
