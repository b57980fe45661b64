"""
Which 20 images should be labelled?
===================================

Labels cost time, so spend them on images that teach most: typical ones that differ
from each other. `suggest_to_label` finds them on embeddings, for which no label is
needed. Here 20 digits of 1,297 get a label, once at random and once as suggested.
"""

# %%
# Embeddings of all images, without labels
# ----------------------------------------
# SimCLR compares two changed views of each image. Images that look alike end up close
# to each other.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skssl import (
    EmbeddingDisplay,
    PredictionDisplay,
    SelfSupervisedClassifier,
    SelfSupervisedEncoder,
    SimCLRPretext,
    suggest_to_label,
)

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, test_size=500, stratify=y, random_state=0
)
encoder = SelfSupervisedEncoder(pretext=SimCLRPretext(), batch_size=256, random_state=0)
embeddings = encoder.fit_transform(X_train)

# %%
# Twenty images, at random and as suggested
# -----------------------------------------
# With two labels a class by chance, some classes get one label or none.

at_random = np.random.default_rng(0).permutation(len(X_train))[:20]
suggested = suggest_to_label(embeddings, 20, random_state=0)

chosen = {"at random": at_random, "as suggested": suggested}
for name, rows in chosen.items():
    counts = np.bincount(y_train[rows], minlength=10)
    print(f"{name:13} labels of each class: {counts}")

# %%
# Where they are
# --------------
# The images that get a label are in colour, all others are grey.

figure, axes = plt.subplots(1, 2, figsize=(10, 5), layout="constrained")
labels = {}
for ax, (name, rows) in zip(axes, chosen.items(), strict=True):
    labels[name] = np.full(len(y_train), -1)
    labels[name][rows] = y_train[rows]
    EmbeddingDisplay.from_embeddings(embeddings, labels[name], ax=ax)
    ax.set_title(f"20 labels {name}")

# %%
# What it is worth
# ----------------
# The same classifier, the same images, the same number of labels.

for name, y_few in labels.items():
    clf = SelfSupervisedClassifier(random_state=0).fit(X_train, y_few)
    print(f"20 labels {name:13} accuracy {clf.score(X_test, y_test):.3f}")

PredictionDisplay.from_estimator(clf, X_test, y_test, n_samples=10, random_state=0)
plt.show()
