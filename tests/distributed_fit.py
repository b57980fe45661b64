"""A fit under a distribution strategy, in a process of its own.

    python tests/distributed_fit.py STRATEGY RESULT [KEY=VALUE ...]

STRATEGY is none, mirrored (two CPU devices) or workers (as TF_CONFIG says). RESULT is
the file that gets weights, predictions and histories. The others are parameters of the
classifier, as Python literals.
"""

import ast
import sys

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

DEVICES = ["CPU:0", "CPU:1"]


def strategy_of(name):
    """Return the strategy; it has to come before anything else of TensorFlow."""
    if name == "workers":
        return tf.distribute.MultiWorkerMirroredStrategy()
    [cpu] = tf.config.list_physical_devices("CPU")
    logical = [tf.config.LogicalDeviceConfiguration() for _ in DEVICES]
    tf.config.set_logical_device_configuration(cpu, logical)
    if name == "mirrored":
        return tf.distribute.MirroredStrategy(DEVICES)
    return tf.distribute.get_strategy()


def main(name, result, *settings):
    strategy = strategy_of(name)
    from scikeras.wrappers import KerasClassifier

    from skssl import SelfSupervisedClassifier, build_cnn
    from skssl.self_training import FixMatch, LabelSpread

    X, y = load_digits(return_X_y=True)
    X, y = X[:300].reshape(-1, 8, 8), np.where(np.arange(300) < 100, y[:300], -1)
    wrapper = KerasClassifier(
        build_cnn,
        model__filters=(4,),
        model__dense_units=16,
        optimizer="adam",
        metrics=["accuracy"],
        batch_size=32,
        epochs=4,
        validation_split=0.2,
    )
    params = {"augmentation": None, "self_training": None, "pretrain_epochs": 3}
    params |= {k: ast.literal_eval(v) for k, v in (x.split("=") for x in settings)}
    if params["self_training"] == "both":
        params["self_training"] = [LabelSpread(n_steps=30), FixMatch(n_steps=60)]
    with strategy.scope():
        clf = SelfSupervisedClassifier(wrapper, random_state=0, **params).fit(X, y)
        probabilities = clf.predict_proba(X)
    weights = [weight.ravel() for weight in clf.model_.get_weights()]
    np.savez(
        result,
        weights=np.concatenate(weights),
        probabilities=probabilities,
        transduction=np.array(clf.transduction_ is not None and clf.transduction_),
        histories=str([clf.finetune_history_, clf.self_training_history_]),
        losses=[clf.finetune_history_[x] for x in ("loss", "val_loss", "accuracy")],
        score=clf.score(X[:100], y[:100]),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
