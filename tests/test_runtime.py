"""The backend, the seeds and the threads of a process."""

import os
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from joblib import Parallel, delayed, parallel_config
from keras import layers
from keras.src.random.seed_generator import global_seed_generator
from networks import assert_same_weights, flat_weights, two_stages
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import cross_validate

from skssl import SelfSupervisedClassifier, SelfSupervisedEncoder
from skssl._runtime import seeded, seeded_process

# Seeds


def test_seeds_of_keras_come_from_the_seed_and_from_this_thread():
    def draw():
        kernel = layers.Dense(3)
        kernel.build((None, 2))
        return np.concatenate(
            [
                kernel.kernel.numpy().ravel(),
                keras.random.normal((4,)).numpy(),
                [keras.random.SeedGenerator().state.numpy()[0]],
            ]
        )

    with seeded(1):
        first = draw()
        with seeded(2):
            other = draw()
        further = draw()
    with seeded(1):
        assert_array_equal(draw(), first)
        assert_array_equal(draw(), further)
    assert not np.array_equal(first, other)
    with ThreadPoolExecutor(1) as pool, seeded(1):
        outside = pool.submit(draw).result()
        assert not np.array_equal(outside, first)
        assert_array_equal(draw(), first)


def test_what_other_threads_draw_changes_no_seed():
    stop = threading.Event()

    def draw_on():
        while not stop.is_set():
            random.random()
            np.random.random()

    with seeded(3):
        expected = [keras.random.SeedGenerator().state.numpy()[0] for _ in range(300)]
    thread = threading.Thread(target=draw_on)
    thread.start()
    try:
        with seeded(3):
            drawn = [keras.random.SeedGenerator().state.numpy()[0] for _ in range(300)]
    finally:
        stop.set()
        thread.join()
    assert drawn == expected


@pytest.mark.parametrize("context", [seeded, seeded_process])
def test_the_generators_of_the_caller_stay_where_they_were(context):
    shared = global_seed_generator()
    before = shared.state.numpy()
    states = random.getstate(), np.random.get_state()[1].copy()
    with pytest.raises(KeyError), context(0):
        keras.random.SeedGenerator()
        keras.random.normal((3,))
        if context is seeded_process:
            random.random()
            np.random.random()
        raise KeyError
    assert random.getstate() == states[0]
    assert_array_equal(np.random.get_state()[1], states[1])
    assert global_seed_generator() is shared
    assert_array_equal(shared.state.numpy(), before)


def test_code_of_the_user_draws_from_the_seed():
    def draw():
        return random.random(), np.random.random()

    with seeded_process(7):
        expected = draw()
    with seeded_process(7):
        assert draw() == expected


class Noise(layers.Layer):
    """Adds noise of no seed of its own, in training and after."""

    def call(self, inputs):
        """Add it."""
        return inputs + keras.random.normal(keras.ops.shape(inputs), stddev=0.5)


def noisy(meta):
    scale = random.choice([1 / 16, 1 / 12]) * np.random.uniform(0.5, 1)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Rescaling(scale),
            Noise(),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(meta["n_classes_"], activation="softmax"),
        ]
    )


@pytest.mark.parametrize("pretrain_epochs", [0, 1])
def test_draws_without_a_seed_are_repeated_with_the_random_state(
    pretrain_epochs, few_labels, quick
):
    X, y = few_labels
    clf = SelfSupervisedClassifier(
        quick(noisy), pretrain_epochs=pretrain_epochs, random_state=0
    )
    before = global_seed_generator().state.numpy()
    first = clf.fit(X, y).predict_proba(X)
    assert_array_equal(global_seed_generator().state.numpy(), before)
    again = clone(clf).fit(X, y)
    assert again.finetune_history_ == clf.finetune_history_
    assert_same_weights(again.model_, clf.model_)
    assert_array_equal(again.predict_proba(X), first)
    other = clone(clf).set_params(random_state=1).fit(X, y)
    assert other.finetune_history_ != clf.finetune_history_


def test_draws_without_a_seed_go_on_in_partial_fit(few_labels, quick):
    X, y = few_labels
    X, y = X[y != -1], y[y != -1]
    params = {"pretrain_epochs": 0, "random_state": 0}
    whole = SelfSupervisedClassifier(quick(noisy, epochs=3), **params).fit(X, y)
    by_epoch = SelfSupervisedClassifier(quick(noisy), **params)
    for _ in range(3):
        by_epoch.partial_fit(X, y, classes=range(10))
    assert by_epoch.finetune_history_ == whole.finetune_history_


# Threads


def fits(few_labels, quick, tmp_path):
    """Return functions that fit or predict and give what came of it."""
    X, y = few_labels
    X, y = X[:60], y[:60]

    def fit(clf):
        clf = clone(clf).fit(X, y)
        return np.concatenate([flat_weights(clf.model_), clf.predict_proba(X).ravel()])

    small = SelfSupervisedClassifier(quick(), pretrain_epochs=1, random_state=0)
    fitted = clone(small).fit(X, y)
    return [
        lambda: fit(small),
        lambda: fit(clone(small).set_params(random_state=1)),
        lambda: fit(
            SelfSupervisedClassifier(quick(noisy), pretrain_epochs=1, random_state=2)
        ),
        lambda: fit(
            SelfSupervisedClassifier(
                quick(), pretrain_epochs=1, random_state=3, memory=str(tmp_path)
            )
        ),
        lambda: fitted.predict_proba(X),
        lambda: fitted.predict_pretext(X),
        lambda: np.float64(fitted.score_pretext(X)),
        lambda: flat_weights(
            SelfSupervisedEncoder(quick(), epochs=1, random_state=4).fit(X).backbone_
        ),
    ]


def test_fits_in_threads_are_those_of_one_after_the_other(few_labels, quick, tmp_path):
    tasks = fits(few_labels, quick, tmp_path)
    expected = [task() for task in tasks]
    states = random.getstate(), np.random.get_state()[1].copy()
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            for result, right in zip(
                pool.map(lambda task: task(), tasks), expected, strict=True
            ):
                assert_array_equal(result, right)
    assert random.getstate() == states[0]
    assert_array_equal(np.random.get_state()[1], states[1])


def test_the_threading_backend_of_joblib_gives_the_same(few_labels, quick, tmp_path):
    tasks = fits(few_labels, quick, tmp_path)[:3]
    expected = [task() for task in tasks]
    with parallel_config("threading", n_jobs=3):
        results = Parallel()(delayed(task)() for task in tasks)
    for result, right in zip(results, expected, strict=True):
        assert_array_equal(result, right)


# The backend of Keras


@pytest.mark.parametrize(
    "call",
    [
        "SelfSupervisedClassifier().fit('no images', None)",
        "SelfSupervisedClassifier().partial_fit('no images', None)",
        "SelfSupervisedEncoder().fit('no images')",
    ],
)
def test_another_backend_is_refused_before_anything_else(call):
    code = (
        "import sys\n"
        "from skssl import SelfSupervisedClassifier, SelfSupervisedEncoder\n"
        f"try:\n    {call}\n"
        "except RuntimeError as error:\n    print(error)\n"
        "print('keras' in sys.modules)\n"
    )
    output = subprocess.check_output(
        [sys.executable, "-c", code],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        text=True,
    )
    assert "backend 'jax'. Set the environment variable KERAS_BACKEND" in output
    assert output.endswith("False\n")


def test_a_backend_that_keras_has_already_is_refused(monkeypatch, few_labels):
    monkeypatch.setattr(keras.config, "backend", lambda: "torch")
    with pytest.raises(RuntimeError, match="backend 'torch'"):
        SelfSupervisedClassifier().fit(*few_labels)


# The dtype policy


@pytest.fixture
def bfloat16():
    """Set the policy of this thread to mixed_bfloat16."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy("float32")


def in_another_thread(function):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def policies(clf):
    models = clf.model_, clf.encoder_.pretext_model_
    return {x.dtype_policy.name for m in models for x in m.get_layer("backbone").layers}


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_workers_train_under_the_policy_of_the_search(
    few_labels, quick, bfloat16, backend
):
    X, y = few_labels
    clf = two_stages(quick(epochs=1), pretrain_epochs=1, random_state=0)
    with parallel_config(backend, n_jobs=2):
        found = cross_validate(
            clf, X[:100], y[:100], cv=2, return_estimator=True, error_score="raise"
        )
    assert all("mixed_bfloat16" in policies(x) for x in found["estimator"])


def test_a_worker_keeps_its_own_policy_and_has_it_back(few_labels, tiny, bfloat16):
    X, y = few_labels
    sent = clone(two_stages(tiny, pretrain_epochs=1, random_state=0))

    def train(policy):
        keras.config.set_dtype_policy(policy)
        trained = policies(clone(sent).fit(X[:100], y[:100]))
        return trained, keras.config.dtype_policy().name

    trained, after = in_another_thread(lambda: train("float32"))
    assert "mixed_bfloat16" in trained and after == "float32"
    trained, after = in_another_thread(lambda: train("mixed_float16"))
    assert "mixed_float16" in trained and after == "mixed_float16"
    with pytest.raises(ValueError):
        in_another_thread(lambda: sent.fit(X[:0], y[:0]))


def test_a_policy_counts_in_its_own_thread_only_while_it_is_set(few_labels, tiny):
    X, y = few_labels
    clf = two_stages(tiny, pretrain_epochs=1, random_state=0)
    keras.config.set_dtype_policy("mixed_bfloat16")
    cloned = clone(clf)
    keras.config.set_dtype_policy("float32")
    assert "mixed_bfloat16" not in policies(cloned.fit(X[:100], y[:100]))
    again = clone(cloned)
    trained = in_another_thread(lambda: again.fit(X[:100], y[:100]))
    assert "mixed_bfloat16" not in policies(trained)
