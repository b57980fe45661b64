"""CombinedPretext: several pretext tasks at once."""

from sklearn.base import clone
from sklearn.utils.metaestimators import _BaseComposition

from .._docs import fill_docstrings
from .._storage.archive import saved_by_parameters
from ._base import PretextTask, check_number

# Names of layers beside the heads of the parts.
RESERVED_NAMES = "images", "backbone"


@saved_by_parameters
@fill_docstrings
class CombinedPretext(_BaseComposition, PretextTask):
    """Several pretext tasks at once, whose losses are added.

    Each task makes its own inputs of a batch of images. All of them pass the backbone
    together, and each task has a head of its own [1]_. Losses and metrics of a task
    have its name before theirs in the history. The score is the mean of the scores of
    the tasks.

    Parameters
    ----------
    tasks : list of (str, PretextTask)
        Names and tasks, at least two. Parameters of a task are reached by its name, as
        in ``set_params(simclr__temperature=0.1)``.
    weights : sequence of float, default=None
        Weight of the loss of each task; None weighs all of them by 1.

    Attributes
    ----------
    tasks_ : list of (str, PretextTask)
        Names and fitted tasks.

    See Also
    --------
    RotationPretext, SimCLRPretext : Two tasks that go well together.
    SelfSupervisedEncoder : Pretrains a network on a pretext task.

    References
    ----------
    .. [1] Carl Doersch, Andrew Zisserman, "Multi-task Self-Supervised Visual Learning",
       ICCV 2017, arXiv:1708.07860.

    Examples
    --------
    >>> from skssl import CombinedPretext, JigsawPretext, RotationPretext
    >>> both = CombinedPretext(
    ...     [("rotation", RotationPretext()), ("jigsaw", JigsawPretext())]
    ... )
    >>> both.n_views
    5
    >>> both.set_params(jigsaw__n_permutations=4).tasks[1]
    ('jigsaw', JigsawPretext(n_permutations=4))
    """

    def __init__(self, tasks, weights=None):
        self.tasks = tasks
        self.weights = weights

    def get_params(self, deep=True):
        """Return the parameters, and those of the tasks by their names.

        Parameters
        ----------
        deep : bool, default=True
            Whether to return the tasks and their parameters, too.

        Returns
        -------
        params : dict
            Names and values.
        """
        return self._get_params("tasks", deep=deep)

    def set_params(self, **params):
        """Set parameters, tasks by their names, or parameters of these.

        Parameters
        ----------
        **params : dict
            Names and values.

        Returns
        -------
        {fitted_task}
        """
        return self._set_params("tasks", **params)

    @property
    def n_views(self):
        """Number of inputs that all tasks together make of an image."""
        return sum(task.n_views for _, task in self._tasks())

    @property
    def loss_weights(self):
        """Weight of the loss of each task."""
        weights = [1] * len(self.tasks) if self.weights is None else self.weights
        return [float(weight) for weight in weights]

    def is_undone_by(self, layer):
        """Say whether a layer makes one of the tasks unsolvable.

        Parameters
        ----------
        {layer_to_pretrain}

        Returns
        -------
        undone : bool
            Whether it does.
        """
        return any(task.is_undone_by(layer) for _, task in self._tasks())

    def fit(self, X, y=None):
        """Check the parameters, and fit a copy of each task.

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
            If there are fewer than two tasks, if two have the same name or one cannot
            be a name, if a task is combined itself, or if there is not a positive
            weight for each.
        TypeError
            If `tasks` is no list of pairs of a name and a task, or a weight is no
            number.
        """
        self._check_tasks()
        self._check_weights()
        self.tasks_ = [(name, clone(task).fit(X)) for name, task in self.tasks]
        return self

    def make_batch(self, images, seed):
        """Return the inputs of all tasks, and the targets of each.

        Parameters
        ----------
        {image_batch}
        {batch_seed}

        Returns
        -------
        {batch_inputs}
        targets : tuple of tensors
            The targets of each task.
        """
        return self._joined_batches("make_batch", images, seed)

    def training_batch(self, images, seed):
        """Return what the network is trained on, for all tasks.

        Parameters
        ----------
        {image_batch}
        {batch_seed}

        Returns
        -------
        {batch_inputs}
        targets : tuple of tensors
            The targets of each task.
        """
        return self._joined_batches("training_batch", images, seed)

    def _joined_batches(self, method, images, seed):
        import tensorflow as tf

        seeds = tf.random.experimental.stateless_split(seed, len(self.tasks_))
        inputs, targets = [], []
        for k, (_, task) in enumerate(self.tasks_):
            views, target = getattr(task, method)(images, seeds[k])
            # Those of an image stay together: (batch, n_views, height, width, channels)
            views = tf.reshape(views, (-1, task.n_views, *images.shape[1:]))
            inputs.append(tf.cast(views, tf.float32))
            targets.append(target)
        inputs = tf.reshape(tf.concat(inputs, axis=1), (-1, *images.shape[1:]))
        return inputs, tuple(targets)

    def build_head(self, features, image_shape):
        """Build the head of each task on the outputs for its own inputs.

        Parameters
        ----------
        {features}
        {shape_of_images}

        Returns
        -------
        outputs : list of KerasTensor
            The output of each head.
        """
        import keras

        size, outputs, start = features.shape[-1], [], 0
        rows = keras.ops.reshape(features, (-1, self.n_views, size))
        for name, task in self.tasks_:
            own = rows[:, start : start + task.n_views]
            start += task.n_views
            # A network in the network, by whose name Keras calls loss and metrics.
            inputs = keras.Input((size,))
            head = keras.Model(inputs, task.build_head(inputs, image_shape), name=name)
            outputs.append(head(keras.ops.reshape(own, (-1, size))))
        return outputs

    def loss_and_metrics(self):
        """Return the loss and the metrics of each task.

        Returns
        -------
        losses : list
            One loss for each task.
        metrics : list of list
            The metrics of each task.
        """
        pairs = [task.loss_and_metrics() for _, task in self.tasks_]
        return [loss for loss, _ in pairs], [list(metrics) for _, metrics in pairs]

    def score_from(self, results):
        """Return the mean of the scores of the tasks.

        Parameters
        ----------
        results : dict of float
            Losses and metrics, each with the name of its task before its own.

        Returns
        -------
        score : float
            The mean, whatever the weights.
        """
        names = [name for name, _ in self.tasks_]
        measured = {name: {} for name in names}
        for key, value in results.items():
            owners = [name for name in names if key.startswith(f"{name}_")]
            if owners:  # "a_b_loss" is of the task "a_b", if there is one
                owner = max(owners, key=len)
                measured[owner][key.removeprefix(f"{owner}_")] = value
        scores = [task.score_from(measured[name]) for name, task in self.tasks_]
        return sum(scores) / len(scores)

    def pictures(self, images, seed, predict):
        """Refuse to draw: each task has pictures of its own.

        Parameters
        ----------
        {image_batch}
        {batch_seed}
        predict : callable
            Ignored.

        Raises
        ------
        TypeError
            In any case.
        """
        names = ", ".join(repr(name) for name, _ in self.tasks_)
        raise TypeError(
            "CombinedPretext has no pictures, since each of its tasks has its own: "
            f"{names}. To draw them, pretrain an estimator on one of these tasks alone."
        )

    def _tasks(self):
        return getattr(self, "tasks_", self.tasks)

    def _check_tasks(self):
        tasks = self.tasks
        if not isinstance(tasks, list | tuple) or not all(
            isinstance(pair, tuple)
            and len(pair) == 2
            and isinstance(pair[0], str)
            and isinstance(pair[1], PretextTask)
            for pair in tasks
        ):
            raise TypeError(
                "tasks must be a list of pairs of a name and a PretextTask, such as "
                f"[('rotation', RotationPretext()), …], got {tasks!r}."
            )
        if len(tasks) < 2:
            raise ValueError(
                f"tasks must hold at least two tasks, got {tasks!r}. Give a single "
                "one as pretext itself."
            )
        names = [name for name, _ in tasks]
        self._validate_names(names)
        combined = [name for name, task in tasks if task.loss_weights is not None]
        if combined:
            raise ValueError(
                f"tasks must have one output each, but {combined} have several. Give "
                "the tasks that these combine instead."
            )
        for name in names:
            if not name or "/" in name or name in RESERVED_NAMES:
                raise ValueError(
                    "Names of tasks must be names of Keras layers, without a slash "
                    f"and other than {RESERVED_NAMES}, got {name!r}. Rename the task."
                )

    def _check_weights(self):
        if self.weights is None:
            return
        n_weights = len(self.weights) if hasattr(self.weights, "__len__") else None
        if n_weights != len(self.tasks):
            raise ValueError(
                f"weights must hold one number for each of {len(self.tasks)} tasks, "
                f"got {self.weights!r}. None weighs all of them by 1."
            )
        for weight in self.weights:
            remedy = "Leave a task out that is not to count."
            check_number(weight, "A weight", 0, remedy=remedy)
