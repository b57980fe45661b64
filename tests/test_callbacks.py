import keras
import pytest
from sklearn.base import clone

import skssl
from skssl import SelfSupervisedClassifier, SelfSupervisedEncoder
from skssl.self_training import FixMatch


class Stages(keras.callbacks.Callback):
    """Notes which stages it has seen, and how many epochs of each."""

    def __init__(self):
        super().__init__()
        self.n_epochs = {}

    def on_train_begin(self, logs=None):
        self.n_epochs[self.params["stage"]] = 0

    def on_epoch_end(self, epoch, logs=None):
        self.n_epochs[self.params["stage"]] += 1


def classifier(wrapper, callbacks, **params):
    return SelfSupervisedClassifier(
        wrapper, callbacks=callbacks, random_state=0, **params
    )


def test_callbacks_see_every_stage_and_its_name(few_labels, tiny):
    stages, own = Stages(), Stages()
    clf = classifier(
        clone(tiny).set_params(callbacks=[own], epochs=2),
        [stages],
        pretrain_epochs=1,
        frozen_layers=1,
        unfreeze_epochs=3,
        self_training=[FixMatch(n_steps=2), FixMatch(n_steps=101)],
    )
    clf.fit(*few_labels)
    finetuning = {"fine-tuning": 2, "fine-tuning of all layers": 3}
    assert own.n_epochs == finetuning
    assert stages.n_epochs == {
        "pretraining": 1,
        **finetuning,
        "self-training, part 1": 1,
        "self-training, part 2": 2,
    }
    assert stages.model is None  # it holds no network after `fit`
    clf.partial_fit(*few_labels)
    assert stages.n_epochs["fine-tuning"] == 2


@pytest.mark.parametrize("with_memory", [False, True])
def test_a_callback_of_keras_acts_in_pretraining(
    few_labels, tiny, trainings, tmp_path, with_memory
):
    X, _ = few_labels

    def encoder():
        stop = keras.callbacks.EarlyStopping("loss", min_delta=1e9)  # never better
        return SelfSupervisedEncoder(
            tiny,
            epochs=5,
            callbacks=[stop],
            memory=tmp_path if with_memory else None,
            random_state=0,
        ).fit(X)

    histories = [encoder().history_ for _ in range(2)]
    assert len(histories[0]["loss"]) == 2
    assert histories[0] == histories[1]
    assert len(trainings) == (1 if with_memory else 2)


def test_callbacks_are_part_of_what_a_pretraining_is_kept_by(
    few_labels, tiny, trainings, tmp_path
):
    X, _ = few_labels
    encoder = SelfSupervisedEncoder(tiny, epochs=2, memory=tmp_path, random_state=0)
    encoder.fit(X)
    encoder.set_params(callbacks=[keras.callbacks.TerminateOnNaN()]).fit(X)
    assert len(trainings) == 2


def test_callbacks_are_not_saved(few_labels, tiny, tmp_path):
    X, _ = few_labels
    encoder = SelfSupervisedEncoder(tiny, epochs=1, callbacks=[Stages()]).fit(X)
    encoder.save(tmp_path / "encoder")
    loaded = skssl.load(tmp_path / "encoder")
    with pytest.raises(TypeError, match="callbacks anew with set_params"):
        loaded.set_params(estimator=None).fit(X)


@pytest.mark.parametrize("callbacks", [Stages(), [Stages], "loss", [print]])
@pytest.mark.parametrize("kind", [SelfSupervisedClassifier, SelfSupervisedEncoder])
def test_what_is_no_callback_is_refused(few_labels, kind, callbacks):
    with pytest.raises(TypeError, match=r"list of keras\.callbacks\.Callback, or None"):
        kind(callbacks=callbacks).fit(*few_labels)
