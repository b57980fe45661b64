"""FixMatch: learning from one's own sure predictions."""

import math
from dataclasses import replace
from numbers import Integral, Real

from sklearn.utils import check_scalar

from .._docs import fill_docstrings
from ._base import SelfTraining, check_n_steps

# From this height or width on, in pixels, fewer steps have to do.
LARGE = 32


@fill_docstrings
class FixMatch(SelfTraining):
    """Self-training in which sure predictions for images teach changed ones.

    Each step takes labelled images, and four times as many images without their labels.
    These are changed in two ways: weakly, by the `augmentation` of the classifier, and
    strongly, by other changes and with a square erased. Where the network is sure of
    the weak view, its prediction is the target of the strong one [1]_. How sure it must
    be follows from how sure it mostly is, and is less for classes that it predicts
    rarely [2]_: else a few easy classes can take over. The optimizer is
    that of the network, with a learning rate that falls along a cosine. The weights of
    the result are their moving average.

    Parameters
    ----------
    n_steps : int, float or None, default=None
        Number of training steps. A float is a multiple of the steps of fine-tuning.
        None is six times as many, or twice as many where images have 32 pixels or
        more, whose steps take longer; and in each case at least `n_passes` passes over
        all images.
    n_passes : int, default=6
        Fewest passes over all images, where `n_steps` is None.
    batch_size : int, default=16
        Number of images without a label in a step. Small batches learn more in the
        same time.
    threshold : float, default=0.95
        From which probability on a prediction is always sure.
    strength : float, default=1.0
        How large the strong changes are, relative to those of ``augmentation="auto"``.
        A square is erased besides.

    See Also
    --------
    LabelSpread : Spreads labels over the neighbours of embeddings.

    References
    ----------
    .. [1] Kihyuk Sohn et al., "FixMatch: Simplifying Semi-Supervised Learning with
       Consistency and Confidence", NeurIPS 2020, arXiv:2001.07685.
    .. [2] Yidong Wang et al., "FreeMatch: Self-adaptive Thresholding for
       Semi-supervised Learning", ICLR 2023, arXiv:2205.07246.

    Examples
    --------
    >>> from skssl.self_training import FixMatch
    >>> FixMatch(n_steps=500)
    FixMatch(n_steps=500)
    """

    def __init__(
        self, *, n_steps=None, n_passes=6, batch_size=16, threshold=0.95, strength=1.0
    ):
        self.n_steps = n_steps
        self.n_passes = n_passes
        self.batch_size = batch_size
        self.threshold = threshold
        self.strength = strength

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
            If a parameter is no number.
        """
        if self.n_steps is not None:
            check_n_steps(self.n_steps)
        check_scalar(self.n_passes, "n_passes", Integral, min_val=0)
        check_scalar(self.batch_size, "batch_size", Integral, min_val=1)
        check_scalar(self.threshold, "threshold", Real, min_val=0, max_val=1)
        check_scalar(self.strength, "strength", Real, min_val=0)
        return self

    def learn(self, learner):
        """Train the network of a learner on.

        Parameters
        ----------
        learner : Learner
            A fine-tuned network, the images and the few labels.
        """
        from .._training.consistency import consistency

        learner.run(
            consistency(
                replace(learner.network, compile_kwargs=learner.compile_kwargs),
                learner.labelled,
                learner.data,
                augmentation=learner.augmentation,
                threshold=self.threshold,
                strength=self.strength,
                n_steps=self._count_steps(learner),
                batch_size=self.batch_size,
                labelled_batch_size=max(1, self.batch_size // 4),
                seed=learner.seed,
                verbose=learner.verbose,
            )
        )

    def _count_steps(self, learner):
        """Return the number of steps."""
        if self.n_steps is not None:
            return learner.count_steps(self.n_steps)
        is_large = max(learner.data.images.shape[1:3]) >= LARGE
        pass_steps = len(learner.data) / self.batch_size
        return max(
            learner.count_steps(2.0 if is_large else 6.0),
            math.ceil(self.n_passes * pass_steps),
        )
