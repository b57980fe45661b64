"""Files of values and networks, read without trusting them.

A file is an uncompressed zip of one JSON and of arrays in the `.npy` format. Reading
runs no code, follows no path and imports nothing. A network is a value among others:
its configuration as text, and its variables as arrays. Every class that it names is
checked, then the shape of every variable, before Keras builds it, in its safe mode.
"""

import io
import json
import math
import re
import sys
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import zip_longest

import numpy as np

from .._data.labels import is_missing
from .._networks.packing import error_summary
from .._runtime import seeded

FORMAT_VERSION = 2
HEADER = "estimator.json"
HEADER_KEYS = {"format", "kind", "versions", "state"}
VERSIONED = ("skssl", "keras", "tensorflow", "scikit-learn", "numpy")
TYPE = "__type__"  # the key that marks what JSON has no type for
ARRAY_KINDS = "biufU"  # of dtypes: booleans, numbers and text
NEVER_SAVED = {"compile_config", "registered_name"}
# Of layers, where those of a nested network count for each of its calls.
MAX_CALLS = 20_000

# What a network may consist of. Not in it: layers that run code (Lambda, TFSMLayer,
# TorchModuleWrapper, …), that read files (StringLookup, TextVectorization, …), and
# those that unroll a loop of any length (RNN, TimeDistributed, …). The
# asterisk stands for a number of dimensions.
ALLOWED = {
    None: "__keras_tensor__ __slice__ __ellipsis__",
    "keras": "DTypePolicy Sequential",
    "keras.src.models.functional": "Functional",
    "keras.src.applications.convnext": "LayerScale",
    "keras.src.ops.core": "Cast",  # which some versions put between dtypes
    "keras.layers": """
        InputLayer Dense EinsumDense Embedding Identity Activation Softmax ReLU
        LeakyReLU PReLU ELU Attention AdditiveAttention MultiHeadAttention
        BatchNormalization GroupNormalization LayerNormalization RMSNormalization
        UnitNormalization Normalization Rescaling Resizing CenterCrop RandomBrightness
        RandomContrast RandomCrop RandomFlip RandomRotation RandomTranslation RandomZoom
        Dropout AlphaDropout GaussianDropout GaussianNoise ActivityRegularization
        Flatten Reshape Permute RepeatVector Add Subtract Multiply Average Maximum
        Minimum Concatenate Dot Conv*D Conv*DTranspose DepthwiseConv*D SeparableConv*D
        AveragePooling*D MaxPooling*D GlobalAveragePooling*D GlobalMaxPooling*D
        Cropping*D UpSampling*D ZeroPadding*D SpatialDropout*D
        """,
}
# Modules whose classes do nothing but calculate: any class, but no function.
ALLOWED_MODULES = (
    "keras.constraints",
    "keras.initializers",
    "keras.regularizers",
    "keras.src.ops.nn",  # x + y and the like between layers
    "keras.src.ops.numpy",
)

# Classes of which an instance is saved by its parameters, by name.
SAVED_BY_PARAMETERS = {}


def saved_by_parameters(cls):
    """Decorate a class whose parameters are all that a file needs of an instance."""
    SAVED_BY_PARAMETERS[cls.__name__] = cls
    return cls


def require(condition, problem):
    """Raise a ValueError that names the problem, unless the condition holds."""
    if not condition:
        raise ValueError(problem)


def check_keys(what, value, keys):
    """Refuse a dict that has other keys than these."""
    require(set(value) == keys, f"{what} holds {sorted(value)}, not {sorted(keys)}")


# Files


def write_archive(file, kind, state):
    """Write a state, without pickle.

    Parameters
    ----------
    file : file object
        Where to write, open for bytes.
    kind : str
        What the state describes.
    state : object
        A value that :func:`encode` takes.
    """
    arrays = []
    versions = {name: version(name) for name in VERSIONED}
    header = {"format": FORMAT_VERSION, "kind": kind, "versions": versions}
    header["state"] = encode(state, arrays)
    np.savez(file, *arrays)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(HEADER, json.dumps(header))


def read_archive(file):
    """Read what :func:`write_archive` wrote; the file need not be trusted.

    Parameters
    ----------
    file : file object
        A file, open for bytes.

    Returns
    -------
    kind : object
        What the state describes, to be checked by the caller.
    state : object
        The state, to be checked by the caller.
    """
    members = _zip_members(file)
    require(HEADER in members, f"it holds no {HEADER}")
    header = json.loads(members.pop(HEADER))
    require(
        header["format"] == FORMAT_VERSION,
        f"it has format {header['format']!r}, but this version of skssl reads format "
        f"{FORMAT_VERSION}: update skssl where it is older, or else save anew",
    )
    check_keys(HEADER, header, HEADER_KEYS)
    state = _decode(header["state"], members)
    require(not members, f"it holds members that it does not name: {sorted(members)}")
    return header["kind"], state


def _zip_members(file):
    """Return all members of an uncompressed zip, which bounds them by its size."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        require(len(set(names)) == len(names), f"it holds members twice: {names}")
        stored = [(zipfile.ZIP_STORED, entry.file_size) for entry in entries]
        require(
            [(entry.compress_type, entry.compress_size) for entry in entries] == stored,
            "it has compressed members, which save never writes",
        )
        n_bytes = sum(entry.file_size for entry in entries)
        require(
            n_bytes <= file.seek(0, io.SEEK_END),
            "its members declare more bytes than it has",
        )
        return {entry.filename: archive.read(entry) for entry in entries}


# Values


def encode(value, arrays):
    """Return a value in a form that JSON holds, types included.

    Parameters
    ----------
    value : object
        None, a bool, number or text, a missing value, an array of these, an
        instance of a class in `SAVED_BY_PARAMETERS`, or a list, tuple or dict of all
        these.
    arrays : list of ndarray
        Where to put the arrays. The form refers to them by their position.

    Returns
    -------
    form : object
        Lists and dicts of numbers and text.

    Raises
    ------
    ValueError
        If the value is anything else.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is not None and is_missing(value):
        return math.nan  # pd.NA marks the same rows
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [encode(item, arrays) for item in value]
    if kind is dict and TYPE not in value and all(type(key) is str for key in value):
        return {key: encode(item, arrays) for key, item in value.items()}
    if kind is tuple:
        items = list(value)
    elif kind is dict:  # as pairs: the keys of JSON are text
        items = [list(pair) for pair in value.items()]
    elif kind is np.ndarray and value.dtype.kind in ARRAY_KINDS:
        items = len(arrays)
        arrays.append(value)
    elif SAVED_BY_PARAMETERS.get(kind.__name__) is kind:
        items = value.get_params(deep=False)
    else:
        raise ValueError(f"{value!r} is neither of skssl nor plain numbers and text")
    return {TYPE: kind.__name__, "items": encode(items, arrays)}


def _decode(form, members):
    """Return the value that :func:`encode` was given."""
    if isinstance(form, list):
        return [_decode(item, members) for item in form]
    if not isinstance(form, dict):
        return form
    if TYPE not in form:
        return {key: _decode(item, members) for key, item in form.items()}
    kind, items = form[TYPE], _decode(form["items"], members)
    if kind == "ndarray":
        return _decoded_array(f"arr_{items}.npy", members)
    if kind in ("tuple", "dict"):
        return {"tuple": tuple, "dict": dict}[kind](items)
    require(
        kind in SAVED_BY_PARAMETERS, f"it holds a value of the unknown type {kind!r}"
    )
    return SAVED_BY_PARAMETERS[kind](**items)


def _decoded_array(name, members):
    """Take an array out of the members, whose bytes must be all that it declares."""
    require(name in members, f"it holds no {name}")
    file = io.BytesIO(members.pop(name))
    require(np.lib.format.read_magic(file) == (1, 0), f"{name} is no array")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    n_bytes = file.getbuffer().nbytes - file.tell()
    require(
        dtype.kind in ARRAY_KINDS
        and dtype.itemsize > 0
        and math.prod(shape) * dtype.itemsize == n_bytes,
        f"{name} must hold booleans, numbers or text in {n_bytes} bytes, but declares "
        f"{dtype.str} of shape {shape}",
    )
    file.seek(0)
    array = np.load(file, allow_pickle=False)
    if dtype.kind == "U":  # NumPy makes broken text of what is no character
        characters = array.view(f"{dtype.byteorder}u4")
        require((characters <= sys.maxunicode).all(), f"{name} holds no text")
    return array


# Networks


def network_state(model):
    """Return a network as a value, without the settings of training.

    Parameters
    ----------
    model : keras.Model
        The network.

    Returns
    -------
    state : dict
        A value that :func:`encode` takes.
    """
    import keras

    def without_training(node):
        return {key: node[key] for key in node if key not in NEVER_SAVED}

    text = json.dumps(keras.saving.serialize_keras_object(model))
    config = json.loads(text, object_hook=without_training)
    values = [np.asarray(variable.numpy()) for variable in model.variables]
    return {
        "keras": keras.__version__,
        "config": json.dumps(config),
        "variables": [value.view(_stored_dtype(value.dtype)) for value in values],
    }


def network_from_state(state):
    """Check a network from a file, then let Keras build it.

    Parameters
    ----------
    state : dict
        What :func:`network_state` returned; it need not be trusted.

    Returns
    -------
    model : keras.Model
        A network of layers that do nothing but calculate.
    """
    import keras

    from .._networks.graph import all_layers

    check_keys("a network in it", state, {"keras", "config", "variables"})
    text, values = state["config"], state["variables"]
    _check_configuration(text)
    try:
        expected = without_memory(_described_variables, text)
        found = [(value.shape, value.dtype) for value in values]
        for pair in zip_longest(found, expected):
            require(len(set(pair)) == 1, "stored is {}, but it takes {}".format(*pair))
        model = _built(text)
        for variable, value in zip(model.variables, values, strict=True):
            variable.assign(value.view(variable.dtype))
    except Exception as error:
        raise ValueError(
            f"Keras {keras.__version__} cannot build a network in it, which was "
            f"written by Keras {state['keras']!r}: {error_summary(error)}"
        ) from error
    for layer in all_layers(model):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # it derives tensors from its weights
    return model


def _stored_dtype(dtype):
    """Return the dtype as which variables are stored: bfloat16 is none of NumPy's."""
    return np.dtype(f"u{dtype.itemsize}") if dtype.kind == "V" else dtype


def without_memory(function, *arguments):
    """Call a function that builds a network, without memory for its weights."""
    import keras
    import tensorflow as tf

    def call():
        # Operations enter the graph and are not run; initializers are not called.
        scope = keras.StatelessScope(initialize_variables=False)
        with tf.Graph().as_default(), scope, seeded(0):
            return function(*arguments)

    # The state of Keras is one per thread: this one's ends with it.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call).result()


def _described_variables(text):
    """Return shape and dtype of each variable of a network."""
    variables = _built(text).variables
    return [(tuple(x.shape), _stored_dtype(np.dtype(x.dtype))) for x in variables]


def _built(text):
    """Let Keras build a network from the text of its configuration."""
    import keras

    config = json.loads(text)  # anew, for Keras changes what it is given
    with warnings.catch_warnings(), seeded(0):  # no initial weight is kept
        warnings.simplefilter("ignore")
        return keras.saving.deserialize_keras_object(config, safe_mode=True)


def _check_configuration(text):
    """Refuse a network with a part that is not of Keras and known to be harmless."""
    parts = []  # the inner ones first
    config = json.loads(text, object_hook=lambda part: parts.append(part) or part)
    for part in reversed(parts):
        added = part.keys() & NEVER_SAVED
        require(not added, f"a network in it has {added}, which save never writes")
        if "class_name" in part:
            module, name = part.get("module"), part["class_name"]
            settings = f" {part['config']!r}" if name == "function" else ""
            require(
                re.sub(r"[123]D", "*D", name) in ALLOWED.get(module, "").split()
                or (module in ALLOWED_MODULES and name[:1].isupper()),
                "a network in it has a part that is not among those of Keras known to "
                f"be harmless: {name}{settings} from {module}",
            )
    require(
        _n_calls(config) <= MAX_CALLS,
        f"a network in it calls more than {MAX_CALLS} layers",
    )


def _n_calls(layer):
    """Count the calls of layers, those in a network that is called twice double."""
    inner = sum(map(_n_calls, layer["config"].get("layers", ())))
    return max(1, len(layer.get("inbound_nodes", ()))) * (1 + inner)
