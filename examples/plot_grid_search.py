"""
Tuning pretraining and fine-tuning together
===========================================

A grid search can tune all stages of training: the pretext task, the number of epochs
of pretraining, the frozen layers, and the learning rate of fine-tuning.
"""

# %%
# A pipeline, as for any other classifier
# ---------------------------------------

import matplotlib.pyplot as plt
from scikeras.wrappers import KerasClassifier
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler

from skssl import RotationPretext, SelfSupervisedClassifier, build_cnn

X, y = load_digits(return_X_y=True)
X, y = X[:600], y[:600]

pipeline = Pipeline(
    [
        ("scale", MinMaxScaler()),
        (
            "clf",
            SelfSupervisedClassifier(
                KerasClassifier(
                    build_cnn,
                    optimizer="adam",
                    optimizer__learning_rate=0.001,
                    batch_size=64,
                    epochs=10,
                ),
                pretext=RotationPretext(),
                random_state=0,
            ),
        ),
    ]
)

# %%
# The grid
# --------

search = GridSearchCV(
    pipeline,
    [
        {
            "clf__pretrain_epochs": [0],
            "clf__estimator__optimizer__learning_rate": [0.001, 0.003],
        },
        {
            "clf__pretext__angles": [(0, 180), (0, 90, 180, 270)],
            "clf__pretrain_epochs": [5],
            "clf__frozen_layers": [0, 2],
            "clf__estimator__optimizer__learning_rate": [0.001, 0.003],
        },
    ],
    cv=3,
).fit(X, y)

# %%
# The results
# -----------

results = search.cv_results_
order = results["rank_test_score"].argsort()
names = []
for params in results["params"]:
    values = {name.split("__")[-1]: value for name, value in params.items()}
    names.append(", ".join(f"{name} {value}" for name, value in values.items()))

figure, ax = plt.subplots(figsize=(9, 4), layout="constrained")
for row, candidate in enumerate(order):
    mean, deviation = (results[f"{x}_test_score"][candidate] for x in ("mean", "std"))
    print(f"{mean:.3f}  {names[candidate]}")
    ax.errorbar(mean, row, xerr=deviation, fmt="o", color="C0")
ax.set(xlabel="Accuracy, mean and deviation of three folds", yticks=range(len(order)))
ax.set_yticklabels(names[candidate] for candidate in order)
ax.invert_yaxis()
plt.show()
