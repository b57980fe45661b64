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

        # As a plain function: AutoGraph would rewrite a task's code, and its errors.
        @tf.autograph.experimental.do_not_convert
        def prepared(images, seeds, bounds, *labels):
            return self.prepare(images, seeds[0], *labels)

        return (
            self._from_generator(lambda: self.epoch_blocks(next(epochs), 1))
            .apply(tf.data.experimental.assert_cardinality(self._n_steps))
            .map(prepared)
            .prefetch(1)
        )

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
        batch_bytes = self._image.nbytes * math.ceil(len(self.data) / self._n_batches)
        n_steps = max(1, min(MAX_BLOCK_STEPS, MAX_BLOCK_BYTES // batch_bytes))

        def blocks():
            for epoch in range(n_done, n_epochs):
                yield from self.epoch_blocks(self.first_epoch + epoch, n_steps)

        n_blocks = math.ceil(self._n_steps / n_steps)
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
    def _n_steps(self):
        return self.passes * self._n_batches

    def _labels(self):
        targets, weights = self.data.targets, self.data.weights
        labels = [] if targets is None else [targets]
        return labels if weights is None else [*labels, weights.astype(np.float32)]

    def epoch_blocks(self, epoch, n_steps):
        """Yield blocks of `n_steps` batches of an epoch."""
        labels = self._labels()
        rng, n_rows = np.random.default_rng([self.seed, epoch]), len(self.data)
        batches = []
        for _ in range(self.passes):
            order = rng.permutation(n_rows) if self.shuffle else np.arange(n_rows)
            batches += np.array_split(order, self._n_batches)
        seeds = rng.integers(2**31 - 1, size=(len(batches), 2), dtype=np.int32)
        for start in range(0, len(batches), n_steps):
            block = batches[start : start + n_steps]
            order = np.concatenate(block)
            yield (
                load_batch(self.data.images[self.data.rows[order]]),
                seeds[start : start + n_steps],
                np.cumsum([0, *map(len, block)], dtype=np.int32),
                *(label[order] for label in labels),
            )
