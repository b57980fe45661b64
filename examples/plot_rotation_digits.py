"""
Few labels, many images: handwritten digits
===========================================

Of 1,797 handwritten digits, 1,297 are for training, but only a few of these have a
label. How much do the others help? The table compares a network that learns from the
labels alone with one that learns from all images. The data come with scikit-learn.

Without a screen the figures are written to the folder ``figures`` beside this script.
"""

# %%
# The data: all training images, five labels per class
# ----------------------------------------------------

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.semi_supervised import LabelSpreading

from skssl import (
    PredictionDisplay,
    PretextDisplay,
    SelfSupervisedClassifier,
    TrainingCurveDisplay,
)

LABELS_PER_CLASS = 5
SEEDS = [0, 1]

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, test_size=500, stratify=y, random_state=0
)


def keep_few_labels(y, random_state):
    """Return y with -1, the mark of an unlabelled row, for all but a few rows."""
    rng = np.random.default_rng(random_state)
    labelled = np.concatenate(
        [
            rng.permutation(np.flatnonzero(y == label))[:LABELS_PER_CLASS]
            for label in np.unique(y)
        ]
    )
    few = np.full_like(y, -1)
    few[labelled] = y[labelled]
    return few


# %%
# From the labels alone to all images
# -----------------------------------
# The same network learns from the labels alone, then with augmentation, then with all
# that `SelfSupervisedClassifier` does: it pretrains on all images, fine-tunes, and
# learns on from the images without a label. scikit-learn's `LabelSpreading` learns from
# all images, too.

methods = {
    "LabelSpreading": make_pipeline(
        PCA(50), LabelSpreading(kernel="knn", n_neighbors=10)
    ),
    "labels alone": SelfSupervisedClassifier(
        pretrain_epochs=0, augmentation=None, self_training=None
    ),
    "augmented": SelfSupervisedClassifier(pretrain_epochs=0, self_training=None),
    "all stages": SelfSupervisedClassifier(),
}
scores = {name: [] for name in methods}
for seed in SEEDS:
    y_few = keep_few_labels(y_train, seed)
    for name, clf in methods.items():
        if isinstance(clf, SelfSupervisedClassifier):
            clf.set_params(random_state=seed)
        scores[name].append(clf.fit(X_train, y_few).score(X_test, y_test))

print(f"Accuracy on {len(y_test)} test images, {LABELS_PER_CLASS} labels per class")
for name, values in scores.items():
    print(f"{name:16}", *(f"{value:.3f}" for value in values))
print(f"Rotation accuracy on the test images: {clf.score_pretext(X_test):.3f}")

# %%
# What the network sees
# ---------------------
# First the pretext task, then the digits; mistakes are red.

figures = {
    "digits_rotations": PretextDisplay.from_estimator(
        clf, X_test, n_samples=10, random_state=0, title="Which way up?"
    ),
    "digits_predictions": PredictionDisplay.from_estimator(
        clf, X_test, y_test, n_samples=10, random_state=0, title="Which digit?"
    ),
    "digits_training": TrainingCurveDisplay.from_estimator(clf, title="Training"),
}

# %%
# Show the figures, or save them where there is no screen.

if matplotlib.get_backend().lower() == "agg" and "__file__" in globals():
    folder = Path(__file__).parent / "figures"
    folder.mkdir(exist_ok=True)
    for name, display in figures.items():
        display.figure_.savefig(folder / f"{name}.png", dpi=120)
    print(f"Figures are in {folder}")
else:
    plt.show()
