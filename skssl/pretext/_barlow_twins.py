"""BarlowTwinsPretext: the pretext task of features that two views share."""

from functools import partial

from .._docs import fill_docstrings
from .._storage.archive import saved_by_parameters
from ._base import check_number
from ._two_views import TwoViews, partner_accuracy


@saved_by_parameters
@fill_docstrings
class BarlowTwinsPretext(TwoViews):
    """Pretext task that makes features equal in two views, and each one different.

    Over a batch, each unit of the projection is to correlate perfectly between the two
    views, and not at all with the other units [1]_. Images are not compared with each
    other, so small batches do, too. The projection head has two hidden layers as wide
    as the embedding, without the batch normalisation of the paper. Under a strategy of
    `tf.distribute` the batch is the share of a replica.

    Parameters
    ----------
    redundancy_weight : float, default=0.005
        Weight of the correlations between different units in the loss.
    {projection_units}
    {augmentation}

    Attributes
    ----------
    n_views : int
        2.

    See Also
    --------
    SimCLRPretext : Compares views of different images, too.
    SelfSupervisedEncoder : Pretrains a network on a pretext task.

    References
    ----------
    .. [1] Jure Zbontar, Li Jing, Ishan Misra, Yann LeCun, Stéphane Deny, "Barlow Twins:
       Self-Supervised Learning via Redundancy Reduction", ICML 2021, arXiv:2103.03230.

    Examples
    --------
    >>> from skssl import BarlowTwinsPretext, SelfSupervisedEncoder
    >>> encoder = SelfSupervisedEncoder(pretext=BarlowTwinsPretext())
    >>> encoder.set_params(pretext__redundancy_weight=0.01).pretext
    BarlowTwinsPretext(redundancy_weight=0.01)
    """

    n_hidden_layers = 2

    def __init__(
        self, redundancy_weight=5e-3, projection_units=128, augmentation="auto"
    ):
        self.redundancy_weight = redundancy_weight
        self.projection_units = projection_units
        self.augmentation = augmentation

    def fit(self, X, y=None):
        """Check the parameters.

        Parameters
        ----------
        {training_images}
        {y_ignored}

        Returns
        -------
        {fitted_task}

        Raises
        ------
        ValueError
            If a parameter is out of bounds, or if `augmentation` is None.
        TypeError
            If a parameter is no number.
        """
        remedy = "The paper uses 0.005."
        check_number(self.redundancy_weight, "redundancy_weight", 0, remedy=remedy)
        return super().fit(X)

    def loss_and_metrics(self):
        """Return the loss of correlations, and how often the partner is found.

        Returns
        -------
        {loss_of_outputs}
        {metrics_of_partners}
        """
        weight = float(self.redundancy_weight)
        return partial(redundancy, redundancy_weight=weight), [partner_accuracy]


def redundancy(targets, projections, redundancy_weight):
    """Return the loss of a batch: equations 1 and 2 of Zbontar et al. (2021).

    Parameters
    ----------
    targets : tensor of shape (batch * 2,)
        Not needed: rows `2i` and `2i + 1` are of one image.
    projections : tensor of shape (batch * 2, n_units)
        Projections of the views.
    redundancy_weight : float
        Weight of the second term.

    Returns
    -------
    loss : tensor of shape ()
        The invariance term and the weighted redundancy reduction term.
    """
    from keras import ops

    n_units = projections.shape[-1]
    views = ops.reshape(projections, (-1, 2, n_units))
    n_images = ops.cast(ops.shape(views)[0], "float32")
    # The slope of the root is infinite at 0, where a unit is constant.
    variance = ops.var(views, axis=0, keepdims=True) + 1e-6
    views = (views - ops.mean(views, axis=0, keepdims=True)) * ops.rsqrt(variance)
    # Equation 2, (n_units, n_units)
    correlation = ops.matmul(ops.transpose(views[:, 0]), views[:, 1]) / n_images
    on_diagonal = ops.eye(n_units)
    invariance = ops.sum(on_diagonal * (1 - correlation) ** 2)
    reduction = ops.sum((1 - on_diagonal) * correlation**2)
    return invariance + redundancy_weight * reduction
