"""
Few labels, many images: handwritten digits
===========================================

Of 1,797 handwritten digits, 1,297 are for training, but only a few of these have a
label. Does a network do better if it first learns, from all of them, which way up an
image is? The table compares it with the same network without pretraining. The data come
with scikit-learn.

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
from sklearn.model_selection import train_test_split

from skssl import (
    PredictionDisplay,
    PretextDisplay,
    SelfSupervisedClassifier,
    TrainingCurveDisplay,
)

LABELS_PER_CLASS = 5
SEEDS = [0, 1, 2]

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
# With and without pretraining
# ----------------------------
# Both networks are the same and train on the same labels; `pretrain_epochs=0` leaves
# out pretraining.

scores = []
for seed in SEEDS:
    y_few = keep_few_labels(y_train, seed)
    supervised = SelfSupervisedClassifier(pretrain_epochs=0, random_state=seed)
    clf = SelfSupervisedClassifier(pretrain_epochs=20, random_state=seed)
    scores.append(
        [model.fit(X_train, y_few).score(X_test, y_test) for model in (supervised, clf)]
    )

print(f"Accuracy on {len(y_test)} test images, {LABELS_PER_CLASS} labels per class")
print("seed    without  with pretraining")
for seed, (without, pretrained) in zip(SEEDS, scores, strict=True):
    print(f"{seed:4}    {without:7.3f}  {pretrained:16.3f}")
without, pretrained = np.mean(scores, axis=0)
print(f"mean    {without:7.3f}  {pretrained:16.3f}")
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

if matplotlib.get_backend().lower() == "agg":
    folder = Path(__file__).parent / "figures"
    folder.mkdir(exist_ok=True)
    for name, display in figures.items():
        display.figure_.savefig(folder / f"{name}.png", dpi=120)
    print(f"Figures are in {folder}")
else:
    plt.show()
