"""
Comparing pretext tasks
=======================

Each pretext task asks another question about the same images. `PretextDisplay` shows
what it asks, and a linear classifier on the embeddings shows what was learned from the
answer.
"""

# %%
# Five questions
# --------------
# The digits are doubled in size, so that tiles and patches show something.

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skssl import (
    BarlowTwinsPretext,
    JigsawPretext,
    MaskedPretext,
    PretextDisplay,
    RotationPretext,
    SelfSupervisedEncoder,
    SimCLRPretext,
)

X, y = load_digits(return_X_y=True)
X = X.reshape(-1, 8, 8).repeat(2, axis=1).repeat(2, axis=2)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, test_size=500, stratify=y, random_state=0
)

tasks = {
    "rotation": RotationPretext(),
    "SimCLR": SimCLRPretext(),
    "Barlow Twins": BarlowTwinsPretext(),
    "jigsaw": JigsawPretext(),
    "masked": MaskedPretext(),
}
encoders = {}
for name, task in tasks.items():
    encoder = SelfSupervisedEncoder(
        pretext=task, epochs=10, batch_size=128, random_state=0
    )
    encoders[name] = encoder.fit(X_train)
    PretextDisplay.from_estimator(encoder, X_test, n_samples=4, random_state=0)
    plt.gcf().suptitle(name)

# %%
# What was learned
# ----------------
# Scores of different tasks cannot be compared: guessing one of four angles is another
# thing than finding one of 63 images. What can be compared is what a linear classifier
# makes of the embeddings, here with 100 labels. That takes labels, if only a few.

few = slice(100)
print("task          score of the task  accuracy of a linear classifier")
for name, encoder in encoders.items():
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    probe.fit(encoder.transform(X_train[few]), y_train[few])
    accuracy = probe.score(encoder.transform(X_test), y_test)
    print(f"{name:13} {encoder.score(X_test):17.3f}  {accuracy:.3f}")
probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
probe.fit(X_train[few].reshape(100, -1), y_train[few])
accuracy = probe.score(X_test.reshape(len(X_test), -1), y_test)
print(f"{'pixels':13} {'':17}  {accuracy:.3f}")
plt.show()
