"""Peak memory of fits in fresh processes (Linux).

Private memory counts: memory that no file holds, and that the system cannot take back.
Resident pages of files are printed beside it. The system takes these back when it needs
memory.

python benchmarks/memory.py images [--data mnist.npz]
    60,000 images of MNIST against 1,000.
python benchmarks/memory.py memmap [--gigabytes 8]
    Images in a sparse file, each with a few bytes of its own, read as a memory map,
    against the first hundredth of them.
python benchmarks/memory.py search [--images 1000000]
    Three folds of cross_val_score on LazyImages of a mapped file, 32 by 32 pixels in
    colour, against 1,000 such images. Then a single fit on the same.
python benchmarks/memory.py fits
    100 fits in one process: resident memory, open files and threads.
python benchmarks/memory.py large [--jobs 2]
    20 fits of ResNet50V2: resident memory of the process after each. With --jobs 2 two
    processes of joblib share them. joblib starts a process anew that has grown by more
    than 300 MB, if psutil is installed.
"""

import argparse
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
from _mnist import load_mnist
from _timing import in_fresh_process

SIDE = 256
COLOUR = 32, 32, 3


def tiny_network(meta):
    """Build a network that takes very little time and memory."""
    import keras

    inputs = keras.Input(meta["X_shape_"][1:])
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.AveragePooling2D(inputs.shape[1] // 4)(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(8, activation="relu")(x)
    return keras.Model(
        inputs, keras.layers.Dense(meta["n_classes_"], activation="softmax")(x)
    )


def megabytes(name):
    """Return a number that Linux keeps on the memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    return float("nan")


def watch(peaks):
    while True:
        for name in peaks:
            peaks[name] = max(peaks[name], megabytes(name))
        time.sleep(0.01)


def print_peaks(fit):
    """Print the peaks of private memory and pages of files in MB, and the seconds."""
    peaks = {"RssAnon": 0.0, "RssFile": 0.0}
    threading.Thread(target=watch, args=(peaks,), daemon=True).start()
    start = time.perf_counter()
    fit()
    print(*peaks.values(), time.perf_counter() - start)


def fit_images(path, n_images):
    from skssl import SelfSupervisedEncoder

    (images, _), _ = load_mnist(path)  # all of them on both sides
    encoder = SelfSupervisedEncoder(epochs=1)
    print_peaks(lambda: encoder.fit(images[:n_images]))


def fit_memmap(path, n_images):
    from scikeras.wrappers import KerasClassifier

    from skssl import SelfSupervisedEncoder

    shape = (n_images, SIDE, SIDE, 1)
    images = np.memmap(path, np.uint8, "r", shape=shape)
    encoder = SelfSupervisedEncoder(
        KerasClassifier(tiny_network, optimizer="adam"), epochs=1, batch_size=256
    )
    print_peaks(lambda: encoder.fit(images))


def score_folds(path, n_images, n_folds=3):
    from scikeras.wrappers import KerasClassifier
    from sklearn.model_selection import cross_val_score

    from skssl import (
        LazyImages,
        RotationPretext,
        SelfSupervisedClassifier,
        SemiSupervisedKFold,
    )

    X = LazyImages(np.memmap(path, np.uint8, "r", shape=(n_images, *COLOUR)))
    y = np.where(np.arange(n_images) < 120, np.arange(n_images) % 4, -1)
    classifier = SelfSupervisedClassifier(
        KerasClassifier(tiny_network, optimizer="adam", epochs=2),
        pretext=RotationPretext(augmentation=None),
        pretrain_epochs=1,
        self_training=None,
        random_state=0,
    )
    if n_folds == 1:
        print_peaks(lambda: classifier.fit(X, y))
    else:
        folds = SemiSupervisedKFold(n_folds)
        print_peaks(lambda: cross_val_score(classifier, X, y, cv=folds))


def fit_often(n_fits=100):
    from scikeras.wrappers import KerasClassifier
    from sklearn.datasets import load_digits

    from skssl import SelfSupervisedClassifier, build_cnn

    X, y = load_digits(return_X_y=True)
    wrapper = KerasClassifier(build_cnn, optimizer="adam", epochs=1)
    memory = {}
    for k in range(1, n_fits + 1):
        clf = SelfSupervisedClassifier(
            wrapper,
            pretrain_epochs=1,
            augmentation=None,
            self_training=None,
            random_state=k,
        )
        clf.fit(X[:100], y[:100]).predict(X[:100])
        if k % 20 == 0:
            memory[k] = megabytes("VmRSS")
            files, threads = (
                len(list(Path("/proc/self", x).iterdir())) for x in ("fd", "task")
            )
            print(f"fit {k}: {memory[k]:.0f} MB, {files} files, {threads} threads")
    growth = memory[n_fits] - memory[20]
    print(f"difference {growth:+.0f} MB from fit 20 on (target +100 MB or less)")


def resnet(meta):
    """Build a ResNet50V2 of 24 million weights."""
    import keras

    inputs = keras.Input(meta["X_shape_"][1:])
    base = keras.applications.ResNet50V2(
        include_top=False, weights=None, input_shape=inputs.shape[1:], pooling="avg"
    )
    x = base(keras.applications.resnet_v2.preprocess_input(inputs))
    outputs = keras.layers.Dense(meta["n_classes_"], activation="softmax")(x)
    return keras.Model(inputs, outputs)


def resident(estimator, X, y):
    """Return the memory of this process; a score, so that each fit reports it."""
    estimator.predict(X)
    return megabytes("VmRSS")


def fit_large(n_jobs, n_fits=20):
    from scikeras.wrappers import KerasClassifier
    from sklearn.model_selection import ShuffleSplit, cross_val_score

    from skssl import SelfSupervisedClassifier

    X = np.random.default_rng(0).integers(256, size=(96, *COLOUR), dtype=np.uint8)
    classifier = SelfSupervisedClassifier(
        KerasClassifier(resnet, optimizer="adam", epochs=1, batch_size=32),
        pretrain_epochs=1,
        augmentation=None,
        self_training=None,
        random_state=0,
    )
    folds = ShuffleSplit(n_fits, test_size=32, random_state=0)
    y = np.arange(len(X)) % 4
    memory = cross_val_score(
        classifier, X, y, cv=folds, n_jobs=n_jobs, scoring=resident
    )
    print("MB after each fit:", *memory.round().astype(int))


def compare(setting, path, sizes, target):
    rows = []
    for n_images in sizes:
        data = ["--data", path] if path else []
        line = in_fresh_process(__file__, setting, *data, "--once", n_images)
        rows.append([float(number) for number in line.split()])
        private, of_files, duration = rows[-1]
        print(
            f"{n_images} images: peak of private memory {private:.0f} MB, of resident "
            f"pages of files {of_files:.0f} MB, {duration:.0f} s"
        )
    private, of_files, _ = np.subtract(rows[1], rows[0])
    print(
        f"difference in private memory {private:+.0f} MB (target +{target} MB or "
        f"less), in pages of files {of_files:+.0f} MB"
    )


FITS = {
    "images": fit_images,
    "memmap": fit_memmap,
    "folds": score_folds,
    "one fit": partial(score_folds, n_folds=1),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("setting", choices=[*FITS, "search", "fits", "large"])
    parser.add_argument("--data", help="mnist.npz; without it Keras downloads it")
    parser.add_argument("--images", type=int)
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--gigabytes", type=float, default=8.0)
    parser.add_argument("--once", type=int, help="one fit alone, on so many images")
    arguments = parser.parse_args()
    if arguments.once:
        FITS[arguments.setting](arguments.data, arguments.once)
    elif arguments.setting == "fits":
        fit_often()
    elif arguments.setting == "large":
        fit_large(arguments.jobs)
    elif arguments.setting == "images":
        compare("images", arguments.data, (1000, arguments.images or 60_000), 400)
    elif arguments.setting == "search":
        n_images, rng = arguments.images or 1_000_000, np.random.default_rng(0)
        with tempfile.NamedTemporaryFile() as file:
            for n_rows in np.diff(np.linspace(0, n_images, 101, dtype=int)):
                file.write(rng.bytes(n_rows * int(np.prod(COLOUR))))
            file.flush()
            for setting in ("folds", "one fit"):
                print(setting)
                compare(setting, file.name, (1000, n_images), 600)
    else:
        n_images = int(arguments.gigabytes * 2**30) // SIDE**2
        with tempfile.NamedTemporaryFile() as file:
            file.truncate(n_images * SIDE**2)
            images = np.memmap(file.name, np.uint8, "r+", shape=(n_images, SIDE**2))
            rng = np.random.default_rng(0)
            images[:, :8] = rng.integers(256, size=(n_images, 8), dtype=np.uint8)
            images.flush()
            del images
            compare("memmap", file.name, (max(1, n_images // 100), n_images), 600)


if __name__ == "__main__":
    main()
