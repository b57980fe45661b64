"""Grid search over fine-tuning: with a cache of pretraining, and in two processes.

python benchmarks/grid_search.py memory [--data mnist.npz]
    8 candidates, 3 folds, with memory= and without; the cache starts empty.
python benchmarks/grid_search.py jobs [--data mnist.npz]
    The same with n_jobs=2 and n_jobs=1, without memory=.

One image in ten has a label; `--labels` gives another number.
"""

import argparse
import tempfile

from _mnist import load_mnist
from _timing import alternate
from numpy.testing import assert_array_equal
from scikeras.wrappers import KerasClassifier
from sklearn.model_selection import GridSearchCV

from skssl import SelfSupervisedClassifier, SemiSupervisedKFold, build_cnn


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("setting", choices=["memory", "jobs"])
    parser.add_argument("--data", help="mnist.npz; without it Keras downloads it")
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--labels", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    (X, y), _ = load_mnist(arguments.data)
    X, y = X[: arguments.images], y[: arguments.images].astype(int)
    y[arguments.labels :] = -1
    # Parameters of fine-tuning alone.
    grid = {"frozen_layers": [0, 2, 4, "all"], "estimator__batch_size": [32, 64]}
    folds, scores = SemiSupervisedKFold(3), {}

    def search(name, n_jobs=None, **params):
        classifier = SelfSupervisedClassifier(
            KerasClassifier(
                build_cnn, optimizer="adam", batch_size=64, epochs=arguments.epochs
            ),
            pretrain_epochs=arguments.epochs,
            augmentation=None,
            self_training=None,
            random_state=0,
            **params,
        )
        found = GridSearchCV(classifier, grid, cv=folds, n_jobs=n_jobs, refit=False)
        results = found.fit(X, y).cv_results_
        scores[name] = [results[f"split{k}_test_score"] for k in range(3)]
        return lambda: results["mean_test_score"].max()

    def with_memory():
        with tempfile.TemporaryDirectory() as folder:
            return search("ours", memory=folder)

    if arguments.setting == "memory":
        ours, theirs = with_memory, lambda: search("theirs")
        rival, target = "without memory", 4.0
    else:
        ours, theirs = lambda: search("ours", n_jobs=2), lambda: search("theirs")
        rival, target = "n_jobs=1", 1.0
    # The pair before those that count starts the processes, and imports there.
    alternate(ours, theirs, rival=rival, n_pairs=arguments.pairs, target=target)
    if arguments.setting == "memory":  # other threads round in another way
        assert_array_equal(scores["ours"], scores["theirs"])
        print("All scores are equal.")


if __name__ == "__main__":
    main()
