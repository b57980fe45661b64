"""Training under a `tf.distribute` strategy: on several replicas, of several workers.

Each replica takes its share of each batch. What it draws at random is its own. The
gradients are those of the whole batch. A loss that compares the images of a batch
compares those of a share. The chief alone reads and writes files, and tells the other
workers what is in them.
"""

import itertools
import math
import pickle

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers.data_adapters.data_adapter import DataAdapter


def n_replicas():
    """Return the number of replicas that share a batch."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def only_replica():
    """Return the number of the replica of this process, if it is a single processor."""
    strategy = tf.distribute.get_strategy()
    devices = strategy.extended.worker_devices
    if len(devices) > 1 or "CPU" not in devices[0]:
        return None
    number = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(context.replica_id_in_sync_group)
    )
    return int(strategy.experimental_local_results(number)[0])


def is_chief():
    """Whether this process reads and writes files for all workers."""
    return tf.distribute.get_strategy().extended.should_checkpoint


def _n_workers():
    resolver = tf.distribute.get_strategy().cluster_resolver
    spec = resolver.cluster_spec().as_dict() if resolver else {}
    return len(spec.get("chief", [])) + len(spec.get("worker", [])) or 1


def from_chief(value):
    """Return the value of the chief in each worker.

    Parameters
    ----------
    value : object
        What the chief has, which can be pickled. That of others is ignored.

    Returns
    -------
    value : object
        What the chief has.
    """
    if _n_workers() == 1:
        return value
    strategy = tf.distribute.get_strategy()

    def summed(numbers):
        """Return the sum over all replicas, of which only the first has a part."""
        values = strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(
                numbers * (context.replica_id_in_sync_group == 0), tf.int32
            )
        )
        return strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None).numpy()

    data = pickle.dumps(value) if is_chief() else b""
    n_bytes = int(summed(np.array([len(data)]))[0])
    data = data.ljust(n_bytes + -n_bytes % 4, b"\0")
    numbers = summed(np.frombuffer(data, np.int32))
    return pickle.loads(numbers.astype(np.int32).tobytes()[:n_bytes])


def told_by_chief(find, train):
    """Train in all workers, or return to all what the chief finds instead.

    Parameters
    ----------
    find : callable
        Called by the chief alone, with a function that trains. It calls that one, or
        returns the result of an earlier training.
    train : callable
        What to do in each worker. It returns the result of a training.

    Returns
    -------
    result : object
        The result, of an earlier training or of this one.
    """
    if not is_chief():
        found = from_chief(None)
        return train() if found is None else found[0]
    trained = []

    def train_with_all():
        from_chief(None)
        trained.append(True)
        return train()

    result = find(train_with_all)
    return result if trained else from_chief([result])[0]


class OwnShares(DataAdapter, tf.distribute.DistributedDataset):
    """Shares of the only replica of a process, in the form that Keras takes.

    Those of `distribute_datasets_from_function` are brought to devices by what
    `tf.data.Dataset.from_generator` is made of. On processors that takes longer, as
    :class:`Batches` says: with two workers a fit takes 1.2 times as long with oneDNN,
    and twice as long without it.

    Parameters
    ----------
    dataset : tf.data.Dataset
        Shares without end.
    """

    batch_size = num_batches = has_partial_batch = partial_batch_size = None

    def __init__(self, dataset):
        self.dataset = dataset

    def get_tf_dataset(self):
        """Return what Keras iterates over, and does not distribute once more."""
        return self

    @property
    def element_spec(self):
        """Form of an element."""
        return self.dataset.element_spec

    def __iter__(self):
        return iter(self.dataset)


class DistributedTrainer(keras.Model):
    """A network that trains on shares of batches.

    Keras weights each share alike, however many rows it has. To build loss and metrics
    it takes a batch from the data, and with it a step of the order of the rows. Between
    workers it sums what each has for the progress bar wrongly. So these steps are here.

    A call of TensorFlow makes several steps. Metrics are added up over all replicas at
    the end of each call, which takes longer than a step of a small network.

    Attributes
    ----------
    n_steps : int
        Largest number of steps in a call.
    """

    n_steps = 1
    _numbers = itertools.repeat(1)  # of steps in each call

    def build_for(self, spec, epoch_steps):
        """Build loss, metrics and optimizer.

        Parameters
        ----------
        spec : tuple
            The form of what it trains on, as :meth:`Batches.shares` returns it.
        epoch_steps : int
            Number of steps of an epoch.

        Returns
        -------
        n_calls : int
            Number of calls that make an epoch.

        Raises
        ------
        RuntimeError
            If this version of Keras adds up the metrics of replicas wrongly.
        """
        if not hasattr(keras.Variable, "synchronization"):
            raise RuntimeError(
                "Training under a strategy of tf.distribute needs Keras 3.10 or later, "
                f"got Keras {keras.version()}. Install a later one, or train without."
            )
        batch, _ = spec
        self._symbolic_build(data_batch=batch)
        n_calls = math.ceil(epoch_steps / self.n_steps)
        self._numbers = itertools.cycle(
            map(len, np.array_split(range(epoch_steps), n_calls))
        )
        return n_calls

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        pass

    def train_step(self, data):
        """Train a replica on its part of a batch."""
        batch, share = data
        x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
        n_rows = tf.shape(keras.tree.flatten(x)[0])[0]
        with tf.GradientTape() as tape:
            outputs = self(x, training=True)
            # Keras divides it by the number of replicas.
            loss = n_replicas() * self.compute_loss(x, y, outputs, weights)
            scaled = self.optimizer.scale_loss(loss * tf.cast(share, loss.dtype))
        gradients = tape.gradient(scaled, self.trainable_weights)
        self.optimizer.apply_gradients(
            zip(gradients, self.trainable_weights, strict=True)
        )
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss, sample_weight=n_rows)
        return self.compute_metrics(x, y, outputs, weights)

    def test_step(self, data):
        """Evaluate a replica on its part of a batch."""
        batch, _ = data
        return super().test_step(batch)

    def make_train_function(self, force=False):
        """Make the function that Keras calls with an iterator over shares."""
        if self.train_function is None or force:
            function = self._on_all_replicas(self.train_step)
            self.train_function = lambda x: function(
                x, tf.constant(next(self._numbers))
            )

    def make_test_function(self, force=False):
        """Make the function that Keras calls with an iterator over shares."""
        if self.test_function is None or force:
            function = self._on_all_replicas(self.test_step)
            self.test_function = lambda x: function(x, tf.constant(1))

    def _on_all_replicas(self, step):
        def function(iterator, n_steps):
            def run(position):
                self.distribute_strategy.run(step, args=(next(iterator),))
                return [position + 1]

            tf.while_loop(lambda position: position < n_steps, run, [0])
            return self.get_metrics_result()

        if self.run_eagerly:
            return function
        return tf.function(function, reduce_retracing=True, autograph=False)
