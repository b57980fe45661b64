"""
Searching on a cluster
======================

joblib hands the candidates of a grid search to the workers of a Dask cluster. The
scores are those of a search without a cluster, bit for bit. With ``memory=`` on a
folder that all workers see, each pretraining is done once, however many candidates
start from it.

The example starts two processes on this machine. With the address of the scheduler of a
running cluster it runs there, without a change of the search::

    python examples/plot_cluster_search.py tcp://scheduler:8786 /folder/that/all/see
"""

# %%
# The cluster
# -----------
# A worker of one thread leaves the cores to TensorFlow's own threads.

import sys
import tempfile

import joblib
from distributed import Client, LocalCluster
from scikeras.wrappers import KerasClassifier
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

from skssl import RotationPretext, SelfSupervisedClassifier, build_cnn


def main(address=None, folder=None):
    """Search on the cluster at an address, or on one of this machine."""
    cluster = address or LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    )
    with Client(cluster), tempfile.TemporaryDirectory() as local_folder:
        search(folder or local_folder)
    if address is None:
        cluster.close()


# %%
# The search
# ----------
# Three learning rates, two numbers of frozen layers and two pretext tasks are twelve
# candidates. In two folds that makes 24 trainings, but only four pretrainings.


def search(folder):
    """Search, and print the best candidates."""
    X, y = load_digits(return_X_y=True)
    classifier = SelfSupervisedClassifier(
        KerasClassifier(build_cnn, optimizer="adam", epochs=10),
        pretext=RotationPretext(),
        pretrain_epochs=5,
        augmentation=None,
        self_training=None,
        memory=folder,
        random_state=0,
    )
    grid = {
        "pretext__angles": [(0, 180), (0, 90, 180, 270)],
        "frozen_layers": [0, 2],
        "estimator__optimizer__learning_rate": [0.001, 0.003, 0.01],
    }
    with joblib.parallel_config("dask"):
        found = GridSearchCV(classifier, grid, cv=2).fit(X[:600], y[:600])

    print("accuracy  parameters")
    for rank in found.cv_results_["rank_test_score"].argsort()[:5]:
        params = found.cv_results_["params"][rank]
        names = {name.split("__")[-1]: value for name, value in params.items()}
        print(f"{found.cv_results_['mean_test_score'][rank]:8.3f}  {names}")


if __name__ == "__main__":  # the workers import this file, too
    main(*sys.argv[1:])
