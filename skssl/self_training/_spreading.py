"""LabelSpread: labels spread over the neighbours of embeddings."""

import warnings
from dataclasses import replace
from numbers import Integral, Real

import numpy as np
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.semi_supervised import LabelSpreading
from sklearn.utils import check_scalar

from .._docs import fill_docstrings
from ._base import SelfTraining, check_n_steps

# Finding neighbours takes most of the time, which grows with the number of features.
N_COMPONENTS = 32


def spread(embeddings, targets, n_classes, estimator=None):
    """Spread labels over a graph of neighbours.

    Parameters
    ----------
    embeddings : ndarray of shape (n_samples, n_embedding)
        What neighbours are near in.
    targets : ndarray of shape (n_samples,), int64
        Class index of each, -1 without a label.
    n_classes : int
        Number of classes.
    estimator : estimator, default=None
        A transductive classifier with `label_distributions_`, as :class:`LabelSpread`.

    Returns
    -------
    distributions : ndarray of shape (n_samples, n_classes)
        Probability of each class. Each class has the same share of all rows as it has
        of the labelled ones, which is class mass normalisation.
    """
    if estimator is None:
        estimator = LabelSpreading(kernel="knn", n_neighbors=10, max_iter=100, tol=0)
        if min(embeddings.shape) > N_COMPONENTS:
            pca = PCA(N_COMPONENTS, svd_solver="covariance_eigh")
            embeddings = pca.fit_transform(embeddings)
    estimator = clone(estimator)
    if estimator.get_params().get("n_neighbors", 0) > len(embeddings):
        estimator.set_params(n_neighbors=len(embeddings))
    with warnings.catch_warnings():
        # A row that no labelled row reaches has no distribution.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "invalid value", RuntimeWarning)
        estimator.fit(embeddings, targets)
    distributions = np.zeros((len(embeddings), n_classes))
    distributions[:, estimator.classes_] = np.nan_to_num(estimator.label_distributions_)
    shares = np.bincount(targets[targets >= 0], minlength=n_classes)
    masses = distributions.sum(axis=0)
    distributions *= np.divide(
        shares / shares.sum(), masses, out=np.zeros(n_classes), where=masses > 0
    )
    sums = distributions.sum(axis=1, keepdims=True)
    uniform = np.full_like(distributions, 1 / n_classes)
    return np.divide(distributions, sums, out=uniform, where=sums > 0)


def certainty(distributions):
    """Return 1 minus the entropy as a share of the largest one, 0 to 1 for each row."""
    n_classes = distributions.shape[1]
    logarithms = np.log(np.maximum(distributions, np.finfo(float).tiny))
    entropies = -(distributions * logarithms).sum(axis=1)
    return 1 - entropies / np.log(n_classes)


@fill_docstrings
class LabelSpread(SelfTraining):
    """Self-training on labels that spread over the neighbours of embeddings.

    In each round the images are embedded by the network as it is then. The few labels
    spread over the graph of nearest neighbours of the embeddings [1]_. An image gets
    its spread label where the label is among the most certain, and where the network
    predicts the same. The network starts again from where fine-tuning started, and is
    fine-tuned on these images and the labelled ones.

    Where graph and network disagree too often, neither can be trusted. Then no image
    gets a label, and the network stays as it is.

    Parameters
    ----------
    estimator : estimator, default=None
        A transductive classifier of scikit-learn's form: it is fitted with -1 for
        unlabelled rows and has `label_distributions_` afterwards. None is
        ``LabelSpreading(kernel="knn", n_neighbors=10, max_iter=100, tol=0)`` on the
        first 32 principal components of the embeddings.
    n_steps : int or float, default=0.5
        Number of training steps in each round; a float is a multiple of the steps of
        fine-tuning.
    n_rounds : int, default=1
        Number of rounds.
    share : float, default=0.9
        Share of the images without a label, the most certain ones, that may get one.
    min_agreement : float, default=0.9
        On what share of these graph and network have to agree.

    See Also
    --------
    FixMatch : Learns from its own sure predictions.
    sklearn.semi_supervised.LabelSpreading : Spreads the labels.

    References
    ----------
    .. [1] Ahmet Iscen et al., "Label Propagation for Deep Semi-supervised Learning",
       CVPR 2019, arXiv:1904.04717.

    Examples
    --------
    >>> from skssl.self_training import LabelSpread
    >>> LabelSpread(n_rounds=2)
    LabelSpread(n_rounds=2)
    """

    def __init__(
        self, estimator=None, *, n_steps=0.5, n_rounds=1, share=0.9, min_agreement=0.9
    ):
        self.estimator = estimator
        self.n_steps = n_steps
        self.n_rounds = n_rounds
        self.share = share
        self.min_agreement = min_agreement

    def check(self):
        """Refuse parameters that cannot be used.

        Returns
        -------
        self : object
            The strategy.

        Raises
        ------
        ValueError
            If a parameter is out of its range.
        TypeError
            If a parameter is of another type.
        """
        check_n_steps(self.n_steps)
        check_scalar(self.n_rounds, "n_rounds", Integral, min_val=1)
        check_scalar(
            self.share, "share", Real, min_val=0, max_val=1, include_boundaries="right"
        )
        check_scalar(self.min_agreement, "min_agreement", Real, min_val=0, max_val=1)
        if self.estimator is not None and not hasattr(self.estimator, "fit"):
            raise TypeError(
                "estimator must be a classifier with label_distributions_, such as "
                f"LabelSpreading(), got {self.estimator!r}."
            )
        return self

    def learn(self, learner):
        """Train the network of a learner on.

        Parameters
        ----------
        learner : Learner
            A fine-tuned network, the images and the few labels.
        """
        from .._training.stages import relabelled

        targets = learner.targets
        for _ in range(self.n_rounds):
            distributions = spread(
                learner.embed(), targets, learner.n_classes, self.estimator
            )
            rows, agreement = self._trusted(
                distributions, learner.predict_proba(), targets
            )
            if not len(rows) or agreement < self.min_agreement:
                return
            labels = distributions[rows].argmax(axis=1)
            trusted = replace(learner.data.take(rows), targets=labels)
            learner.restart()
            learner.run(
                relabelled(
                    replace(learner.network, compile_kwargs=learner.compile_kwargs),
                    learner.labelled,
                    trusted,
                    augmentation=learner.augmentation,
                    n_steps=learner.count_steps(self.n_steps),
                    seed=learner.seed,
                    verbose=learner.verbose,
                )
            )

    def _trusted(self, distributions, probabilities, targets):
        """Return the images that get their spread label, and the share that agrees.

        Both are of the most certain ones among the images without a label.
        """
        certainties = certainty(distributions)
        others = np.flatnonzero(targets < 0)
        agree = distributions.argmax(axis=1) == probabilities.argmax(axis=1)
        n_most = round(self.share * len(others))
        most = others[np.argsort(-certainties[others], kind="stable")[:n_most]]
        agreeing = np.sort(most[agree[most]])
        return agreeing, len(agreeing) / max(1, n_most)
