"""
Tuning pretraining and fine-tuning together
===========================================

A grid search can tune all stages of training: the pretext task, the number of epochs
of pretraining, the frozen layers, and the learning rate of fine-tuning.
"""

# %%
# A pipeline, as for any other classifier
# ---------------------------------------

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

order = search.cv_results_["rank_test_score"].argsort()
print("accuracy  parameters")
for candidate in order:
    params = search.cv_results_["params"][candidate]
    names = {name.split("__")[-1]: value for name, value in params.items()}
    print(f"{search.cv_results_['mean_test_score'][candidate]:8.3f}  {names}")
