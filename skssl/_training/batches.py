"""Batches: the order of the rows of a training set, as tf.data inputs.

The order, and the seeds of what is drawn for a batch, follow from (seed, epoch). So an
epoch can be repeated exactly.
"""

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from .._data.images import load_batch
from .._data.training_set import TrainingSet
from .distribution import OwnShares, n_replicas, only_replica

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
        epoch = tf.data.Dataset.range(1).map(
            lambda _: tf.numpy_function(lambda: next(epochs), [], tf.int64)
        )
        return (
            self._read(epoch, 1)
            .apply(tf.data.experimental.assert_cardinality(self.n_steps))
            .map(self._prepared)
            .prefetch(1)
        )

    # As a plain function: AutoGraph would rewrite a task's code, and its errors.
    @tf.autograph.experimental.do_not_convert
    def _prepared(self, images, seeds, bounds, sizes, *labels):
        return self.prepare(images, seeds[0], *labels)

    @tf.autograph.experimental.do_not_convert
    def _prepared_share(self, images, seeds, bounds, sizes, *labels):
        share = tf.cast(bounds[1] / sizes[0], tf.float32)
        return self.prepare(images, seeds[0], *labels), share

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
            What a DistributedTrainer takes. Each element is a part of a batch, and
            its share of all rows. This worker reads its own rows alone.
        spec : tuple of tf.TensorSpec
            The form of a share.
        """
        n_all = n_replicas()

        def of_replicas(replicas):
            epochs = tf.data.Dataset.counter(self.first_epoch + n_done)
            blocks = self._read(epochs, 1, replicas, n_all)
            # Else workers ask each other before each step whether one is at its end.
            endless = tf.data.experimental.assert_cardinality(
                tf.data.INFINITE_CARDINALITY
            )
            return blocks.map(self._prepared_share).apply(endless).prefetch(1)

        def of_worker(context):
            n_here = n_all // context.num_input_pipelines
            first = context.input_pipeline_id * n_here
            return of_replicas(range(first, first + n_here))

        only = only_replica()
        if only is None:
            strategy = tf.distribute.get_strategy()
            shares = strategy.distribute_datasets_from_function(of_worker)
        else:
            shares = OwnShares(of_replicas([only]))
        return shares, of_replicas([0]).element_spec

    def blocks(self, n_done, n_epochs):
        """Return all blocks of a training, as a BlockTrainer takes them.

        Parameters
        ----------
        n_done, n_epochs : int
            First epoch, and the one behind the last.

        Returns
        -------
        dataset : tf.data.Dataset
            What :meth:`block` returns.
        n_blocks : int
            Number of blocks of an epoch.
        """
        batch_bytes = self._image.nbytes * self._largest_batch
        n_steps = max(1, min(MAX_BLOCK_STEPS, MAX_BLOCK_BYTES // batch_bytes))
        first, last = self.first_epoch + n_done, self.first_epoch + n_epochs
        epochs = tf.data.Dataset.range(first, last)
        n_blocks = math.ceil(self.n_steps / n_steps)
        return self._read(epochs, n_steps).prefetch(1), n_blocks

    def _read(self, epochs, n_steps, replicas=(0,), n_all=1):
        """Return the blocks of some epochs as tf.data.

        Not by `from_generator`. In a process that has called it, the C library maps
        each large array anew: steps of convolutions without oneDNN take about twice as
        long (TensorFlow 2.21 with Python 3.11).

        Parameters
        ----------
        epochs : tf.data.Dataset of int64
            Numbers of the epochs.
        n_steps : int
            Number of batches in a block.
        replicas : sequence of int
            The replicas that read here. Each batch is a block for each of them.
        n_all : int
            Number of all replicas, which share a batch.
        """
        image, labels = self._image, self._labels(slice(1))
        ints = {"seeds": (None, 2), "bounds": (None,), "sizes": (None,)}
        shapes = [(None, *image.shape), *ints.values(), *((None,) for _ in labels)]
        dtypes = [image.dtype, *(np.int32 for _ in ints), *(x.dtype for x in labels)]
        n_blocks = math.ceil(self.n_steps / n_steps) * len(replicas)
        epoch_batches = functools.lru_cache(maxsize=1)(self.epoch_batches)

        def block(epoch, position):
            number, replica = divmod(int(position), len(replicas))
            chosen = slice(number * n_steps, (number + 1) * n_steps)
            batches, seeds = epoch_batches(int(epoch))
            return self.block(batches[chosen], seeds[chosen], replicas[replica], n_all)

        # As plain functions: AutoGraph would rewrite the code, and its errors.
        @tf.autograph.experimental.do_not_convert
        def read(epoch, position):
            arrays = tf.numpy_function(block, [epoch, position], dtypes)
            return tuple(map(tf.ensure_shape, arrays, shapes))

        @tf.autograph.experimental.do_not_convert
        def epoch_blocks(epoch):
            positions = tf.data.Dataset.range(n_blocks)
            return positions.map(functools.partial(read, epoch))

        options = tf.data.Options()
        # There is nothing to tune, and the thread for it can take a second to end.
        options.autotune.enabled = False
        return epochs.flat_map(epoch_blocks).with_options(options)

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

    def _labels(self, order):
        """Return targets and weights of some rows, as far as there are any."""
        targets, weights = self.data.targets, self.data.weights
        labels = [] if targets is None else [targets[order]]
        if weights is not None:
            labels.append(weights[order].astype(np.float32))
        return labels

    def epoch_batches(self, epoch):
        """Return the rows of each batch of an epoch, and a seed for each."""
        rng = np.random.default_rng([self.seed, epoch])
        batches = self._drawn_batches(rng)
        seeds = rng.integers(2**31 - 1, size=(len(batches), 2), dtype=np.int32)
        return batches, seeds

    def block(self, batches, seeds, replica=0, n_all=1):
        """Return what a replica takes of some batches, if `n_all` replicas share them.

        Returns
        -------
        images : ndarray
            The images.
        seeds : ndarray of shape (n_batches, 2)
            A seed for each batch.
        bounds : ndarray of shape (n_batches + 1,)
            Where in the images each batch begins, and the last one ends.
        sizes : ndarray of shape (n_batches,)
            Number of rows of each batch in all replicas.
        *labels : ndarray
            Targets and weights, as far as there are any.
        """
        shares = [self._share(batch, replica, n_all) for batch in batches]
        order = np.concatenate(shares)
        return (
            load_batch(self.data.images[self.data.rows[order]]),
            seeds ^ replica,
            np.cumsum([0, *map(len, shares)], dtype=np.int32),
            np.array(list(map(len, batches)), dtype=np.int32),
            *self._labels(order),
        )

    def _share(self, batch, replica, n_all):
        """Return the rows of a batch that a replica takes."""
        return np.array_split(batch, n_all)[replica]

    def _drawn_batches(self, rng):
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

    def _drawn_batches(self, rng):
        labelled, others = np.split(np.arange(len(self.data)), [self.n_labelled])
        labelled = _drawn(rng, labelled, self.n_steps, self.labelled_batch_size)
        others = _drawn(rng, others, self.n_steps, self.batch_size)
        return list(np.hstack([labelled, others]))


def _drawn(rng, rows, n_steps, size):
    """Return rows of shape (n_steps, size); none comes again before all have come."""
    n_passes = math.ceil(n_steps * size / len(rows))
    order = np.concatenate([rng.permutation(rows) for _ in range(n_passes)])
    return order[: n_steps * size].reshape(n_steps, size)
