"""Networks in an archive, read without trusting it: no code is run, no path followed.

First the names and sizes in the archive are checked, then every class that a network
names, then how many weights it would make, and only then does Keras build it, in its
safe mode.
"""

import io
import json
import math
import os
import tempfile
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor

from .._networks.packing import error_summary

KERAS_CONFIG, KERAS_WEIGHTS = "config.json", "model.weights.h5"
KERAS_MEMBERS = {KERAS_CONFIG, KERAS_WEIGHTS, "metadata.json"}
MAX_CALLS = 20_000  # of layers, where nested networks that are called twice multiply

# What a network may consist of. Not in it: layers that run code (Lambda, TFSMLayer,
# TorchModuleWrapper, …), that read files (StringLookup, TextVectorization, …), and
# those that unroll a loop as long as the file likes (RNN, TimeDistributed, …).
ALLOWED = {
    None: {"__keras_tensor__", "__slice__", "__ellipsis__"},
    "keras": {"DTypePolicy", "Sequential"},
    "keras.src.models.functional": {"Functional"},
    "keras.src.applications.convnext": {"LayerScale"},
    "keras.layers": set(
        """
        InputLayer Dense EinsumDense Embedding Identity Activation Softmax ReLU
        LeakyReLU PReLU ELU Attention AdditiveAttention MultiHeadAttention
        BatchNormalization GroupNormalization LayerNormalization RMSNormalization
        UnitNormalization Normalization Rescaling Resizing CenterCrop RandomBrightness
        RandomContrast RandomCrop RandomFlip RandomRotation RandomTranslation RandomZoom
        Dropout AlphaDropout GaussianDropout GaussianNoise ActivityRegularization
        Flatten Reshape Permute RepeatVector Add Subtract Multiply Average Maximum
        Minimum Concatenate Dot DepthwiseConv2D SeparableConv2D Conv2DTranspose
        """.split()
    )
    | {
        f"{kind}{n}D"
        for n in (1, 2, 3)
        for kind in """
        Conv AveragePooling MaxPooling GlobalAveragePooling GlobalMaxPooling Cropping
        UpSampling ZeroPadding SpatialDropout
        """.split()
    },
}
# Modules whose classes do nothing but calculate: any class, but no function.
ALLOWED_MODULES = (
    "keras.constraints",
    "keras.initializers",
    "keras.regularizers",
    "keras.src.ops.nn",  # x + y and the like between layers
    "keras.src.ops.numpy",
)


def expect(condition, otherwise):
    if not condition:
        raise ValueError(otherwise)


def expect_keys(what, value, keys):
    expect(set(value) == keys, f"{what} holds {sorted(value)}, not {sorted(keys)}")


def write_zip(file, members):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def read_zip(file):
    """Return all members of an uncompressed zip, which bounds them by its size."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        expect(len(set(names)) == len(names), f"it holds members twice: {names}")
        expect(
            all(
                entry.compress_type == zipfile.ZIP_STORED
                and entry.compress_size == entry.file_size
                for entry in entries
            ),
            "it has compressed members, which save never writes",
        )
        expect(
            sum(entry.file_size for entry in entries) <= file.seek(0, io.SEEK_END),
            "its members declare more bytes than it has",
        )
        return {entry.filename: archive.read(entry) for entry in entries}


def keras_file(model, folder):
    """Return a network as Keras saves it, by way of a file in a folder."""
    path = os.path.join(folder, "network.keras")
    with warnings.catch_warnings():
        # Keras converts its variables in a way that NumPy 2 warns about.
        warnings.filterwarnings("ignore", "__array__", DeprecationWarning)
        model.save(path)
    with open(path, "rb") as file:
        return file.read()


def network_bytes(model, folder):
    """Return a network in the `.keras` format, without the settings of training."""
    members = read_zip(io.BytesIO(keras_file(model, folder)))
    config = json.loads(members[KERAS_CONFIG])
    for node in _dicts(config):
        if "compile_config" in node:
            node["compile_config"] = None
        # scikeras registers Keras's own classes once it has pickled a model.
        if node.get("registered_name") == f">{node.get('class_name')}":
            node["registered_name"] = node["class_name"]
    members[KERAS_CONFIG] = json.dumps(config).encode()
    buffer = io.BytesIO()
    write_zip(buffer, members)
    return buffer.getvalue()


def load_network(name, data, keras_version):
    """Check a network in the `.keras` format, then let Keras build it."""
    import keras

    from .._runtime import seeded

    members = read_zip(io.BytesIO(data))
    expect_keys(name, members, KERAS_MEMBERS)
    config = json.loads(members[KERAS_CONFIG])
    _check_config(config)
    n_stored = _stored_values(members[KERAS_WEIGHTS])
    with (
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        seeded(0),  # initial weights are drawn, though none of them is kept
    ):
        warnings.simplefilter("ignore")
        try:
            n_weights = _weights_to_build(config)
            expect(
                n_weights <= n_stored,
                f"it has {n_weights} weights, but only {n_stored} are stored",
            )
            path = os.path.join(folder, name)
            with open(path, "wb") as file:
                file.write(data)
            return keras.saving.load_model(path, compile=False, safe_mode=True)
        except Exception as error:
            raise ValueError(
                f"Keras {keras.__version__} cannot build {name}, which was written by "
                f"Keras {keras_version!r}: {error_summary(error)}"
            ) from error


def _dicts(node):
    """Yield every dict in a tree of JSON."""
    pending = [node]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            yield node
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)


def _check_config(config):
    """Refuse a network that names anything but Keras's own layers and the like."""
    for node in _dicts(config):
        expect(
            node.get("compile_config") is None,
            "a network in it carries settings of training",
        )
        if "class_name" not in node:
            continue
        module, name = node.get("module"), node["class_name"]
        allowed = name in ALLOWED.get(module, ()) or (
            module in ALLOWED_MODULES and name[:1].isupper()
        )
        # A registered name would choose among the classes that the user registered.
        if not allowed or node.get("registered_name") not in (None, name):
            inner = node.get("config")
            what = f"{name} {inner!r}" if name == "function" else name
            raise ValueError(
                "a network in it has a part that is not among those of Keras known to "
                f"be harmless: {what} from {module}"
            )
    expect(
        _n_calls(config) <= MAX_CALLS,
        f"a network in it calls more than {MAX_CALLS} layers",
    )


def _n_calls(layer):
    """Count the calls of layers, those in a network that is called twice double."""
    inner = sum(map(_n_calls, layer["config"].get("layers", ())))
    return max(1, len(layer.get("inbound_nodes", ()))) * (1 + inner)


def _stored_values(weights):
    """Return how many numbers a weights file holds; they must lie in it as they are."""
    import h5py

    n_values = n_bytes = 0
    with h5py.File(io.BytesIO(weights), "r") as file:
        seen, pending = set(), [file]
        while pending:
            item = pending.pop()
            address = h5py.h5o.get_info(item.id).addr
            expect(address not in seen, "its weights are linked twice")
            seen.add(address)
            if isinstance(item, h5py.Group):
                links = [item.get(key, getlink=True) for key in item]
                expect(
                    all(type(link) is h5py.HardLink for link in links),
                    "its weights link elsewhere",
                )
                pending.extend(item.values())
                continue
            expect(
                item.chunks is None
                and not item.external
                and not item.is_virtual
                and not item.dtype.hasobject
                and item.id.get_storage_size() == item.nbytes,
                "its weights are not plain arrays of numbers",
            )
            n_values, n_bytes = n_values + item.size, n_bytes + item.nbytes
    expect(
        n_values <= n_bytes <= len(weights),
        "its weights declare more bytes than it has",
    )
    return n_values


def _weights_to_build(config):
    """Return how many weights a network would have, without making them."""
    import keras
    import tensorflow as tf

    from .._runtime import seeded

    def build():
        # Operations enter the graph and are not run; initializers are not called.
        scope = keras.StatelessScope(initialize_variables=False)
        with seeded(0), tf.Graph().as_default(), scope:
            model = keras.saving.deserialize_keras_object(config, safe_mode=True)
            return sum(math.prod(weight.shape) for weight in model.weights)

    # The state of Keras is one a thread: this one's ends with it.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(build).result()
