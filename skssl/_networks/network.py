"""Build a Keras network with a backbone and a class head from what the user gives."""

import warnings
from dataclasses import dataclass

import keras
import numpy as np
from keras.src.models.functional import Functional

from .._data.images import channels_first_hint
from .._runtime import check_process, seeded_process
from .graph import GRAPH_CLASSES, all_layers
from .settings import (
    compile_settings,
    default_loss,
    fit_settings,
    takes_one_hot,
    wrap,
)
from .surgery import check_head, gives_logits, split_head, standardized

# Methods in which a network of the user's own class may do what its graph does not say.
OVERRIDES = """
    __call__ call train_step test_step predict_step compute_loss compute_metrics
    get_metrics_result make_train_function make_test_function make_predict_function fit
    evaluate predict
""".split()


@dataclass
class Network:
    """A built network, and how its wrapper wants it trained.

    The three models share all weights.
    """

    backbone: keras.Model  # images to embedding, standardisation included
    standardize: bool  # whether its Normalization layers are to be adapted
    training_model: keras.Model  # images to what the class head gives
    prediction_model: keras.Model  # images to class probabilities
    compile_kwargs: dict  # optimizer (a fresh one), loss, metrics, …
    from_logits: bool  # whether the training model gives logits
    one_hot: bool  # whether the loss takes one-hot targets
    fit_kwargs: dict  # epochs, batch_size, validation_split, callbacks, …
    trainable_before: list = ()  # layers, and whether they could train, before `freeze`

    @property
    def layers(self):
        """The layers of the backbone that `frozen_layers` counts."""
        uncounted = keras.layers.InputLayer | keras.layers.Normalization
        return [x for x in self.backbone.layers if not isinstance(x, uncounted)]


def build_network(estimator, image_shape, seed, classes=None, standardize="auto"):
    """Build a fresh network from what the user gave as `estimator`.

    Parameters
    ----------
    estimator : KerasClassifier, callable, keras.Model or None
        The `estimator` parameter. It is never changed.
    image_shape : tuple of int
        (height, width, channels) of the images.
    seed : int
        Seed of the initial weights.
    classes : ndarray of shape (n_classes,), default=None
        Class labels; None where only the backbone is wanted.
    standardize : bool or "auto", default="auto"
        Whether the images are standardised inside the network.

    Returns
    -------
    network : Network
        The network in its initial state.

    Raises
    ------
    TypeError
        If `estimator` is none of the above, or no Functional or Sequential model.
    ValueError
        If the network does not take such images or does not end in a class head.
    """
    check_process()
    labels = np.arange(2) if classes is None else classes
    with seeded_process(seed):
        wrapper = wrap(estimator)
        given = isinstance(wrapper.model, keras.Model) and bool(wrapper.model.weights)
        # scikeras looks at the shapes of X and at the classes in y only.
        wrapper.initialize(np.zeros((len(labels), *image_shape), np.float32), labels)
        model = wrapper.model_
        _check_model(model, image_shape)
        embedding, head, tail = split_head(model)
        if classes is not None:
            check_head(head, tail, len(classes))
        if standardize == "auto" and given:
            standardize = False

        # The network: a backbone, a head, and what is behind the head.
        features = keras.Model(model.inputs[0], embedding, name="backbone")
        backbone = standardized(features, image_shape, standardize)
        inputs = keras.Input(image_shape, name="images")
        outputs = head(backbone(inputs))
        if tail is not None:
            outputs = tail(outputs)
        probabilities = outputs
        from_logits = gives_logits(head, tail)
        if from_logits:
            name = "sigmoid" if head.units == 1 else "softmax"
            probabilities = keras.layers.Activation(name)(outputs)
        training_model = keras.Model(inputs, outputs, name="classifier")
        prediction_model = keras.Model(inputs, probabilities, name="classifier")

    compile_kwargs = compile_settings(wrapper)
    if compile_kwargs["loss"] is None:
        compile_kwargs["loss"] = default_loss(head.units, from_logits)
    return Network(
        backbone=backbone,
        standardize=standardize is not False,
        training_model=training_model,
        prediction_model=prediction_model,
        compile_kwargs=compile_kwargs,
        from_logits=from_logits,
        one_hot=head.units > 1 and takes_one_hot(compile_kwargs["loss"]),
        fit_kwargs=fit_settings(wrapper),
    )


def _check_model(model, image_shape):
    """Refuse a network that does more than its graph says, or takes other images."""
    if isinstance(model, keras.Sequential) and not model.built:
        model.build((None, *image_shape))
    has_graph = isinstance(model, GRAPH_CLASSES) and model.built
    if not (has_graph and len(model.inputs) == len(model.outputs) == 1):
        raise TypeError(
            "The network must be a Functional or Sequential keras.Model with one input "
            f"and one output, got {model!r}."
        )
    base = keras.Sequential if isinstance(model, keras.Sequential) else Functional
    own = [
        name
        for name in OVERRIDES
        if name in vars(model) or getattr(type(model), name) is not getattr(base, name)
    ]
    if own:
        raise TypeError(
            f"The network {type(model).__name__} has its own {', '.join(own)}, which "
            "skssl would not call: it trains the layers in the graph of the network by "
            "steps of Keras. Write what they do as layers, as the loss or as callbacks."
        )
    accepted = tuple(model.inputs[0].shape[1:])
    if len(accepted) != 3 or any(
        a not in (None, b) for a, b in zip(accepted, image_shape, strict=True)
    ):
        raise ValueError(
            f"The network takes inputs of shape {accepted}, but the images have shape "
            f"{image_shape} (height, width, channels)."
            f"{channels_first_hint((1, *image_shape))}"
        )
    # Small steps of an optimizer do not change weights of 16 bits.
    dtypes = {variable.dtype for variable in model.trainable_variables}
    dtypes.add(keras.config.floatx())
    for dtype in sorted(dtypes & {"float16", "bfloat16"}):
        raise ValueError(
            f"Weights must have 32 or 64 bits to learn, got {dtype}. Set "
            "keras.config.set_floatx('float32'); to compute faster, set "
            f"keras.config.set_dtype_policy('mixed_{dtype}') as well, which keeps the "
            "weights in float32."
        )


def check_pretraining(network, pretext):
    """Warn where a network cannot learn from a pretext task.

    Parameters
    ----------
    network : Network
        The network that is to be pretrained.
    pretext : PretextTask
        The fitted task.
    """
    task = type(pretext).__name__
    undoing = [x for x in all_layers(network.backbone) if pretext.is_undone_by(x)]
    if undoing:
        names = ", ".join(f"{type(x).__name__} {x.name!r}" for x in undoing)
        warnings.warn(
            f"Augmentation in the network makes {task} unsolvable: {names}. Narrow it "
            "or leave it out, choose another pretext task or other angles, or set "
            "pretrain_epochs=0.",
            UserWarning,
            stacklevel=2,
        )
    if not network.backbone.trainable_weights:
        warnings.warn(
            "All of the network before its class head is frozen or without weights, so "
            f"{task} trains nothing that is kept. Set trainable=True on the layers "
            "that it is to train, or pretrain_epochs=0.",
            UserWarning,
            stacklevel=2,
        )
