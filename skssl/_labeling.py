"""suggest_to_label: which images to label first."""

from numbers import Integral

import numpy as np
from sklearn.metrics import pairwise_distances, pairwise_distances_argmin_min
from sklearn.utils import check_array, check_consistent_length, check_scalar

from ._data.labels import known_labels
from ._docs import fill_docstrings

# Clustering 60,000 rows of 128 features takes half a minute with so many clusters.
MAX_CLUSTERS = 1000


@fill_docstrings
def suggest_to_label(X, n_samples, *, y=None, unlabeled_label=-1, random_state=None):
    """Suggest which rows to label first: typical ones that differ from each other.

    The embeddings are divided into as many clusters as there will be labelled rows.
    The row nearest to the centre of a cluster is suggested, which is a simpler form of
    TypiClust [1]_. First comes the cluster whose label would explain most of the data:
    the one that most reduces the sum, over all clusters, of the number of rows times
    the squared distance to the nearest labelled or suggested cluster. So the first
    suggestions are a good choice on their own.

    Parameters
    ----------
    X : array-like of shape (n_rows, n_features)
        Embeddings, as `SelfSupervisedEncoder.transform` returns them. Distances between
        them are Euclidean, so the features need one scale.
    n_samples : int
        How many rows to suggest, at most as many as have no label.
    y : array-like of shape (n_rows,), default=None
        The labels that there are already. The suggestions cover what these rows do not
        cover yet. None says that no row has a label.
    {unlabeled_label}
    random_state : int, RandomState instance or None, default=None
        Seeds the clustering. With an int the suggestions repeat, and do not depend on
        the order of the rows.

    Returns
    -------
    rows : ndarray of shape (n_samples,), int64
        Indices of the rows to label, the most useful first.

    Raises
    ------
    ValueError
        If X does not hold rows of finite numbers, if y is of another length or holds
        labels that are missing or look like the mark, or if fewer than `n_samples` rows
        have no label.
    TypeError
        If `n_samples` is no int, or if labels are bytes, or text beside other objects.

    See Also
    --------
    SelfSupervisedEncoder : Learns embeddings of images without labels.
    label_efficiency_curve : Shows what more labels would gain.

    Notes
    -----
    Equal rows are clustered as one row with a weight. There are at most 1000 clusters.
    Where these do not suffice, further rows of each cluster follow in turn, those
    nearer to its centre first.

    References
    ----------
    .. [1] Guy Hacohen, Avihu Dekel, Daphna Weinshall, "Active Learning on a Budget:
       Opposite Strategies Suit High and Low Budgets", ICML 2022, arXiv:2202.02794.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skssl import suggest_to_label
    >>> X, y = load_digits(return_X_y=True)
    >>> rows = suggest_to_label(X, 20, random_state=0)
    >>> len(np.unique(y[rows]))
    10
    >>> y_few = np.full(len(y), -1)
    >>> y_few[rows] = y[rows]
    >>> more = suggest_to_label(X, 20, y=y_few, random_state=0)
    >>> np.intersect1d(rows, more).size
    0
    """
    from sklearn.cluster import KMeans  # slow to import

    X, labelled, candidates = _checked(X, n_samples, y, unlabeled_label)

    # Sorted distinct rows make the clusters independent of the order of the rows.
    distinct, inverse, counts = np.unique(
        X, axis=0, return_inverse=True, return_counts=True
    )
    inverse = inverse.reshape(-1)  # NumPy 2.0 returns a column
    n_clusters = min(len(labelled) + n_samples, len(distinct), MAX_CLUSTERS)
    clustering = KMeans(n_clusters, random_state=random_state)
    clusters = clustering.fit_predict(distinct, sample_weight=counts)
    centers = clustering.cluster_centers_
    to_center = np.linalg.norm(distinct - centers[clusters], axis=1)[inverse]
    clusters = clusters[inverse]

    # Of each cluster the row nearest to its centre, then the second nearest, and so on.
    sizes = np.bincount(clusters, minlength=n_clusters)
    position = np.argsort(_order_of_clusters(centers, sizes, X[labelled]))
    position = position[clusters[candidates]]
    by_cluster = np.lexsort((to_center[candidates], position))
    starts = np.searchsorted(position[by_cluster], position[by_cluster])
    rank = np.arange(len(candidates)) - starts
    return candidates[by_cluster[np.argsort(rank, kind="stable")[:n_samples]]]


def _checked(X, n_samples, y, unlabeled_label):
    """Return X as an array, and the indices of its labelled and unlabelled rows."""
    X = check_array(
        X,
        dtype=[np.float64, np.float32],
        ensure_2d=False,
        allow_nd=True,
        input_name="X",
    )
    if X.ndim != 2:
        raise ValueError(
            "X must hold embeddings of shape (n_rows, n_features), got shape "
            f"{X.shape}. Embed images first, as by "
            "SelfSupervisedEncoder().fit_transform(images)."
        )
    labelled = np.empty(0, dtype=np.int64)
    if y is not None:
        check_consistent_length(X, y)
        labelled, _ = known_labels(y, unlabeled_label)
    candidates = np.delete(np.arange(len(X), dtype=np.int64), labelled)
    check_scalar(n_samples, "n_samples", Integral, min_val=1)
    if n_samples > len(candidates):
        raise ValueError(
            "n_samples must be at most the number of rows without a label, "
            f"{len(candidates)} of {len(X)}, got {n_samples}."
        )
    return X, labelled, candidates


def _order_of_clusters(centers, sizes, labelled):
    """Return the clusters in the order in which labels for them explain most rows.

    Parameters
    ----------
    centers : ndarray of shape (n_clusters, n_features)
        Their centres.
    sizes : ndarray of shape (n_clusters,)
        Their numbers of rows.
    labelled : ndarray of shape (n_labelled, n_features)
        Embeddings that have a label.

    Returns
    -------
    order : list of int
        Indices of the clusters.
    """
    distances = pairwise_distances(centers, metric="sqeuclidean")
    to_label = np.full(len(centers), distances.max())
    if len(labelled):
        _, to_label = pairwise_distances_argmin_min(
            centers, labelled, metric="sqeuclidean"
        )
    order = []
    for _ in centers:
        loss = np.minimum(distances, to_label) @ sizes
        loss[order] = np.inf
        order.append(int(loss.argmin()))
        to_label = np.minimum(to_label, distances[order[-1]])
    return order
