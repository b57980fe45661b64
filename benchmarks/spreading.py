"""Time and memory of spreading labels over the neighbours of embeddings.

python benchmarks/spreading.py [--data mnist.npz] [--sizes 60000 100000]
    128 random projections of MNIST and, beyond its 60,000 images, mixtures of two of a
    class; 1,000 labels. Memory is the growth of the private memory of a fresh process.
python benchmarks/spreading.py --index --sizes 100000 1000000
    Neighbours by an approximate index of faiss, as in docs/guide/growth.md.
"""

import argparse
import threading
import time

import numpy as np
from _mnist import load_mnist
from _timing import in_fresh_process
from memory import megabytes, watch
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA
from sklearn.semi_supervised import LabelSpreading


def neighbours(X, _):
    """Return the graph of the 10 nearest neighbours of each row, approximately."""
    import faiss

    X = PCA(32, svd_solver="covariance_eigh").fit_transform(X).astype("float32")
    index = faiss.index_factory(32, "HNSW16")
    index.hnsw.efSearch = 32
    index.add(X)
    _, found = index.search(X, 10)
    ends = np.arange(0, found.size + 1, 10)
    return csr_matrix((np.ones(found.size), found.ravel(), ends))


def load_embeddings(path, n_rows):
    """Return embeddings, (n_rows, 128), and their classes."""
    (X, y), _ = load_mnist(path)
    rng = np.random.default_rng(0)
    projection = rng.normal(size=(X[0].size, 128)).astype(np.float32) / 255
    embeddings = np.empty((n_rows, 128), np.float32)
    n_images = min(n_rows, len(X))
    embeddings[:n_images] = X[:n_images].reshape(n_images, -1) @ projection
    classes = y[np.arange(n_rows) % len(X)].astype(int)
    of_class = [np.flatnonzero(y == k) for k in range(10)]
    for row in range(n_images, n_rows):
        pair = embeddings[rng.choice(of_class[classes[row]], 2)]
        share = rng.random(dtype=np.float32)
        embeddings[row] = share * pair[0] + (1 - share) * pair[1]
    return embeddings, classes


def spread_once(path, n_rows, index):
    """Spread labels; print seconds, growth in MB and the share of right labels."""
    from skssl.self_training._spreading import spread

    embeddings, y = load_embeddings(path, n_rows)
    targets = np.where(np.arange(n_rows) < 1000, y, -1)
    estimator = None
    if index:
        import faiss  # noqa: F401  its import is no part of the measurement

        estimator = LabelSpreading(kernel=neighbours, max_iter=100, tol=0)
    before, peaks = megabytes("RssAnon"), {"RssAnon": 0.0}
    threading.Thread(target=watch, args=(peaks,), daemon=True).start()
    start = time.perf_counter()
    found = spread(embeddings, targets, 10, estimator).argmax(axis=1)
    seconds = time.perf_counter() - start
    print(seconds, peaks["RssAnon"] - before, (found == y)[1000:].mean())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="mnist.npz; without it Keras downloads it")
    parser.add_argument("--sizes", type=int, nargs="+", default=[60_000, 100_000])
    parser.add_argument("--index", action="store_true")
    parser.add_argument("--once", type=int)
    arguments = parser.parse_args()
    if arguments.once:
        spread_once(arguments.data, arguments.once, arguments.index)
        return
    data = ["--data", arguments.data] if arguments.data else []
    data += ["--index"] * arguments.index
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
