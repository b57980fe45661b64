"""Accuracy from few labels: skssl step by step, and what else a user could pick.

python benchmarks/few_labels.py digits 50 --data ../shared/data
    Data: digits (load_digits, 1,297 images to train on and 500 to test on), mnist,
    signs or clothes (mnist.npz, signs.npz, clothes.npz in the folder --data).
python benchmarks/few_labels.py digits 50 --chosen
    Labels of the images that suggest_to_label chooses on embeddings, not random ones.
python benchmarks/few_labels.py digits 50 --methods ours spreading --seeds 0 1 2
    Some of the methods and of the draws.
python benchmarks/few_labels.py digits 50 --memory folder
    Pretraining that draws and methods share is kept in the folder and done once. The
    seconds are left out, since they do not hold it.
python benchmarks/few_labels.py --table results.csv
    The figure and the table from what earlier runs have added to the file.

A draw takes the same number of random labels of each class. Each method learns from
all training images, of which only these have a label, or from the labelled ones alone
if it can do no more. Printed are the accuracy on the test images and the seconds of
`fit`: mean, standard deviation and number of draws. Every draw is added to --results.
"""

import argparse
import csv
import math
import time
from pathlib import Path

import matplotlib.pyplot as plt
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

FIGURES = Path(__file__).parent / "figures"
DATA = ["digits", "mnist", "signs", "clothes"]
SHOWN = {
    "mnist": "MNIST",
    "svc": "SVC",
    "forest": "RandomForest",
    "logistic": "PCA, LogisticRegression",
    "spreading": "PCA, LabelSpreading",
    "self-training svc": "SelfTraining(SVC)",
    "labels alone": "network, labels alone",
    "labels alone, augmented": "… augmented",
    "augmented, self-training": "… self-training",
    "pretraining": "pretraining",
    "pretraining, augmented": "pretraining, augmented",
    "ours": "all stages: skssl",
    "ours, chosen": "… with chosen labels",
}
COLUMNS = ["data", "chosen", "labels", "method", "seed", "accuracy", "seconds"]
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


def chosen_rows(X, n_labels, seed, memory):
    """Return rows that are typical of the clusters of embeddings."""
    encoder = SelfSupervisedEncoder(pretext=SimCLRPretext(), batch_size=256)
    encoder.set_params(random_state=seed, memory=memory)
    return suggest_to_label(encoder.fit_transform(X), n_labels, random_state=seed)


def measured(name, few, X, X_test, y_test, seed, memory):
    """Return the accuracy of a method on the test images, and the seconds of `fit`."""
    if name in OURS:
        classifier, learns_from_all = SelfSupervisedClassifier(**OURS[name]), True
        classifier.set_params(random_state=seed, memory=memory)
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
    seconds = time.perf_counter() - start if memory is None else np.nan
    return (classifier.predict(X_test) == y_test).mean(), seconds


def read_results(path):
    """Return accuracies and seconds, (n_draws, 2), by task and method."""
    with open(path) as file:
        rows = list(csv.DictReader(file))
    rows.sort(key=lambda x: (DATA.index(x["data"]), int(x["labels"])))
    results = {}
    for row in rows:
        method = row["method"] + (", chosen" if row["chosen"] == "True" else "")
        draws = results.setdefault((row["data"], row["labels"]), {})
        draws.setdefault(method, []).append((row["accuracy"], row["seconds"]))
    return {
        task: {method: np.array(x, dtype=float) for method, x in draws.items()}
        for task, draws in results.items()
    }


def print_table(results, methods):
    """Print the mean accuracy, its deviation and the number of draws."""
    tasks = (f"{SHOWN.get(data, data)}, {n}" for data, n in results)
    print("| method |", " | ".join(tasks), "|")
    print("|---" * (1 + len(results)) + "|")
    for method in methods:
        cells = []
        for draws in results.values():
            accuracies = draws.get(method, np.empty((0, 2)))[:, 0]
            cells.append(
                f"{accuracies.mean():.3f} ± {accuracies.std():.3f} ({len(accuracies)})"
                if len(accuracies)
                else ""
            )
        print(f"| {SHOWN[method]} |", " | ".join(cells), "|")
    seconds = []
    for draws in results.values():
        measured = draws.get("ours", np.empty((0, 2)))[:, 1]
        measured = measured[~np.isnan(measured)]
        seconds.append(f"{measured.mean():.0f} s" if len(measured) else "")
    print("| time of ours |", " | ".join(seconds), "|")


def draw_results(results, methods, path):
    """Draw the accuracies of each task in a panel, one row a method."""
    figure, axes = plt.subplots(
        2, math.ceil(len(results) / 2), figsize=(11, 6), sharey=True, squeeze=False
    )
    for ax in axes.flat[len(results) :]:
        ax.remove()
    for ax, ((data, n_labels), draws) in zip(axes.flat, results.items(), strict=False):
        for row, method in enumerate(methods):
            if method in draws:
                mean, deviation = draws[method][:, 0].mean(), draws[method][:, 0].std()
                color = "C1" if method.startswith("ours") else "C0"
                color = color if method.split(", chosen")[0] in OURS else "gray"
                ax.errorbar(mean, row, xerr=deviation, fmt="o", color=color)
                ax.text(
                    1.02,
                    row,
                    f"{mean:.3f}",
                    transform=ax.get_yaxis_transform(),
                    color=color,
                    fontsize=8,
                    va="center",
                )
        title = f"{SHOWN.get(data, data)}, {n_labels} labels"
        ax.set(title=title, yticks=range(len(methods)))
        ax.set_yticklabels(SHOWN[method] for method in methods)
        ax.set_ylim(len(methods) - 0.5, -0.5)
        ax.grid(alpha=0.3)
    figure.supxlabel("Accuracy on test images")
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", help="digits, mnist, signs or clothes")
    parser.add_argument("n_labels", nargs="?", type=int)
    parser.add_argument("--chosen", action="store_true")
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, default=range(5))
    parser.add_argument("--memory")
    parser.add_argument("--results", default="few_labels.csv")
    parser.add_argument("--table")
    arguments = parser.parse_args()
    if arguments.table:
        results = read_results(arguments.table)
        found = {method for draws in results.values() for method in draws}
        names = [*sklearn_methods(1), *OURS, "ours, chosen"]
        methods = [method for method in names if method in found]
        print_table(results, methods)
        draw_results(results, methods, FIGURES / "few_labels.png")
        return

    found = {}
    for seed in arguments.seeds:
        X, y, X_test, y_test = load_data(arguments.name, arguments.data, seed)
        if arguments.chosen:
            rows = chosen_rows(X, arguments.n_labels, seed, arguments.memory)
        else:
            rows = random_rows(y, arguments.n_labels, seed)
        few = np.full(len(y), -1)
        few[rows] = y[rows]
        methods = arguments.methods or [*sklearn_methods(1), *OURS]
        for method in methods:
            accuracy, seconds = measured(
                method, few, X, X_test, y_test, seed, arguments.memory
            )
            found.setdefault(method, []).append((accuracy, seconds))
            print(f"draw {seed}, {method}: {accuracy:.3f}, {seconds:.1f} s", flush=True)
            new = not Path(arguments.results).exists()
            task = arguments.name, arguments.chosen, arguments.n_labels
            with open(arguments.results, "a", newline="") as file:
                writer = csv.writer(file)
                if new:
                    writer.writerow(COLUMNS)
                writer.writerow([*task, method, seed, accuracy, seconds])
    for method, values in found.items():
        accuracies, seconds = np.transpose(values)
        print(
            f"{method}: {accuracies.mean():.3f} ± {accuracies.std():.3f} "
            f"({len(values)} draws), {seconds.mean():.1f} s"
        )


if __name__ == "__main__":
    main()
