import gc
import multiprocessing
import os
import resource
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from networks import flat_weights, two_stages
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

import skssl._training.batches
import skssl._training.loop
from skssl import (
    SelfSupervisedEncoder,
    TrainingCurveDisplay,
)
from skssl._data.training_set import TrainingSet
from skssl._networks.network import build_network
from skssl._networks.surgery import freeze, split_frozen
from skssl._training.batches import Batches
from skssl._training.stages import finetuning

IMAGE_SHAPE = (8, 8, 1)


def two_convolutions(*extra):
    """Return a build function of a network with layers put before the second one."""

    def build(meta):
        return keras.Sequential(
            [
                keras.Input(IMAGE_SHAPE),
                keras.layers.Conv2D(4, 3, activation="relu"),
                *(make() for make in extra),
                keras.layers.Conv2D(4, 3, activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(8, activation="relu"),
                keras.layers.Dense(meta["n_classes_"], activation="softmax"),
            ]
        )

    return build


# Frozen layers


def test_frozen_layers_are_computed_once_with_the_same_result(
    few_labels, quick, trainings
):
    X, y = few_labels
    clf = two_stages(
        quick(two_convolutions(keras.layers.BatchNormalization), epochs=4),
        pretrain_epochs=1,
        pretrain_optimizer="adam",
        frozen_layers=3,
        random_state=0,
    ).fit(X, y)
    # A callback that may look at the network has it computed as a whole.
    through = clone(clf).set_params(estimator__callbacks=[keras.callbacks.Callback()])
    through.fit(X, y)
    behind, whole = (trainings[k].input_shape for k in (1, 3))
    assert (behind, whole) == ((None, 64), (None, *IMAGE_SHAPE))
    assert_allclose(through.predict_proba(X), clf.predict_proba(X), atol=1e-4)
    assert_allclose(
        through.finetune_history_["loss"], clf.finetune_history_["loss"], rtol=1e-4
    )
    weights = [flat_weights(x.model_) for x in (through, clf)]
    assert_allclose(*weights, atol=1e-4)


@pytest.mark.parametrize("frozen_layers", [1, 2, 4, "all"])
def test_both_parts_are_the_whole(frozen_layers):
    network = build_network(two_convolutions(), IMAGE_SHAPE, 0, np.arange(3))
    freeze(network, frozen_layers)
    constant, trained = split_frozen(network)
    images = np.random.default_rng(0).random((5, *IMAGE_SHAPE), dtype=np.float32)
    whole = network.training_model(images)
    assert_allclose(trained(constant(images)), whole, atol=1e-6)
    assert not constant.trainable_weights
    n_frozen = len(network.layers) if frozen_layers == "all" else frozen_layers
    for layer in network.layers[:n_frozen]:
        assert not any(w is v for w in layer.weights for v in trained.weights)


@pytest.mark.parametrize(
    ("extra", "frozen_layers"),
    [
        (lambda: keras.layers.Conv2D(4, 3), 0),  # nothing is frozen
        (lambda: keras.layers.Dropout(0.5), "all"),
        (lambda: keras.layers.GaussianNoise(0.5), "all"),
        (lambda: keras.layers.RandomFlip(), "all"),
        (lambda: keras.layers.Lambda(lambda x: x), "all"),
        (lambda: keras.layers.ActivityRegularization(0.1), "all"),
    ],
)
def test_a_layer_that_changes_ends_the_constant_part(extra, frozen_layers):
    network = build_network(two_convolutions(extra), IMAGE_SHAPE, 0, np.arange(3))
    freeze(network, frozen_layers)
    parts = split_frozen(network)
    if frozen_layers == 0:
        assert parts is None
    else:
        assert [layer.name for layer in parts[0].layers[1:]] == [
            "standardize",
            network.layers[0].name,
        ]


def test_a_network_that_divides_its_images_is_split_too():
    def build(meta):
        inputs = keras.Input(IMAGE_SHAPE)
        x = keras.layers.Conv2D(4, 3, activation="relu")(inputs / 255.0)
        x = keras.layers.Dense(8)(keras.layers.Flatten()(x))
        return keras.Model(inputs, keras.layers.Dense(meta["n_classes_"])(x))

    network = build_network(build, IMAGE_SHAPE, 0, np.arange(3))
    freeze(network, 2)
    constant, trained = split_frozen(network)
    images = np.random.default_rng(0).random((5, *IMAGE_SHAPE), dtype=np.float32)
    expected = network.training_model(images)
    assert_allclose(trained(constant(images)), expected, atol=1e-6)
    assert not constant.trainable_weights
    assert constant.output_shape == (None, 144)


def convolution():
    return keras.layers.Conv2D(1, 3, padding="same")


def residual(x, last):
    """Two residual blocks, and a layer behind them."""
    for _ in range(2):
        x = keras.layers.Add()([convolution()(x), x])
    return last(x)


def skipping(x, last):
    """The sum of the input, and of two layers in turn."""
    first = convolution()(x)
    return keras.layers.Add()([last(first), x])


def twice(x, last):
    layer = convolution()
    return last(layer(layer(x)))


@pytest.mark.parametrize(
    ("body", "frozen_layers", "cut"),
    [
        (residual, 1, "add"),
        (residual, 2, "add"),
        (residual, 3, "add_1"),
        (residual, "all", "flatten"),
        (skipping, 1, None),  # the input goes past the first convolution
        (skipping, "all", "flatten"),
        (twice, 1, "conv2d_1"),
    ],
)
def test_networks_with_branches_are_split_where_one_tensor_passes(
    body, frozen_layers, cut
):
    def build(meta):
        inputs = keras.Input(IMAGE_SHAPE)
        x = keras.layers.Flatten()(body(inputs, convolution()))
        return keras.Model(inputs, keras.layers.Dense(meta["n_classes_"])(x))

    keras.utils.clear_session()  # names of layers count from 0
    network = build_network(build, IMAGE_SHAPE, 0, np.arange(3))
    freeze(network, frozen_layers)
    parts = split_frozen(network)
    if cut is None:
        assert parts is None
        return
    constant, trained = parts
    assert constant.layers[-1].name == cut
    assert not constant.trainable_weights
    images = np.random.default_rng(0).random((5, *IMAGE_SHAPE), dtype=np.float32)
    whole = network.training_model(images)
    assert_allclose(trained(constant(images)), whole, atol=1e-6)
    assert len(trained.trainable_weights) == len(
        network.training_model.trainable_weights
    )


def test_frozen_outputs_too_large_to_keep_are_not_kept(
    few_labels, quick, monkeypatch, trainings
):
    X, y = few_labels
    clf = two_stages(quick(), pretrain_epochs=1, frozen_layers="all", random_state=0)
    kept = clf.fit(X, y).predict_proba(X)
    assert trainings[1].input_shape != (None, *IMAGE_SHAPE)
    monkeypatch.setattr(skssl._training.loop, "MAX_CONSTANT_BYTES", 10)
    assert_allclose(clone(clf).fit(X, y).predict_proba(X), kept, atol=1e-4)
    assert trainings[3].input_shape == (None, *IMAGE_SHAPE)


def test_a_callback_of_the_user_sees_the_whole_network(few_labels, quick):
    seen = []

    class Seeing(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.append(self.model.input_shape)

    X, y = few_labels
    two_stages(quick(callbacks=[Seeing()]), pretrain_epochs=1, frozen_layers="all").fit(
        X, y
    )
    assert seen == [(None, *IMAGE_SHAPE)]


def test_a_callback_that_only_looks_changes_nothing(few_labels, quick):
    X, y = few_labels
    params = {"pretrain_epochs": 1, "random_state": 0}
    expected = two_stages(quick(), **params).fit(X, y)
    for callback in [keras.callbacks.Callback(), keras.callbacks.TerminateOnNaN()]:
        clf = two_stages(quick(callbacks=[callback]), **params).fit(X, y)
        assert_allclose(clf.predict_proba(X), expected.predict_proba(X), atol=1e-4)
    # One that does without the steps leaves them as they are.
    assert clf.finetune_history_ == expected.finetune_history_


def test_keras_reads_what_a_callback_saves(few_labels, quick, tmp_path):
    X, y = few_labels
    path = str(tmp_path / "{epoch}.keras")
    callbacks = [keras.callbacks.ModelCheckpoint(path)]
    clf = two_stages(quick(callbacks=callbacks, epochs=2), pretrain_epochs=1).fit(X, y)
    saved = keras.saving.load_model(tmp_path / "2.keras")
    images = X[:5].reshape(5, *IMAGE_SHAPE).astype(np.float32)
    assert_allclose(saved.predict(images, verbose=0), clf.predict_proba(X[:5]), 1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains(few_labels, quick, policy):
    X, y = few_labels
    keras.config.set_dtype_policy(policy)
    try:
        network = quick(epochs=20)
        clf = two_stages(network, pretrain_epochs=1, random_state=0)
        labelled = y != -1
        assert clf.fit(X, y).score(X[labelled], y[labelled]) > 0.5
        assert clone(clf).fit(X, y).finetune_history_ == clf.finetune_history_
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("max_bytes", [1, 2**11])
def test_blocks_are_cut_where_images_are_large(
    few_labels, quick, monkeypatch, max_bytes
):
    X, _ = few_labels
    encoder = SelfSupervisedEncoder(quick(), epochs=2, random_state=0)
    expected = encoder.fit(X).history_
    monkeypatch.setattr(skssl._training.batches, "MAX_BLOCK_BYTES", max_bytes)
    assert clone(encoder).fit(X).history_ == expected


def test_an_epoch_reads_every_row_once_per_pass(monkeypatch):
    images = np.arange(23, dtype=np.uint8).reshape(23, 1, 1, 1)
    rows = np.arange(1, 23)
    data = TrainingSet(images, rows, targets=2 * rows, weights=rows / 4)

    def prepare(images, seed, targets, weights):
        return images, targets, weights, seed

    batches = Batches(data, prepare, batch_size=5, seed=0, passes=2, first_epoch=4)

    def epochs(n_done, n_epochs):
        dataset = batches.dataset(n_done)
        return [list(dataset.as_numpy_iterator()) for _ in range(n_epochs)]

    first, second = epochs(0, 2)
    assert batches.dataset().cardinality() == len(first) == 10
    pixels, targets, weights, seeds = zip(*first, strict=True)
    assert sorted(map(len, pixels)) == [4] * 6 + [5] * 4
    assert len(np.unique(seeds, axis=0)) == 10
    pixels = np.concatenate(pixels).ravel()
    assert sorted(pixels[:22]) == sorted(pixels[22:]) == list(rows)
    assert_array_equal(np.concatenate(targets), 2 * pixels)
    assert_array_equal(np.concatenate(weights), pixels / 4)
    block = batches.block(*batches.epoch_batches(4))  # what the first epoch reads
    assert_array_equal(block[0].ravel(), pixels)
    assert_array_equal(block[4], 2 * pixels)
    monkeypatch.setattr("skssl._training.batches.MAX_BLOCK_STEPS", 3)
    blocks, n_blocks = batches.blocks(0, 1)
    pieces = list(blocks.as_numpy_iterator())
    assert len(pieces) == n_blocks
    assert [len(bounds) - 1 for _, _, bounds, *_ in pieces] == [3, 3, 3, 1]
    for images, seeds, bounds, *_ in pieces:
        assert bounds[0] == 0
        assert bounds[-1] == len(images)
        assert len(seeds) == len(bounds) - 1
    # The order follows from the number of the epoch alone.
    (again,) = epochs(1, 1)
    for batch, other in zip(again, second, strict=True):
        assert_array_equal(batch[0], other[0])
    assert (np.concatenate([x[0] for x in second]).ravel() != pixels).any()


@pytest.mark.parametrize(
    ("n_rows", "epochs", "passes"),
    [(100, 20, 25), (1797, 18, 2), (60_000, 5, 1), (1, 20, 50)],
)
def test_few_labels_get_enough_steps(n_rows, epochs, passes):
    network = build_network(two_convolutions(), IMAGE_SHAPE, 0, np.arange(3))
    rows = np.arange(n_rows)
    data = TrainingSet(np.zeros((n_rows, *IMAGE_SHAPE), np.uint8), rows, rows % 3)
    stage = finetuning(network, data, seed=0, verbose=0)
    assert (stage.epochs, stage.batches.passes) == (epochs, passes)
    assert stage.batches.batch_size == 64


# Stages


def test_a_stage_has_one_name_everywhere(
    few_labels, quick, tmp_path, capsys, trainings, written
):
    clf = two_stages(
        quick(), pretrain_epochs=2, checkpoint_dir=tmp_path, verbose=2, random_state=0
    ).fit(*few_labels)
    shown = capsys.readouterr().out.splitlines()
    display = TrainingCurveDisplay.from_estimator(clf)
    plt.close(display.figure_)
    names = [name for name, history in display.histories.items() if history]
    assert len(names) == len(trainings) == 2
    assert [line.get_label() for line in display.axes_[0].lines] == names
    # Two epochs each, of which each writes a checkpoint.
    assert [x.rpartition("-")[0] for x in written] == [x for x in names for _ in "ab"]
    for name in names:
        assert any(line.startswith(name.capitalize()) for line in shown)
    assert list(display.histories.values()) == [
        clf.pretrain_history_,
        clf.finetune_history_,
        None,
    ]
    display = TrainingCurveDisplay.from_estimator(clf.encoder_)
    plt.close(display.figure_)
    assert list(display.histories) == names[:1]


# Trainings that diverge


@pytest.mark.parametrize(
    ("pretrain_epochs", "stage"), [(2, "Pretraining"), (0, "Fine-tuning")]
)
def test_a_training_that_diverges_says_so(few_labels, quick, pretrain_epochs, stage):
    X, y = few_labels
    clf = two_stages(
        quick(optimizer="sgd", optimizer__learning_rate=1e30, epochs=5),
        pretrain_epochs=pretrain_epochs,
        pretrain_optimizer=keras.optimizers.SGD(1e30),
        random_state=0,
    )
    with pytest.raises(FloatingPointError, match=rf"{stage} diverged: .* in epoch \d"):
        clf.fit(X, y)
    assert not hasattr(clf, "model_")


def test_weights_that_end_infinite_are_refused(few_labels, quick):
    class Spoil(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            weights = self.model.get_weights()
            self.model.set_weights([*weights[:-1], weights[-1] * np.nan])

    X, y = few_labels
    clf = two_stages(quick(callbacks=[Spoil()]), pretrain_epochs=0)
    with pytest.raises(FloatingPointError, match="Fine-tuning .*weights became"):
        clf.fit(X, y)


# Processes and threads


def used_bytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc")
def test_many_fits_leave_nothing_behind(few_labels, quick):
    X, y = few_labels
    clf = two_stages(quick(), pretrain_epochs=1)
    for k in range(14):
        if k == 4:
            n_files, n_bytes = len(os.listdir("/proc/self/fd")), used_bytes()
        clf.fit(X[:100], y[:100]).predict(X[:10])
    assert len(os.listdir("/proc/self/fd")) == n_files
    assert used_bytes() < n_bytes + 40 * 2**20  # 9 MB a fit with a graph for each


class OwnDense(keras.layers.Dense):
    """A layer of the user's: what was traced is not used again."""


def large_network(meta):
    inputs = keras.Input(meta["X_shape_"][1:])
    x = OwnDense(4000)(keras.layers.Flatten()(inputs))
    x = keras.layers.Dense(500, activation="relu")(x)
    outputs = keras.layers.Dense(meta["n_classes_"], activation="softmax")(x)
    return keras.Model(inputs, outputs)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("optimizer", ["adam", "nadam"])
def test_large_networks_are_freed_after_a_fit(few_labels, quick, optimizer):
    X, y = few_labels
    wrapper = quick(large_network, epochs=1, optimizer=optimizer)
    clf = two_stages(wrapper, pretrain_epochs=1)
    for k in range(5):
        if k == 2:
            n_bytes = used_bytes()
        clf.fit(X[:100], y[:100])
        gc.collect()
    # 9 MB of weights. It was 67 MB a fit when the graphs of steps were registered.
    assert used_bytes() < n_bytes + 70 * 2**20


def test_threads_predict_as_one_does(fitted, digits):
    X, _ = digits
    expected = fitted.predict_proba(X)
    with ThreadPoolExecutor(8) as threads:
        for result in threads.map(lambda _: fitted.predict_proba(X), range(24)):
            assert_array_equal(result, expected)


def test_one_image_is_predicted_as_among_many(fitted, digits):
    X, _ = digits
    expected = fitted.predict_proba(X)
    assert_allclose(fitted.predict_proba(X[7:8]), expected[7:8], atol=1e-6)


def predict_in_child(encoder, X, queue):
    try:
        queue.put(encoder.transform(X))
    except Exception as error:
        queue.put(error)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
def test_a_forked_process_is_refused_in_words(few_labels, quick):
    X, _ = few_labels
    encoder = SelfSupervisedEncoder(quick(), epochs=1).fit(X[:50])
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=predict_in_child, args=(encoder, X, queue))
    child.start()
    try:
        error = queue.get(timeout=60)
    finally:
        child.kill()
        child.join()
    assert isinstance(error, RuntimeError)
    assert "'loky', or the start methods 'spawn'" in str(error)


def test_workers_keep_to_their_share_of_the_cores():
    code = (
        "import contextlib, numpy, skssl, tensorflow as tf\n"
        "with contextlib.suppress(TypeError):\n"  # no estimator, but set up by then
        "    skssl.SelfSupervisedEncoder('none').fit(numpy.zeros((4, 4, 4)))\n"
        "threading = tf.config.threading\n"
        "print(threading.get_intra_op_parallelism_threads(),\n"
        "      threading.get_inter_op_parallelism_threads())\n"
    )
    for n_threads, expected in [("1", "1 1"), ("", "0 0")]:
        output = subprocess.check_output(
            [sys.executable, "-c", code],
            env={"OMP_NUM_THREADS": n_threads, "PATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
            text=True,
        )
        assert output.strip() == expected


SEARCH = """
import numpy as np
from scikeras.wrappers import KerasClassifier
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from skssl import SelfSupervisedClassifier, build_cnn

X, y = load_digits(return_X_y=True)
X, y = X[:80], y[:80] % 2
wrapper = KerasClassifier(build_cnn, model__filters=(2,), optimizer="adam", epochs=1)
clf = SelfSupervisedClassifier(wrapper, pretrain_epochs=1, random_state=0).fit(X, y)
grid = {"frozen_layers": [0, "all"]}
scores = [
    GridSearchCV(clf, grid, cv=2, n_jobs=2).fit(X, y).cv_results_["mean_test_score"]
    for _ in range(2)
]
assert min(scores[0]) > 0.3
np.testing.assert_array_equal(scores[0], scores[1])
"""


def test_parallel_searches_after_a_fit_do_not_hang():
    subprocess.run([sys.executable, "-c", SEARCH], check=True, timeout=120)


@pytest.mark.skipif(sys.platform != "linux", reason="counts faults as Linux does")
def test_large_arrays_are_not_mapped_anew_after_a_fit():
    script = """
        import resource
        import numpy as np
        from sklearn.datasets import load_digits
        from skssl import SelfSupervisedClassifier

        X, y = load_digits(return_X_y=True)
        SelfSupervisedClassifier(pretrain_epochs=1, self_training=None).fit(X, y)

        def n_faults(n_arrays):
            for _ in range(n_arrays):
                np.ones(2**18)  # 512 pages
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

        before = n_faults(10)
        print(n_faults(100) - before)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(run.stdout) < 5000
