"""The stages of skssl, and the whole of them, against PyTorch in its fastest way.

python benchmarks/recipe.py stages mnist [--data folder] [--bfloat16]
    Steps of pretraining by rotation and by two views, of fine-tuning and of FixMatch.
    Data: mnist (28x28), signs (64x64 in colour), signs128 (the same, enlarged).
python benchmarks/recipe.py fit mnist --labels 100
    All stages of SelfSupervisedClassifier(), from `fit` to accuracy on test images.

Memory format and compilation are those that are fastest for each stage. Compiling is
not counted, while skssl's time includes building its network. The batches are of the
same sizes: 64 inputs of the network; in FixMatch 4, 16 and 16.
"""

import argparse
from functools import partial
from itertools import count
from pathlib import Path

import keras
import numpy as np
from _rival_torch import WAYS, TorchRecipe, fastest_ways, time_stages
from _timing import alternate
from few_labels import random_rows
from scikeras.wrappers import KerasClassifier

from skssl import (
    SelfSupervisedClassifier,
    SelfSupervisedEncoder,
    SimCLRPretext,
    build_cnn,
)
from skssl.self_training import FixMatch

EPOCH_STEPS = 20
LABELLED = 64 * EPOCH_STEPS


def load_data(name, folder):
    """Return training images and labels, then those to test on."""
    with np.load(Path(folder) / f"{name.removesuffix('128')}.npz") as data:
        X, y, X_test, y_test = (
            data[x] for x in ("x_train", "y_train", "x_test", "y_test")
        )
    if name.endswith("128"):
        X, X_test = (x.repeat(2, axis=1).repeat(2, axis=2) for x in (X, X_test))
    return X, y.astype(int), X_test, y_test


def skssl_stages(X, y, few, n_steps):
    """Return functions that run each stage for a number of steps, by name."""
    n_epochs = n_steps // EPOCH_STEPS

    def pretraining(rows_a_step, **params):
        encoder = SelfSupervisedEncoder(epochs=n_epochs, batch_size=64, **params)
        images = X[: rows_a_step * EPOCH_STEPS]
        return partial(run_silently, encoder.fit, images)

    def classifier(**params):
        network = KerasClassifier(build_cnn, optimizer="adam", batch_size=64, **params)
        return SelfSupervisedClassifier(
            network,
            pretrain_epochs=0,
            self_training=FixMatch(n_steps=steps_of("fixmatch", n_steps)),
        )

    fine_tuned = classifier(epochs=n_epochs).set_params(self_training=None)
    rows = slice(LABELLED)
    return {
        "pretrain": pretraining(16),
        "pretrain_views": pretraining(32, pretext=SimCLRPretext()),
        "fine_tune": partial(run_silently, fine_tuned.fit, X[rows], y[rows]),
        "fixmatch": partial(run_silently, classifier(epochs=1).fit, X, few),
    }


def steps_of(stage, n_steps):
    """Return the number of steps of a stage; those of FixMatch are short."""
    return 5 * n_steps if stage == "fixmatch" else n_steps


def run_silently(run, *args):
    """Run a stage, whose result is no accuracy to print."""
    run(*args)


def compare_stages(data, arguments):
    """Run each stage of both sides in turn."""
    X, y, *_ = data
    # As many labels as give both sides batches of 64 in fine-tuning.
    few = np.where(np.arange(len(y)) < LABELLED, y, -1)
    n_steps = arguments.steps
    policy = "mixed_bfloat16" if arguments.bfloat16 else "float32"
    keras.config.set_dtype_policy(policy)
    ways, _ = fastest_ways(X, few, 10, 40, bfloat16=arguments.bfloat16)
    theirs = TorchRecipe(X, few, 10, ways=ways, bfloat16=arguments.bfloat16)
    for _ in time_stages(theirs, 10):  # compiles
        pass
    for stage, ours in skssl_stages(X, y, few, n_steps).items():
        name = next(name for name, way in WAYS.items() if way == ways[stage])
        print(f"{arguments.name}, {stage}, {policy}; PyTorch: {name}")
        alternate(
            ours,
            partial(run_silently, getattr(theirs, stage), steps_of(stage, n_steps)),
            rival="PyTorch",
            n_pairs=arguments.pairs,
            target=1.2,
        )


def compare_fits(data, few, arguments):
    """Run all stages of both sides in turn, from `fit` to the accuracy."""
    X, y, X_test, y_test = data
    ways, _ = fastest_ways(X[:2000], few[:2000], 10, 40)
    theirs = TorchRecipe(X, few, 10, ways=ways)
    for _ in time_stages(theirs, 10):  # compiles
        pass
    our_seeds, their_seeds = count(), count()

    def job():
        classifier = SelfSupervisedClassifier(random_state=next(our_seeds))
        classifier.fit(X, few)
        return lambda: classifier.score(X_test, y_test)

    def other_job():
        theirs.seed = next(their_seeds)
        theirs.fit()
        accuracy = (theirs.predict(X_test) == y_test).mean()
        print({stage: f"{x:.1f} s" for stage, x in theirs.seconds.items()})
        return lambda: accuracy

    alternate(
        job, other_job, rival="PyTorch", n_pairs=arguments.pairs, n_warm_ups=0,
        target=1.2,
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["stages", "fit"])
    parser.add_argument("name", choices=["mnist", "signs", "signs128"])
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--images", type=int, help="the first of them alone")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--bfloat16", action="store_true")
    arguments = parser.parse_args()
    X, y, *test = load_data(arguments.name, arguments.data)
    X, y = X[: arguments.images], y[: arguments.images]
    if arguments.what == "stages":
        if len(X) < LABELLED:
            parser.error(f"stages need {LABELLED} images or more")
        compare_stages((X, y, *test), arguments)
        return
    few = np.full(len(y), -1)
    rows = random_rows(y, arguments.labels, 0)
    few[rows] = y[rows]
    compare_fits((X, y, *test), few, arguments)


if __name__ == "__main__":
    main()
