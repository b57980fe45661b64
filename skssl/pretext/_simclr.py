"""SimCLRPretext: the pretext task of finding the other view of an image."""

from functools import partial

from .._docs import fill_docstrings
from .._storage.archive import saved_by_parameters
from ._base import check_number
from ._two_views import TwoViews, partner_accuracy, similarities


@saved_by_parameters
@fill_docstrings
class SimCLRPretext(TwoViews):
    """Pretext task that asks which view in the batch is of the same image.

    Two random views of each image are to have similar projections, and views of
    different images different ones [1]_. The more images a batch has, the harder it
    gets: raise `batch_size` where memory allows. Under a strategy of `tf.distribute`
    each replica compares the images of its share of the batch.

    Parameters
    ----------
    temperature : float, default=0.5
        What similarities are divided by in the loss. With a low one, the most similar
        views of other images count most. The paper uses 0.5 for small images
        (CIFAR-10) and 0.1 for large ones.
    {projection_units}
    {augmentation}

    Attributes
    ----------
    n_views : int
        2.

    See Also
    --------
    BarlowTwinsPretext : Compares two views without comparing images.
    SelfSupervisedEncoder : Pretrains a network on a pretext task.

    References
    ----------
    .. [1] Ting Chen, Simon Kornblith, Mohammad Norouzi, Geoffrey Hinton, "A Simple
       Framework for Contrastive Learning of Visual Representations", ICML 2020,
       arXiv:2002.05709.

    Examples
    --------
    >>> from skssl import SelfSupervisedEncoder, SimCLRPretext
    >>> encoder = SelfSupervisedEncoder(pretext=SimCLRPretext(temperature=0.1))
    >>> encoder.set_params(pretext__temperature=0.2).pretext
    SimCLRPretext(temperature=0.2)
    """

    def __init__(self, temperature=0.5, projection_units=128, augmentation="auto"):
        self.temperature = temperature
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
        remedy = "Values from 0.05 to 1 are common."
        check_number(self.temperature, "temperature", 0, remedy=remedy)
        return super().fit(X)

    def loss_and_metrics(self):
        """Return the NT-Xent loss, and how often the partner is found.

        Returns
        -------
        {loss_of_outputs}
        {metrics_of_partners}
        """
        return partial(nt_xent, temperature=float(self.temperature)), [partner_accuracy]


def nt_xent(targets, projections, temperature):
    """Return the loss of each view: equation 1 of Chen et al. (2020).

    Parameters
    ----------
    targets : tensor of shape (batch * 2,)
        Which image each view is of.
    projections : tensor of shape (batch * 2, n_units)
        Projections of the views.
    temperature : float
        What similarities are divided by.

    Returns
    -------
    loss : tensor of shape (batch * 2,)
        Cross entropy of finding the other view of the image among all other views.
    """
    from keras import ops

    logits = similarities(projections) / temperature  # (batch * 2, batch * 2)
    other = 1 - ops.eye(ops.shape(logits)[0])
    partner = other * ops.cast(targets[:, None] == targets[None, :], "float32")
    return ops.logsumexp(logits, axis=-1) - ops.sum(partner * logits, axis=-1)
