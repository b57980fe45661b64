"""A fit for tests to kill: killed_fit.py CHECKPOINT_FOLDER RESULT.

The variables KILL_AFTER_WRITES and KILL_WHILE_WRITING say after or in the writing of
which checkpoint this process kills itself, counted from 1.
"""

import os
import signal
import sys

import keras
import numpy as np
from scikeras.wrappers import KerasClassifier
from sklearn.datasets import load_digits

from skssl import SelfSupervisedClassifier, build_cnn


def kill_at_a_write():
    """Make this process kill itself as its environment says."""
    after = int(os.environ.get("KILL_AFTER_WRITES", -1))
    during = int(os.environ.get("KILL_WHILE_WRITING", -1))
    replace, n_writes = os.replace, 0

    def replace_or_die(source, target):
        nonlocal n_writes
        n_writes += os.fspath(target).endswith(".checkpoint")
        if n_writes == during:  # all is written, but under the temporary name
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if n_writes == after:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace_or_die


def main(folder, result):
    """Fit with checkpoints in a folder, then save all weights and histories."""
    X, y = load_digits(return_X_y=True)
    X, y = X[:200], np.where(np.arange(200) < 100, y[:200], -1)
    callbacks = [
        keras.callbacks.EarlyStopping("loss", patience=2, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau("loss", patience=1),
    ]
    wrapper = KerasClassifier(
        build_cnn,
        model__filters=(4,),
        model__dropout=0.3,
        optimizer="adam",
        epochs=6,
        callbacks=callbacks,
    )
    clf = SelfSupervisedClassifier(
        wrapper,
        pretrain_epochs=4,
        frozen_layers=1,
        unfreeze_epochs=3,
        checkpoint_dir=folder,
        random_state=0,
    )
    clf.fit(X, y)
    np.savez(
        result,
        *clf.model_.get_weights(),
        *clf.encoder_.pretext_model_.get_weights(),
        *clf.pretrain_history_.values(),
        *clf.finetune_history_.values(),
    )


if __name__ == "__main__":
    kill_at_a_write()
    main(*sys.argv[1:])
