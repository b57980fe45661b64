"""Batches: the order of the rows of a training set, as tf.data inputs.

The order, and the seeds of what is drawn for a batch, follow from (seed, epoch). So an
epoch can be repeated exactly.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from .._data.images import load_batch
from .._data.training_set import TrainingSet
from .distribution import n_replicas

# Up to so many steps, with images of up to so many bytes, are one read of X and one
# call of TensorFlow.
MAX_BLOCK_STEPS = 32
MAX_BLOCK_BYTES = 2**24


@dataclass
class Batches:
    """Rows in batches, which differ by at most one row in size.

    Attributes
    ----------
    data : TrainingSet
        The rows, with targets and weights or without.
    prepare : callable
        Turns (images, seed, *targets and weights) of a batch into what Keras takes.
    batch_size : int
        Largest number of rows in a batch.
    seed : int
        What the order of each epoch follows from.
    shuffle : bool, default=True
        Whether each pass has a new order.
    passes : int, default=1
        How often an epoch reads every row.
    first_epoch : int, default=0
        Number of the first epoch, from which the order follows, too.
    """

    data: TrainingSet
    prepare: callable
    batch_size: int
    seed: int
    shuffle: bool = True
    passes: int = 1
    first_epoch: int = 0

    def dataset(self, n_done=0):
        """Return prepared batches as tf.data; each run through them is an epoch.

        Parameters
        ----------
        n_done : int, default=0
            Number of epochs to pass over.

        Returns
        -------
        dataset : tf.data.Dataset
            What `keras.Model.fit` takes.
        """
        epochs = itertools.count(self.first_epoch + n_done)
        return (
            self._from_generator(lambda: self.epoch_blocks(next(epochs), 1))
            .apply(tf.data.experimental.assert_cardinality(self.n_steps))
            .map(self._prepared)
            .prefetch(1)
        )

    # As a plain function: AutoGraph would rewrite a task's code, and its errors.
    @tf.autograph.experimental.do_not_convert
    def _prepared(self, images, seeds, bounds, *labels):
        return self.prepare(images, seeds[0], *labels)

    def check_shares(self):
        """Refuse a batch that has fewer rows than there are replicas.

        Raises
        ------
        ValueError
            If it has.
        """
        n_all, n_rows = n_replicas(), self._smallest_batch
        if n_rows < n_all:
            raise ValueError(
                f"A batch of {n_rows} images is too small for a strategy of {n_all} "
                "replicas, each of which takes at least one. Give more images and a "
                "batch size of at least as many."
            )

    def shares(self, n_done=0):
        """Return what each replica of the strategy takes of all batches, without end.

        Parameters
        ----------
        n_done : int, default=0
            Number of epochs to pass over.

        Returns
        -------
        shares : tf.distribute.DistributedDataset
            What `keras.Model.fit` takes. This worker reads its own rows alone.
        spec : tuple of tf.TensorSpec
            The form of a share.
        """
        n_all = n_replicas()

        def of_replicas(replicas):
            def blocks():
                for epoch in itertools.count(self.first_epoch + n_done):
                    yield from self.epoch_blocks(epoch, 1, replicas, n_all)

            return self._from_generator(blocks).map(self._prepared).prefetch(1)

        def of_worker(context):
            n_here = n_all // context.num_input_pipelines
            first = context.input_pipeline_id * n_here
            return of_replicas(range(first, first + n_here))

        strategy = tf.distribute.get_strategy()
        shares = strategy.distribute_datasets_from_function(of_worker)
        return shares, of_replicas([0]).element_spec

    def blocks(self, n_done, n_epochs):
        """Return all blocks of a training, as a BlockTrainer takes them.

        Parameters
        ----------
        n_done, n_epochs : int
            First epoch, and the one behind the last.

        Returns
        -------
        dataset : tf.data.Dataset of (images, seeds, bounds, *labels)
            The images of a block, a seed for each batch, and where in the images each
            batch begins and the last one ends.
        n_blocks : int
            Number of blocks of an epoch.
        """
        batch_bytes = self._image.nbytes * self._largest_batch
        n_steps = max(1, min(MAX_BLOCK_STEPS, MAX_BLOCK_BYTES // batch_bytes))

        def blocks():
            for epoch in range(n_done, n_epochs):
                yield from self.epoch_blocks(self.first_epoch + epoch, n_steps)

        n_blocks = math.ceil(self.n_steps / n_steps)
        return self._from_generator(blocks).prefetch(1), n_blocks

    def _from_generator(self, blocks):
        signature = (
            tf.TensorSpec((None, *self._image.shape), self._image.dtype),
            tf.TensorSpec((None, 2), tf.int32),
            tf.TensorSpec((None,), tf.int32),
            *(tf.TensorSpec((None,), label.dtype) for label in self._labels()),
        )
        options = tf.data.Options()
        # There is nothing to tune, and the thread for it can take a second to end.
        options.autotune.enabled = False
        dataset = tf.data.Dataset.from_generator(blocks, output_signature=signature)
        return dataset.with_options(options)

    @property
    def _image(self):
        return load_batch(self.data.images[:1])[0]

    @property
    def _n_batches(self):
        return math.ceil(len(self.data) / self.batch_size)

    @property
    def n_steps(self):
        """Number of batches of an epoch."""
        return self.passes * self._n_batches

    @property
    def _largest_batch(self):
        return math.ceil(len(self.data) / self._n_batches)

    @property
    def _smallest_batch(self):
        return len(self.data) // self._n_batches

    def _labels(self):
        targets, weights = self.data.targets, self.data.weights
        labels = [] if targets is None else [targets]
        return labels if weights is None else [*labels, weights.astype(np.float32)]

    def epoch_blocks(self, epoch, n_steps, replicas=(0,), n_all=1):
        """Yield blocks of `n_steps` batches of an epoch.

        For each replica of `replicas` it yields one, with its share of the rows if
        `n_all` replicas share them.
        """
        labels = self._labels()
        rng = np.random.default_rng([self.seed, epoch])
        batches = self._epoch_batches(rng)
        seeds = rng.integers(2**31 - 1, size=(len(batches), 2), dtype=np.int32)
        for start, replica in itertools.product(
            range(0, len(batches), n_steps), replicas
        ):
            block = batches[start : start + n_steps]
            block = [self._share(batch, replica, n_all) for batch in block]
            order = np.concatenate(block)
            yield (
                load_batch(self.data.images[self.data.rows[order]]),
                seeds[start : start + n_steps] ^ replica,
                np.cumsum([0, *map(len, block)], dtype=np.int32),
                *(label[order] for label in labels),
            )

    def _share(self, batch, replica, n_all):
        """Return the rows of a batch that a replica takes."""
        return np.array_split(batch, n_all)[replica]

    def _epoch_batches(self, rng):
        """Return the rows of each batch of an epoch."""
        n_rows, batches = len(self.data), []
        for _ in range(self.passes):
            order = rng.permutation(n_rows) if self.shuffle else np.arange(n_rows)
            batches += np.array_split(order, self._n_batches)
        return batches


@dataclass
class MixedBatches(Batches):
    """Batches that begin with a fixed number of labelled rows.

    Then come `batch_size` of the other rows. Each kind comes in random order, and all
    of it before a row comes again within an epoch.

    Attributes
    ----------
    n_labelled : int
        How many of the rows, the first ones, are labelled.
    labelled_batch_size : int
        Number of labelled rows at the beginning of each batch.
    epoch_steps : int
        Number of batches of an epoch.
    """

    n_labelled: int = 0
    labelled_batch_size: int = 0
    epoch_steps: int = 0

    @property
    def n_steps(self):
        """Number of batches of an epoch."""
        return self.epoch_steps

    @property
    def _largest_batch(self):
        return self.labelled_batch_size + self.batch_size

    _smallest_batch = _largest_batch

    def _share(self, batch, replica, n_all):
        labelled, others = np.split(batch, [self.labelled_batch_size])
        # The first replicas take one more of the labelled, the last ones of the others.
        labelled = np.array_split(labelled, n_all)[replica]
        return np.append(labelled, np.array_split(others, n_all)[-1 - replica])

    def _epoch_batches(self, rng):
        labelled, others = np.split(np.arange(len(self.data)), [self.n_labelled])
        labelled = _drawn(rng, labelled, self.n_steps, self.labelled_batch_size)
        others = _drawn(rng, others, self.n_steps, self.batch_size)
        return list(np.hstack([labelled, others]))


def _drawn(rng, rows, n_steps, size):
    """Return rows of shape (n_steps, size); none comes again before all have come."""
    n_passes = math.ceil(n_steps * size / len(rows))
    order = np.concatenate([rng.permutation(rows) for _ in range(n_passes)])
    return order[: n_steps * size].reshape(n_steps, size)
