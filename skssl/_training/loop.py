"""Run a stage of training.

`Batches` owns the order of the rows and prepares them. `compiled_copy` owns the
compiled network. Keras owns the steps, the metrics and the callbacks. `Progress` writes
the checkpoint and stops a training that diverges.
"""

import contextlib
import math
from dataclasses import replace

import keras
import numpy as np

from .._data.training_set import distinct_images
from .._networks.identity import training_key
from .._runtime import seeded, shared_seeds
from .._storage.cache import cached
from .._storage.checkpoint import Checkpoint
from .callbacks import (
    act_on_epochs_only,
    callback_identity,
    callback_state,
    callbacks_restored,
)
from .distribution import (
    DistributedTrainer,
    from_chief,
    is_chief,
    n_replicas,
    told_by_chief,
)
from .prediction import predict
from .reuse import BlockTrainer, assign, compiled, compiled_copy

# The outputs of constant layers are kept up to this size, else computed at each step.
MAX_CONSTANT_BYTES = 2**30


class Progress(keras.callbacks.Callback):
    """Writes the state after each epoch, and stops a training that diverges.

    Parameters
    ----------
    stage : Stage
        What is trained.
    """

    def __init__(self, stage):
        super().__init__()
        self.stage = stage
        self.state = _read_state(stage.checkpoint)
        self.history = self.state.get("history", {})
        self.n_done = self.state.get("epoch", 0)
        self.n_epochs = self.n_done if self.state.get("stopped") else stage.epochs

    def set_params(self, params):
        """Name the stage in the parameters, which all callbacks share."""
        super().set_params(params)
        params["stage"] = self.stage.name

    def on_train_begin(self, logs=None):
        """Put everything back to where the checkpoint was written."""
        if not self.state:
            return
        assign(self._variables(), self.state["values"])
        # The last of all callbacks, so after `on_train_begin` of the others.
        for callback, attributes in zip(
            self.stage.callbacks, self.state["callbacks"], strict=True
        ):
            vars(callback).update(attributes)

    def on_epoch_end(self, epoch, logs=None):
        """Keep the state of the training."""
        logs = {key: float(value) for key, value in (logs or {}).items()}
        if not math.isfinite(logs.get("loss", 0)):
            raise _diverged(self.stage, f"the loss is {logs['loss']}", epoch + 1)
        for key in {**self.history, **logs}:  # some are not measured in each epoch
            values = self.history.setdefault(key, [math.nan] * epoch)
            values.append(logs.get(key, math.nan))
        if self.stage.checkpoint and is_chief():
            self.stage.checkpoint.write(
                {
                    "epoch": epoch + 1,
                    "stopped": self.model.stop_training,
                    "history": self.history,
                    "values": [variable.numpy() for variable in self._variables()],
                    "callbacks": list(map(callback_state, self.stage.callbacks)),
                }
            )

    def _variables(self):
        seeds = shared_seeds(self.model).state
        return [*self.model.variables, *self.model.optimizer.variables, seeds]


def _read_state(checkpoint):
    """Return the state to go on from, in all workers that of the chief."""
    if not checkpoint:
        return {}
    return from_chief(checkpoint.read() if is_chief() else None) or {}


def _diverged(stage, what, epoch):
    return FloatingPointError(
        f"{stage.name.capitalize()} diverged: {what} in epoch {epoch}. Lower the "
        "learning rate (optimizer__learning_rate of the KerasClassifier, in "
        "pretraining that of pretrain_optimizer), or clip the gradients "
        "(optimizer__clipnorm=1)."
    )


def run(stage, *, memory=None, checkpoint_dir=None):
    """Train the network of a stage in place, or take its result from where it is kept.

    Parameters
    ----------
    stage : Stage
        What to train, on what and how.
    memory : str, path-like or joblib.Memory, default=None
        Cache of finished trainings.
    checkpoint_dir : str or path-like, default=None
        Folder for the state of the training. Its checkpoint stays in
        `stage.checkpoint`, to be removed once the whole fit is finished.

    Returns
    -------
    history : dict of list
        Loss and metrics of each epoch.
    """
    if stage.keeps_optimizer:  # which the key leaves out
        memory = checkpoint_dir = None
    key = None
    if memory is not None or checkpoint_dir is not None:
        key = _key(stage)
    if key is not None and checkpoint_dir is not None:
        stage.checkpoint = Checkpoint(checkpoint_dir, stage.name, key)
    if key is None or memory is None:
        return train(stage)

    def train_all():
        history = train(stage)
        return stage.model.get_weights(), history

    weights, history = told_by_chief(
        lambda train: cached(memory, key, train), train_all
    )
    stage.model.set_weights(weights)
    return history


def _key(stage):
    """Return a hash of all that the result depends on; None if a part has none."""
    batches, validation = stage.batches, stage.validation

    def parts():
        yield [batches.data.digest, len(batches.data), batches.prepare]
        settings = dict(vars(batches))
        for name in ("data", "prepare", "first_epoch"):
            del settings[name]
        yield sorted(settings.items())
        yield [stage.epochs, stage.validation_freq, stage.validation_steps]
        yield n_replicas()  # each draws and compares within its share
        if validation is not None:
            data = validation.data
            content = distinct_images(data.images, data.rows)
            yield [content.digest, content.index, data.targets, data.weights]
            yield validation.batch_size
        yield from map(callback_identity, stage.callbacks)

    return training_key(stage.name, stage.model, stage.compile_kwargs, parts)


def train(stage):
    """Train from the checkpoint, if there is one; return the history."""
    if stage.verbose:
        print(f"{stage.name.capitalize()}{stage.subject}")
    if stage.keeps_optimizer and not stage.model.compiled:
        prepare = stage.batches.prepare
        stage.model = compiled(stage.model, stage.compile_kwargs, prepare)
    whole, stage = stage.model, _behind_constant_layers(stage)
    batches, model = stage.batches, stage.model
    progress = Progress(stage)
    with contextlib.ExitStack() as stack:
        stack.enter_context(callbacks_restored(stage.callbacks, stage.checkpoint))
        trained = stack.enter_context(
            compiled_copy(
                model,
                stage.compile_kwargs,
                batches.prepare,
                needs_plain_steps=not act_on_epochs_only(stage.callbacks),
            )
        )
        # A model that trains on goes on with its generator, too.
        shared = shared_seeds(trained, batches.seed)
        if trained is not model:
            shared.state.assign([batches.seed, 0])
        stack.enter_context(seeded(batches.seed, shared))
        trained.fit(
            **_inputs(stage, trained, progress),
            initial_epoch=progress.n_done,
            epochs=progress.n_epochs,
            callbacks=[*stage.callbacks, progress],
            shuffle=False,  # `Batches` shuffles
            validation_freq=stage.validation_freq,
            verbose=stage.verbose,
        )
    if not all(np.isfinite(weight).all() for weight in whole.get_weights()):
        raise _diverged(stage, "weights became infinite", progress.n_epochs)
    return progress.history


def _inputs(stage, trained, progress):
    """Return the arguments of `keras.Model.fit` that say what to train on."""
    batches, validation = stage.batches, stage.validation
    if isinstance(trained, DistributedTrainer):
        shares, spec = batches.shares(progress.n_done)
        n_calls = trained.build_for(spec, batches.n_steps)
        inputs = {"x": shares, "steps_per_epoch": n_calls}
        if validation is not None:
            n_steps = min(stage.validation_steps or math.inf, validation.n_steps)
            inputs["validation_data"] = validation.shares()[0]
            inputs["validation_steps"] = n_steps
        return inputs
    if isinstance(trained, BlockTrainer):
        dataset, n_blocks = batches.blocks(progress.n_done, progress.n_epochs)
    else:
        dataset, n_blocks = batches.dataset(progress.n_done), None
    if validation is not None:
        validation = validation.dataset()
        if stage.validation_steps is not None:
            validation = validation.take(stage.validation_steps)
    return {"x": dataset, "steps_per_epoch": n_blocks, "validation_data": validation}


def _behind_constant_layers(stage):
    """Compute the outputs of constant layers once, and train what follows."""
    if stage.split is None or not act_on_epochs_only(stage.callbacks):
        return stage
    constant, model = stage.split
    sets = [stage.batches, stage.validation]
    n_rows = sum(len(x.data) for x in sets if x)
    if 4 * n_rows * math.prod(constant.output_shape[1:]) > MAX_CONSTANT_BYTES:
        return stage
    for position, batches in enumerate(sets):
        if batches:
            outputs = predict(constant, batches.data.images, rows=batches.data.rows)
            rows = np.arange(len(outputs))
            data = replace(batches.data, images=outputs, rows=rows)
            sets[position] = replace(batches, data=data)
    return replace(stage, model=model, batches=sets[0], validation=sets[1])
