"""Which digits to label first: accuracy from 10, 20 and 50 labels.

python benchmarks/labeling.py
    suggest_to_label, random rows, and TypiClust of scikit-activeml if that is installed
    (pip install scikit-activeml). The rows are chosen on 50 principal components of
    load_digits, LabelSpreading learns from their labels, and its accuracy on all other
    rows is printed: mean and standard deviation over the seeds, and seconds a choice.
"""

import argparse
import time

import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.semi_supervised import LabelSpreading

from skssl import suggest_to_label

N_LABELS = (10, 20, 50)


def random_rows(X, n_labels, seed):
    return np.random.RandomState(seed).permutation(len(X))[:n_labels]


def ours(X, n_labels, seed):
    return suggest_to_label(X, n_labels, random_state=seed)


def first_of_fifty(X, n_labels, seed):
    return suggest_to_label(X, 50, random_state=seed)[:n_labels]


def ours_after_ten_random(X, n_labels, seed):
    """Suggest rows beside ten random ones; n_labels is the number of both."""
    known = random_rows(X, 10, seed)
    y = np.full(len(X), -1)
    y[known] = 0  # which rows have a label matters, not which label
    n_more = n_labels - len(known)
    more = suggest_to_label(X, n_more, y=y, random_state=seed) if n_more else []
    return np.append(known, np.asarray(more, dtype=int))


def typiclust(X, n_labels, seed):
    from skactiveml.pool import TypiClust

    return TypiClust(random_state=seed).query(
        X, np.full(len(X), np.nan), batch_size=n_labels
    )


def accuracy(X, y, rows):
    few = np.full(len(y), -1)
    few[rows] = y[rows]
    learner = LabelSpreading(kernel="knn", n_neighbors=10).fit(X, few)
    others = np.delete(np.arange(len(y)), rows)
    return (learner.transduction_[others] == y[others]).mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    X, y = load_digits(return_X_y=True)
    X = PCA(50, random_state=0).fit_transform(X)
    for choose in [random_rows, ours, first_of_fifty, ours_after_ten_random, typiclust]:
        for n_labels in N_LABELS:
            start = time.perf_counter()
            try:
                rows = [choose(X, n_labels, seed) for seed in range(arguments.seeds)]
            except ModuleNotFoundError as error:
                print(f"{choose.__name__}: left out, {error}")
                break
            seconds = (time.perf_counter() - start) / arguments.seeds
            accuracies = [accuracy(X, y, chosen) for chosen in rows]
            print(
                f"{choose.__name__}, {n_labels} labels: {np.mean(accuracies):.3f} "
                f"± {np.std(accuracies):.3f}, {seconds:.2f} s"
            )


if __name__ == "__main__":
    main()
