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

# Rows are read in blocks, since a read costs more than a step of a small network.
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
        labels = self._labels()
        image = load_batch(self.data.images[:1])
        signature = (
            tf.TensorSpec((None, *image.shape[1:]), image.dtype),
            tf.TensorSpec((None, 2), tf.int32),
            tf.TensorSpec((None,), tf.int32),
            *(tf.TensorSpec((None,), label.dtype) for label in labels),
        )
        epochs = itertools.count(self.first_epoch + n_done)
        blocks = tf.data.Dataset.from_generator(
            lambda: self._blocks(next(epochs), image[0].nbytes, labels),
            output_signature=signature,
        )

        # As a plain function: AutoGraph would rewrite a task's code, and its errors.
        @tf.autograph.experimental.do_not_convert
        def batches(images, seeds, bounds, *labels):
            def batch(i):
                rows = slice(bounds[i], bounds[i + 1])
                return self.prepare(images[rows], seeds[i], *(x[rows] for x in labels))

            return tf.data.Dataset.range(
                tf.shape(seeds, tf.int64)[0], output_type=tf.int32
            ).map(tf.autograph.experimental.do_not_convert(batch))

        options = tf.data.Options()
        # There is nothing to tune, and the thread for it can take a second to end.
        options.autotune.enabled = False
        n_batches = self.passes * self._n_batches
        return (
            blocks.flat_map(batches)
            .apply(tf.data.experimental.assert_cardinality(n_batches))
            .prefetch(2)
            .with_options(options)
        )

    @property
    def _n_batches(self):
        return math.ceil(len(self.data) / self.batch_size)

    def _labels(self):
        targets, weights = self.data.targets, self.data.weights
        labels = [] if targets is None else [targets]
        return labels if weights is None else [*labels, weights.astype(np.float32)]

    def _blocks(self, epoch, image_bytes, labels):
        """Yield images, a seed for each batch, where batches begin and end, labels."""
        rng, n_rows = np.random.default_rng([self.seed, epoch]), len(self.data)
        batches = []
        for _ in range(self.passes):
            order = rng.permutation(n_rows) if self.shuffle else np.arange(n_rows)
            batches += np.array_split(order, self._n_batches)
        seeds = rng.integers(2**31 - 1, size=(len(batches), 2), dtype=np.int32)
        n_steps = MAX_BLOCK_BYTES // (image_bytes * len(batches[0]))
        n_steps = max(1, min(MAX_BLOCK_STEPS, n_steps))
        for start in range(0, len(batches), n_steps):
            block = batches[start : start + n_steps]
            order = np.concatenate(block)
            yield (
                load_batch(self.data.images[self.data.rows[order]]),
                seeds[start : start + n_steps],
                np.cumsum([0, *map(len, block)], dtype=np.int32),
                *(label[order] for label in labels),
            )
