"""What a self-training strategy must provide, and what it works with."""

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_scalar

from .._base import joined_histories


class SelfTraining(BaseEstimator):
    """Base class of strategies that learn from images without a label.

    A strategy defines one method, `learn`. Like any scikit-learn estimator it keeps its
    constructor's arguments unchanged and checks them in `check`.

    See Also
    --------
    FixMatch : Learns from its own sure predictions.
    LabelSpread : Spreads labels over the neighbours of embeddings.
    """

    def check(self):
        """Refuse parameters that cannot be used, before anything is trained."""
        return self

    @abstractmethod
    def learn(self, learner):
        """Train the network of a learner on.

        Parameters
        ----------
        learner : Learner
            A fine-tuned network, the images and the few labels.
        """


def check_n_steps(n_steps):
    """Refuse what is neither a number of steps nor a multiple of fine-tuning's."""
    if isinstance(n_steps, Integral):
        check_scalar(n_steps, "n_steps", Integral, min_val=1)
    else:
        check_scalar(n_steps, "n_steps", Real, min_val=0, include_boundaries="neither")


@dataclass
class Learner:
    """A fine-tuned network, and all that it can learn on from.

    Attributes
    ----------
    network : Network
        The network, trained in place.
    data : TrainingSet
        All distinct images.
    labelled : TrainingSet
        The labelled ones among them, with targets and weights.
    augmentation : "auto", None, keras.layers.Layer, list of these, or callable
        How images are changed at random.
    n_classes : int
        Number of classes.
    n_steps : int
        Number of steps of fine-tuning.
    seed, verbose : int
        Seed of all that is drawn; Keras verbosity.
    checkpoint_dir : str or path-like, default=None
        Folder for the state of the training.
    callbacks : list of keras.callbacks.Callback
        Those of the user for every stage.
    initial_weights : list of ndarray
        Weights with which fine-tuning starts.
    stages : list of Stage
        The stages that have run.
    history : dict of list or None
        Loss and metrics of each of their epochs; None before the first one.
    """

    network: object
    data: object
    labelled: object
    augmentation: object
    n_classes: int
    n_steps: int
    seed: int
    verbose: int = 0
    checkpoint_dir: object = None
    callbacks: list = ()
    stages: list = field(default_factory=list)
    history: dict | None = None

    def __post_init__(self):
        from .._networks.copies import fresh_optimizer

        self.initial_weights = self.network.training_model.get_weights()
        settings = self.network.compile_kwargs
        # Fine-tuning may change its optimizer.
        self.compile_kwargs = {
            **settings,
            "optimizer": fresh_optimizer(settings["optimizer"]),
        }

    @property
    def positions(self):
        """Position of each labelled row in the data."""
        order = np.argsort(self.data.rows)
        found = np.searchsorted(self.data.rows, self.labelled.rows, sorter=order)
        return order[found]

    @property
    def targets(self):
        """Class index of each distinct image, -1 without a label.

        Of several labels of one image it is one of the largest weight.
        """
        targets, weights = np.full(len(self.data), -1), self.labelled.weights
        order = np.arange(len(self.labelled))
        if weights is not None:
            order = np.argsort(weights, kind="stable")
        targets[self.positions[order]] = self.labelled.targets[order]
        return targets

    def count_steps(self, n_steps):
        """Return a number of steps, of which a float is a multiple of fine-tuning's."""
        if isinstance(n_steps, Integral):
            return n_steps
        return max(1, round(n_steps * self.n_steps))

    def predict_proba(self):
        """Return the class probabilities of all images, (n_images, n_classes)."""
        from .._training.prediction import predict_probabilities

        model = self.network.prediction_model
        return predict_probabilities(model, self.data.images, self.data.rows)

    def embed(self):
        """Return the embeddings of all images, (n_images, n_embedding)."""
        from .._training.prediction import predict

        return predict(self.network.backbone, self.data.images, rows=self.data.rows)

    def restart(self):
        """Put the network back to where fine-tuning started."""
        self.network.training_model.set_weights(self.initial_weights)

    def run(self, stage):
        """Run a stage, and keep its history."""
        from .._training.loop import run

        name = f"self-training, part {len(self.stages) + 1}"
        callbacks = [*stage.callbacks, *self.callbacks]
        stage = replace(stage, name=name, callbacks=callbacks)
        history = run(stage, checkpoint_dir=self.checkpoint_dir)
        self.history = joined_histories(self.history, history)
        self.stages.append(stage)
