"""Fits under strategies of tf.distribute, with real devices and processes."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal

import skssl._training.batches as batches
from skssl._data.training_set import TrainingSet
from skssl._training.batches import Batches, MixedBatches
from skssl._training.distribution import DistributedTrainer
from skssl._training.reuse import compiled

SCRIPT = Path(__file__).with_name("distributed_fit.py")


def start(name, result, *settings, config=None):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if config:
        environment["TF_CONFIG"] = json.dumps(config)
    return subprocess.Popen(
        [sys.executable, SCRIPT, name, result, *settings],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_workers(folder, *settings):
    """Start two workers that train together."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    addresses = [f"127.0.0.1:{x.getsockname()[1]}" for x in sockets]
    for x in sockets:
        x.close()
    return [
        start(
            "workers",
            folder / f"worker-{index}.npz",
            *settings,
            config={
                "cluster": {"worker": addresses},
                "task": {"type": "worker", "index": index},
            },
        )
        for index in range(2)
    ]


def results(folder, *processes):
    """Return what processes have written, in the order of their names."""
    for process in processes:
        output, _ = process.communicate(timeout=400)
        assert process.returncode == 0, output
    return [np.load(path) for path in sorted(folder.glob("*.npz"))]


def assert_same_result(result, expected):
    for name in expected.files:
        assert_array_equal(result[name], expected[name])


def assert_equal_but_for_rounding(result, expected):
    assert_allclose(result["losses"], expected["losses"], atol=2e-6)
    assert_allclose(result["probabilities"], expected["probabilities"], atol=1e-5)
    assert_allclose(result["weights"], expected["weights"], atol=2e-5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Return the result of one device, without a strategy."""
    folder = tmp_path_factory.mktemp("alone")
    return results(folder, start("none", folder / "none.npz"))[0]


def test_two_devices_train_as_one_does(tmp_path, alone):
    [result] = results(tmp_path, start("mirrored", tmp_path / "mirrored.npz"))
    assert_equal_but_for_rounding(result, alone)


def test_two_workers_train_as_one_does_and_share_a_cache(tmp_path, alone):
    settings = [f"memory={str(tmp_path / 'cache')!r}", "verbose=2"]
    first = start_workers(tmp_path, *settings)
    one, other = results(tmp_path, *first)
    assert_same_result(one, other)
    assert_equal_but_for_rounding(one, alone)
    assert len(list(tmp_path.rglob("output.pkl"))) == 1

    again = start_workers(tmp_path, *settings)
    outputs = [process.communicate(timeout=400)[0] for process in again]
    assert not any("Pretraining" in output for output in outputs)
    for result in results(tmp_path, *again):
        assert_same_result(result, one)


def test_a_killed_worker_costs_no_finished_epoch(tmp_path):
    whole, interrupted = tmp_path / "whole", tmp_path / "interrupted"
    for folder in (whole, interrupted):
        folder.mkdir()
    settings = ["self_training='both'", "augmentation='auto'", "verbose=2"]
    expected = results(whole, *start_workers(whole, *settings))[0]

    checkpoints = interrupted / "checkpoints"
    settings += [f"checkpoint_dir={str(checkpoints)!r}"]
    first, second = start_workers(interrupted, *settings)
    while not list(checkpoints.glob("fine-tuning*.checkpoint")):
        assert second.poll() is None, second.communicate()[0]
        time.sleep(0.01)
    os.kill(second.pid, signal.SIGKILL)
    second.communicate(timeout=60)
    time.sleep(1)
    first.kill()  # as launchers do where one worker is gone
    first.communicate(timeout=60)
    assert not list(interrupted.glob("*.npz"))

    again = start_workers(interrupted, *settings)
    outputs = [process.communicate(timeout=400)[0] for process in again]
    for result in results(interrupted, *again):
        assert_same_result(result, expected)
    assert not list(checkpoints.iterdir())
    for output in outputs:
        epochs = re.findall(r"Epoch (\d+)/4", output.split("Fine-tuning")[1])
        assert epochs[0] != "1", output


def test_a_keras_that_adds_up_metrics_wrongly_is_refused(monkeypatch):
    inputs = keras.Input((3,))
    trainer = DistributedTrainer(inputs, keras.layers.Dense(2)(inputs))
    owner = next(x for x in keras.Variable.__mro__ if "synchronization" in vars(x))
    monkeypatch.delattr(owner, "synchronization")
    with pytest.raises(RuntimeError, match="needs Keras 3.10 or later"):
        trainer.build_for((), 1)


def test_compiled_steps_are_refused_under_a_strategy():
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        inputs = keras.Input((3,))
        model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
        settings = {"optimizer": keras.optimizers.Adam(), "loss": "mse"}
        assert isinstance(compiled(model, settings), DistributedTrainer)
        with pytest.raises(ValueError, match="jit_compile=True cannot be used"):
            compiled(model, {**settings, "jit_compile": True})


def shares_of(make, n_all):
    """Return the rows that each of some replicas reads in an epoch, batch by batch."""
    images = np.arange(50.0).reshape(50, 1, 1, 1)
    made = make(TrainingSet(images, np.arange(50)), None)
    batches, seeds = made.epoch_batches(3)
    return [
        [made.block([batch], seeds, replica, n_all)[0].ravel() for batch in batches]
        for replica in range(n_all)
    ]


@pytest.mark.parametrize("n_all", [1, 2, 3, 5])
@pytest.mark.parametrize(
    "make",
    [
        lambda *x: Batches(*x, batch_size=7, seed=0),
        lambda *x: MixedBatches(
            *x, 4, 0, n_labelled=3, labelled_batch_size=1, epoch_steps=9
        ),
    ],
)
def test_replicas_share_each_batch(make, n_all):
    [whole] = shares_of(make, 1)
    shares = shares_of(make, n_all)
    for batch, *parts in zip(whole, *shares, strict=True):
        assert min(map(len, parts)) >= 1
        assert sorted(np.concatenate(parts)) == sorted(batch)


def test_a_batch_of_fewer_rows_than_replicas_is_refused(monkeypatch):
    data = TrainingSet(np.zeros((3, 1, 1, 1)), np.arange(3))
    Batches(data, None, batch_size=32, seed=0).check_shares()
    monkeypatch.setattr(batches, "n_replicas", lambda: 4)
    with pytest.raises(
        ValueError, match="batch of 3 images is too small .* 4 replicas"
    ):
        Batches(data, None, batch_size=32, seed=0).check_shares()
