"""Accuracy from few labels: skssl step by step, and what else a user could pick.

python benchmarks/few_labels.py digits 50 --data ../shared/data
    Data: digits (load_digits, 1,297 images to train on and 500 to test on), mnist,
    signs or clothes (mnist.npz, signs.npz, clothes.npz in the folder --data).
python benchmarks/few_labels.py digits 50 --chosen
    Labels of the images that suggest_to_label chooses on embeddings, not random ones.
python benchmarks/few_labels.py digits 50 --methods ours spreading --seeds 3
    Some of the methods, and another number of draws.
python benchmarks/few_labels.py --table results.csv
    The figure and the table from what earlier runs have added to the file.

A draw takes the same number of random labels of each class. Each method learns from
all training images, of which only these have a label, or from the labelled ones alone
if it can do no more. Printed are the accuracy on the test images and the seconds of
`fit`: mean, standard deviation and number of draws. Every draw is added to --results.
"""

import argparse
import csv
import time
from pathlib import Path

import numpy as np
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier
from sklearn.svm import SVC

from skssl import (
    SelfSupervisedClassifier,
    SelfSupervisedEncoder,
    SimCLRPretext,
    suggest_to_label,
)

SUPERVISED = {"augmentation": None, "self_training": None, "pretrain_epochs": 0}
OURS = {
    "labels alone": SUPERVISED,
    "labels alone, augmented": {**SUPERVISED, "augmentation": "auto"},
    "augmented, self-training": {"pretrain_epochs": 0},
    "pretraining": {"augmentation": None, "self_training": None},
    "pretraining, augmented": {"self_training": None},
    "ours": {},
}


def sklearn_methods(n_features):
    """Return classifiers of scikit-learn on flat rows, by name."""
    components = min(50, n_features)
    svc = SVC(C=10)  # gamma="scale" follows the scale of the pixels
    linear = make_pipeline(PCA(0.95), LogisticRegression(max_iter=1000))
    return {
        "svc": (svc, False),
        "forest": (RandomForestClassifier(300), False),
        "logistic": (linear, False),
        "spreading": (
            make_pipeline(
                PCA(components), LabelSpreading(kernel="knn", n_neighbors=10)
            ),
            True,
        ),
        "self-training svc": (
            SelfTrainingClassifier(SVC(C=10, probability=True), threshold=0.9),
            True,
        ),
    }


def load_data(name, folder, seed):
    """Return training images and labels, then those to test on."""
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        order = np.random.default_rng(seed).permutation(len(X))
        X, y = X[order].reshape(-1, 8, 8), y[order]
        return X[500:], y[500:], X[:500], y[:500]
    with np.load(Path(folder) / f"{name}.npz") as data:
        names = "x_train", "y_train", "x_test", "y_test"
        return tuple(data[name] for name in names)


def random_rows(y, n_labels, seed):
    """Return rows with the same number of labels of each class."""
    rng = np.random.default_rng([seed, 1])
    classes = np.unique(y)
    rows = [
        rng.permutation(np.flatnonzero(y == k))[: n_labels // len(classes)]
        for k in classes
    ]
    return np.concatenate(rows)


def chosen_rows(X, n_labels, seed):
    """Return rows that are typical of the clusters of embeddings."""
    encoder = SelfSupervisedEncoder(pretext=SimCLRPretext(), batch_size=256)
    encoder.set_params(random_state=seed)
    return suggest_to_label(encoder.fit_transform(X), n_labels, random_state=seed)


def measured(name, few, X, X_test, y_test, seed):
    """Return the accuracy of a method on the test images, and the seconds of `fit`."""
    if name in OURS:
        classifier, learns_from_all = SelfSupervisedClassifier(**OURS[name]), True
        classifier.set_params(random_state=seed)
    else:
        X, X_test = (x.reshape(len(x), -1) for x in (X, X_test))
        classifier, learns_from_all = sklearn_methods(X.shape[1])[name]
        classifier = clone(classifier)
        for key in classifier.get_params():
            if key.endswith("random_state"):
                classifier.set_params(**{key: seed})
    known = slice(None) if learns_from_all else few != -1
    start = time.perf_counter()
    classifier.fit(X[known], few[known])
    seconds = time.perf_counter() - start
    return (classifier.predict(X_test) == y_test).mean(), seconds


def draw_table(path):
    """Print the mean of each method in a file of results, and draw them."""
    import matplotlib.pyplot as plt

    with open(path) as file:
        rows = list(csv.DictReader(file))
    tasks = sorted({(x["data"], x["chosen"], int(x["labels"])) for x in rows})
    methods = list(dict.fromkeys(x["method"] for x in rows))
    groups = list(dict.fromkeys((data, chosen) for data, chosen, _ in tasks))
    figure, axes = plt.subplots(
        1, len(groups), figsize=(4 * len(groups), 4), squeeze=False
    )
    print("| data | labels |", " | ".join(methods), "|")
    print("|---" * (2 + len(methods)) + "|")
    means = {}
    for data, chosen, n_labels in tasks:
        cells = []
        for method in methods:
            found = [
                float(x["accuracy"])
                for x in rows
                if (x["data"], x["chosen"], int(x["labels"]), x["method"])
                == (data, chosen, n_labels, method)
            ]
            cells.append(f"{np.mean(found):.3f} ({len(found)})" if found else "")
            if found:
                means.setdefault((data, chosen, method), []).append(
                    (n_labels, np.mean(found))
                )
        kind = "chosen" if chosen == "True" else "random"
        print(f"| {data} | {n_labels} {kind} |", " | ".join(cells), "|")
    for ax, (data, chosen) in zip(axes[0], groups, strict=True):
        for position, method in enumerate(methods):
            points = means.get((data, chosen, method))
            if points:
                style = "o-" if method in OURS else "s--"
                ax.plot(
                    *zip(*points, strict=True),
                    style,
                    color=f"C{position}",
                    label=method,
                )
        kind = "chosen" if chosen == "True" else "random"
        ax.set(title=f"{data}, {kind} labels", xlabel="Labels", xscale="log")
        ax.grid(alpha=0.3)
    axes[0, 0].set_ylabel("Accuracy")
    axes[0, -1].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(Path(__file__).parent / "figures" / "few_labels.png", dpi=100)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", help="digits, mnist, signs or clothes")
    parser.add_argument("n_labels", nargs="?", type=int)
    parser.add_argument("--chosen", action="store_true")
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--results", default="few_labels.csv")
    parser.add_argument("--table")
    arguments = parser.parse_args()
    if arguments.table:
        draw_table(arguments.table)
        return

    found = {}
    for seed in range(arguments.seeds):
        X, y, X_test, y_test = load_data(arguments.name, arguments.data, seed)
        if arguments.chosen:
            rows = chosen_rows(X, arguments.n_labels, seed)
        else:
            rows = random_rows(y, arguments.n_labels, seed)
        few = np.full(len(y), -1)
        few[rows] = y[rows]
        methods = arguments.methods or [*sklearn_methods(1), *OURS]
        for method in methods:
            accuracy, seconds = measured(method, few, X, X_test, y_test, seed)
            found.setdefault(method, []).append((accuracy, seconds))
            print(f"draw {seed}, {method}: {accuracy:.3f}, {seconds:.1f} s", flush=True)
            new = not Path(arguments.results).exists()
            with open(arguments.results, "a") as file:
                if new:
                    file.write("data,chosen,labels,method,seed,accuracy,seconds\n")
                file.write(
                    f"{arguments.name},{arguments.chosen},{arguments.n_labels},"
                    f"{method},{seed},{accuracy},{seconds}\n"
                )
    for method, values in found.items():
        accuracies, seconds = np.transpose(values)
        print(
            f"{method}: {accuracies.mean():.3f} ± {accuracies.std():.3f} "
            f"({len(values)} draws), {seconds.mean():.1f} s"
        )


if __name__ == "__main__":
    main()
