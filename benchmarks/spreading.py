"""Time and memory of spreading labels over the neighbours of embeddings.

python benchmarks/spreading.py [--data mnist.npz] [--sizes 60000 100000]
    128 random projections of MNIST and, beyond its 60,000 images, of noisy copies;
    1,000 labels. Memory is the growth of the private memory of a fresh process.
"""

import argparse
import threading
import time

import numpy as np
from _mnist import load_mnist
from _timing import in_fresh_process
from memory import megabytes, watch


def spread_once(path, n_rows):
    """Spread labels; print seconds, growth in MB and the share of right labels."""
    from skssl.self_training._spreading import spread

    (X, y), _ = load_mnist(path)
    rng = np.random.default_rng(0)
    rows = np.arange(n_rows) % len(X)
    projection = rng.normal(size=(X[0].size, 128)).astype(np.float32) / 255
    embeddings = X.reshape(len(X), -1).astype(np.float32) @ projection
    embeddings = embeddings[rows]
    embeddings += embeddings.std() / 5 * rng.normal(size=embeddings.shape)
    y = y[rows].astype(int)
    targets = np.where(np.arange(n_rows) < 1000, y, -1)
    before, peaks = megabytes("RssAnon"), {"RssAnon": 0.0}
    threading.Thread(target=watch, args=(peaks,), daemon=True).start()
    start = time.perf_counter()
    found = spread(embeddings.astype(np.float32), targets, 10).argmax(axis=1)
    seconds = time.perf_counter() - start
    print(seconds, peaks["RssAnon"] - before, (found == y)[1000:].mean())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="mnist.npz; without it Keras downloads it")
    parser.add_argument("--sizes", type=int, nargs="+", default=[60_000, 100_000])
    parser.add_argument("--once", type=int)
    arguments = parser.parse_args()
    if arguments.once:
        spread_once(arguments.data, arguments.once)
        return
    data = ["--data", arguments.data] if arguments.data else []
    for n_rows in arguments.sizes:
        line = in_fresh_process(__file__, *data, "--once", n_rows)
        seconds, memory, right = map(float, line.split())
        print(
            f"{n_rows} rows: {seconds:.0f} s, {memory:+.0f} MB, "
            f"{right:.3f} of the labels right",
            flush=True,
        )


if __name__ == "__main__":
    main()
