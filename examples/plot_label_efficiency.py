"""
How many labels does it take?
=============================

Labels are what costs. Before you buy more of them, take labels away from data that have
them, and see what each number is worth, for each classifier that you could use. Give
your own with ``--data file.npz``, with arrays `x_train` and `y_train`, images and their
labels; without it, the example takes digits.
"""

# %%
# Classifiers to compare
# ----------------------
# All of them see the same images, as flat rows. Those that cannot learn from images
# without a label get the labelled ones alone.

import argparse

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.semi_supervised import LabelSpreading
from sklearn.svm import SVC

from skssl import (
    LabelEfficiencyDisplay,
    SelfSupervisedClassifier,
    label_efficiency_curve,
)

parser = argparse.ArgumentParser()
parser.add_argument("--data")
path = parser.parse_args().data
if path:
    with np.load(path) as file:
        images, y = file["x_train"], file["y_train"]
else:
    digits = load_digits()
    images, y = digits.images, digits.target
X, image_shape = images.reshape(len(images), -1), images.shape[1:]

estimators = {
    "skssl": SelfSupervisedClassifier(image_shape=image_shape, random_state=0),
    "its network, from the labels alone": SelfSupervisedClassifier(
        image_shape=image_shape,
        pretrain_epochs=0,
        self_training=None,
        random_state=0,
    ),
    "LabelSpreading": make_pipeline(
        PCA(50), LabelSpreading(kernel="knn", n_neighbors=10, max_iter=100)
    ),
    "SVC": SVC(C=10),
}

# %%
# The curve
# ---------
# Each classifier is fitted once for each number of labels, and tested on images that it
# has not seen. With ``cv=5`` there would be five draws of each, and their spread.

curve = label_efficiency_curve(
    estimators,
    X,
    y,
    n_labels=(10, 30, 100),
    cv=ShuffleSplit(1, test_size=500, random_state=0),
    random_state=0,
)
for name, scores in curve.test_scores.items():
    print(f"{name:36}", *(f"{score:.3f}" for score in scores.mean(axis=1)))

LabelEfficiencyDisplay(
    curve.n_labels, curve.test_scores, score_name="Accuracy on test images"
).plot()
plt.show()
