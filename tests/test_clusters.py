"""Searches on a Dask cluster of processes: what a serial search gives, bit for bit."""

import functools
import os
import signal
import threading
import time
import uuid
from pathlib import Path

import distributed
import joblib
import numpy as np
import pytest
from networks import two_stages
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from skssl import RotationPretext


@pytest.fixture(scope="module", params=[1, 2], ids=["1 thread", "2 threads"])
def cluster(request, tmp_path_factory):
    """Return a client of two worker processes with so many threads each."""
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=request.param,
            dashboard_address=None,
            local_directory=str(tmp_path_factory.mktemp("dask")),
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def search(tiny):
    """Return a search over rates of fine-tuning and two pretext tasks."""
    clf = two_stages(
        tiny,
        pretext=RotationPretext(),
        pretrain_epochs=1,
        frozen_layers=1,
        random_state=0,
    )
    grid = {
        "pretext__angles": [(0, 90, 180, 270), (0, 180)],
        "estimator__optimizer__learning_rate": [0.01, 0.03],
    }
    return GridSearchCV(clf, grid, cv=2, error_score="raise")


@pytest.fixture(scope="module")
def serial(search, digits):
    return clone(search).fit(*digits)


def assert_same_search(found, expected):
    for name, values in expected.cv_results_.items():
        if name.endswith("_score"):
            assert values.tolist() == found.cv_results_[name].tolist()
    assert found.best_params_ == expected.best_params_
    expected = expected.best_estimator_.model_.get_weights()
    found = found.best_estimator_.model_.get_weights()
    assert all(map(np.array_equal, found, expected))


def note_trainings(folder):
    """Make this process write a file for each training that Keras begins."""
    import keras

    fit = getattr(keras.Model.fit, "__wrapped__", keras.Model.fit)

    @functools.wraps(fit)
    def noted(self, *args, **kwargs):
        (Path(folder) / f"{self.name}-{uuid.uuid4().hex}").touch()
        return fit(self, *args, **kwargs)

    keras.Model.fit = noted


def lose_patience():
    """Make this process take a lock over 5 seconds after its owner is gone."""
    from skssl._storage import lock

    lock.BEAT, lock.PATIENCE = 0.5, 5.0


def n_pretrainings(folder):
    """Return how many pretrainings have been noted in a folder."""
    return len(list(folder.glob("pretext_model-*")))


@pytest.mark.parametrize("with_memory", [False, True])
def test_a_search_gives_what_a_serial_one_gives(
    cluster, search, serial, digits, tmp_path, with_memory
):
    memory = str(tmp_path / "cache") if with_memory else None
    search = clone(search).set_params(estimator__memory=memory)
    cluster.run(note_trainings, str(tmp_path))
    with joblib.parallel_config("dask"):
        found = search.fit(*digits)
    assert_same_search(found, serial)
    # Two folds and two tasks, each once with memory, else for both rates. The best
    # candidate is trained again here, in no worker.
    assert n_pretrainings(tmp_path) == (4 if with_memory else 8)


def test_a_search_survives_a_killed_worker(cluster, search, serial, digits, tmp_path):
    search = clone(search).set_params(estimator__memory=str(tmp_path / "cache"))
    cluster.run(note_trainings, str(tmp_path))
    cluster.run(lose_patience)
    pids = list(cluster.run(os.getpid).values())

    def kill():
        while not n_pretrainings(tmp_path):
            time.sleep(0.01)
        os.kill(pids[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with joblib.parallel_config("dask"):
        found = search.fit(*digits)
    killer.join()
    assert_same_search(found, serial)
    assert pids != list(cluster.run(os.getpid).values())


def test_a_search_on_ray_gives_what_a_serial_one_gives(
    search, serial, digits, tmp_path
):
    ray = pytest.importorskip("ray")
    from ray.util.joblib import register_ray

    register_ray()
    search = clone(search).set_params(estimator__memory=str(tmp_path / "cache"))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        with joblib.parallel_config("ray"):
            found = search.fit(*digits)
    finally:
        ray.shutdown()
    assert_same_search(found, serial)
    assert len(list(tmp_path.rglob("output.pkl"))) == 5  # one is of the refit
