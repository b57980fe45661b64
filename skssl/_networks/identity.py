"""Digests of trainings: of the user's own code as it is in memory, and of values.

The code is read from the functions and classes in memory, and not from their files,
which may have been edited since. A function is its bytecode, its constants, defaults
and closure, and whatever it refers to by name; where it is written does not count.
Code of installed packages is known by its name and version.

Every object is a list of other objects, down to numbers and text. All that is reached
makes a graph, which is followed without recursion. It may have cycles.
"""

import contextlib
import copyreg
import dis
import functools
import hashlib
import importlib.util
import json
import marshal
import platform
import re
import sys
import sysconfig
import threading
import types
import warnings
import weakref
from importlib.metadata import version

import numpy as np

from .packing import error_summary, named_functions

# Who reaches more objects than this reaches something unrelated to the training.
MAX_OBJECTS = 50_000
STANDARD_LIBRARY = sysconfig.get_path("stdlib"), "built-in", "frozen"
SIMPLE_TYPES = frozenset([type(None), bool, int, float, complex, str, bytes])
# Types of Python from which a class of the user's own inherits more than attributes.
VALUES = int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset


class Unidentifiable(TypeError):
    """Raised for an object whose state cannot be read and compared."""


# The digest of everything that some objects reach


def identity(*objects):
    """Return a digest of objects, and of all code of the user's own that they reach.

    Parameters
    ----------
    *objects : object
        Functions, classes, instances, arrays, plain values, and containers of these.

    Returns
    -------
    digest : str
        The same for equal objects in any process; another one after a change.

    Raises
    ------
    Unidentifiable
        If they hold state that cannot be read, as that of a generator.
    """
    root = list(objects)
    graph = _graph(root)
    digests, n_known = {key: node[0] for key, node in graph.items()}, 0
    # An object is told from another by its parts, and these by their parts, until no
    # more objects are told apart. So it does not matter which equal objects are shared.
    while len(set(digests.values())) > n_known:
        n_known = len(set(digests.values()))
        finer = {}
        for key, (content, keys, ordered) in graph.items():
            parts = [digests[part] for part in keys]
            finer[key] = _hash(content, *(parts if ordered else sorted(parts)))
        digests = finer
    return _hash(digests[id(root)], *sorted(set(digests.values()))).hex()


def _as_bytes(plain):
    # From version 3 on, marshal notes which of the values are shared.
    return marshal.dumps(plain, 2)


def _hash(*contents):
    return hashlib.blake2b(b"".join(contents), digest_size=32).digest()


def _graph(root):
    """Follow an object to all that it reaches.

    Returns
    -------
    graph : dict
        For each id of an object: a hash of its plain parts, the ids of its other parts,
        and whether these have an order.
    """
    values, holders = {id(root): root}, {id(root): None}  # values keep their ids
    # Certain is what has to be known. A function of a library may hold anything.
    graph, certain, uncertain = {}, [id(root)], []
    while pending := certain or uncertain:
        key = pending.pop()
        if key in graph:
            continue
        if len(graph) == MAX_OBJECTS:
            raise Unidentifiable(f"more than {MAX_OBJECTS} objects")
        value = values[key]
        try:
            parts = list(_parts(value))
        except Exception as error:  # of the user's objects, which may raise anything
            if pending is certain:
                raise _refusal(key, values, holders, error) from error
            parts = ["unknown", type(value)]
        others = [part for part in parts if type(part) not in SIMPLE_TYPES]
        for part in others:
            values[id(part)] = part
            holders.setdefault(id(part), key)
        keys, ordered = list(map(id, others)), type(value) not in (set, frozenset)
        plain = [part if type(part) in SIMPLE_TYPES else ... for part in parts]
        graph[key] = _hash(_as_bytes(plain)), keys, ordered
        of_library = isinstance(value, types.FunctionType) and not _is_own(value)
        (uncertain if of_library else pending).extend(keys)
    return graph


def _refusal(key, values, holders, error):
    """Return an error that says what cannot be identified, and in which function."""
    cls, owner = type(values[key]), key
    while owner and not isinstance(values[owner], types.FunctionType | type):
        owner = holders[owner]
    place = f" in {values[owner].__qualname__}" if owner else ""
    if isinstance(error, Unidentifiable):
        return Unidentifiable(f"{error}{place}")
    kind = f"an object of type {cls.__module__}.{cls.__qualname__}"
    return Unidentifiable(f"{kind}{place} ({error})")


# The parts of an object


def _parts(value):
    """Return the parts of an object, beginning with the kind that it is of."""
    if type(value) in PARTS:
        return PARTS[type(value)](value)
    if isinstance(value, type):
        return _class_parts(value)
    if isinstance(value, types.ModuleType):
        return _module_parts(value)
    if _is_of_keras(value):
        return _keras_parts(value)
    return _instance_parts(value)


def _sorted(attributes):
    """Return names and values in turn, by the order of the names."""
    names = sorted(attributes, key=str)
    return [part for name in names for part in (name, attributes[name])]


def _mapping_parts(mapping):
    return ["dict", *(part for item in mapping.items() for part in item)]


def _set_parts(value):
    plain = sorted(_as_bytes(item) for item in value if type(item) in SIMPLE_TYPES)
    return ["set", *plain, *(item for item in value if type(item) not in SIMPLE_TYPES)]


def _array_parts(array):
    values = array.tolist() if array.dtype.hasobject else array.tobytes()
    return ["array", str(array.dtype), str(array.shape), values]


def _cell_parts(cell):
    return ["cell", *([] if cell == types.CellType() else [cell.cell_contents])]


def _code_parts(code):
    yield from ("code", code.co_code, code.co_exceptiontable, code.co_flags)
    yield from (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
    yield from (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    yield code.co_consts


def _function_parts(function):
    settings = function.__defaults__, function.__kwdefaults__, function.__closure__
    if _is_own(function):
        attributes = _sorted(vars(function))
        return ["function", *_code_and_names(function), *settings, *attributes]
    name = _versioned(function.__module__), function.__qualname__
    return ["library", *name, *settings, getattr(function, "__wrapped__", None)]


def _module_parts(module):
    if _is_library(module.__name__):
        return ["library", _versioned(module.__name__)]
    # Nobody says what is used of it, so all of it counts.
    contents = {k: x for k, x in vars(module).items() if _counts(k, x)}
    return ["module", module.__name__, *_sorted(contents)]


def _class_parts(cls):
    if not _is_own(cls):
        return ["library", _versioned(cls.__module__), cls.__qualname__]
    attributes = {k: x for k, x in vars(cls).items() if _counts(k, x)}
    return ["class", cls.__name__, type(cls), *cls.__bases__, *_sorted(attributes)]


def _instance_parts(value):
    cls = type(value)
    values = [base(value) for base in VALUES if isinstance(value, base)]
    if _is_own(value):
        if isinstance(value, np.ndarray):
            values.append(np.asarray(value))
        # Attributes and slots, whatever the class says of pickling.
        state, attributes = object.__getstate__(value), {}
        for part in state if isinstance(state, tuple) else [state]:
            attributes.update(part or {})
        return ["instance", cls, *values, *_sorted(attributes)]
    if cls.__name__ == "KerasTensor":  # its name is counted
        return ["symbol", str(value.shape), str(value.dtype)]
    if cls.__module__.startswith("keras.") and values:  # Keras tracks what it holds
        return ["instance", cls, *values]
    if callable(getattr(value, "numpy", None)):  # a tensor, a variable
        return ["instance", cls, np.asarray(value.numpy())]
    for name in ("python_function", "__wrapped__"):  # tf.function, lru_cache
        if callable(getattr(value, name, None)):
            return ["instance", cls, getattr(value, name)]
    return _reduced_parts(value)


def _reduced_parts(value):
    """Return the parts of an object by what a copy of it would hold."""
    reducer = copyreg.dispatch_table.get(type(value))
    reduced = reducer(value) if reducer else value.__reduce_ex__(4)
    if isinstance(reduced, str):  # the name of a global
        return ["global", str(getattr(value, "__module__", "")), reduced]
    function, arguments, state, *items = (*reduced, None, None, None)[:5]
    # Attributes have the order in which they were set.
    state = _sorted(state) if isinstance(state, dict) else [state]
    items = [list(part or ()) for part in items]
    return ["instance", type(value), function, arguments, *items, *state]


PARTS = {
    types.CodeType: _code_parts,
    types.FunctionType: _function_parts,
    types.MethodType: lambda value: ["method", value.__func__, value.__self__],
    types.CellType: _cell_parts,
    property: lambda value: ["property", value.fget, value.fset, value.fdel],
    list: lambda value: ["list", *value],
    tuple: lambda value: ["tuple", *value],
    dict: _mapping_parts,
    types.MappingProxyType: _mapping_parts,
    set: _set_parts,
    frozenset: _set_parts,
    np.ndarray: _array_parts,
    types.GetSetDescriptorType: lambda value: ["attribute", value.__name__],
    weakref.ref: lambda value: ["reference", value()],
    # State that says nothing on the values that a training computes.
    type(threading.Lock()): lambda value: ["lock"],
    type(threading.RLock()): lambda value: ["lock"],
    weakref.WeakKeyDictionary: lambda value: ["weak dict"],
    weakref.WeakValueDictionary: lambda value: ["weak dict"],
}


# Whose code it is, and what it refers to


@functools.lru_cache(maxsize=4096)
def _is_library(module):
    """Whether a module is known by its version: it is installed, or comes with Python.

    A package that is installed to be edited is code of the user's own, and so is a file
    of the user's with the name of a module of the standard library.
    """
    top = str(module).partition(".")[0]
    if top in ("skssl", "__main__"):  # a worker's main program is that of joblib
        return top == "skssl"
    try:  # without importing it: the answer is the same before and after
        spec = importlib.util.find_spec(top)
        path = str(spec and (spec.origin or spec.submodule_search_locations))
    except (ImportError, ValueError):
        return False
    is_installed = "site-packages" in path or "dist-packages" in path
    return is_installed or path.startswith(STANDARD_LIBRARY)


def _versioned(module):
    """Return the name of a library's module, with its version where it tells one."""
    top = sys.modules.get(str(module).partition(".")[0])
    return f"{module} {getattr(top, '__version__', '')}"


def _is_own(value):
    """Whether a function, a class or an instance is of the user's own making."""
    if isinstance(value, types.FunctionType):
        # Its module may be that of a function which it wraps.
        return not _is_library(value.__globals__.get("__name__"))
    cls = value if isinstance(value, type) else type(value)
    return not _is_library(cls.__module__)


def _counts(name, value):
    """Whether a name in a class or module is not one that Python itself sets there."""
    is_special = name.startswith("__") and name.endswith("__")
    return name != "_abc_impl" and (hasattr(value, "__get__") or not is_special)


def _code_and_names(function):
    """Yield the code of a function, and names in it with what they stand for.

    Of a module of the user's own count the attributes with names that stand in the
    code, of other modules the version.
    """
    codes, namespace = [function.__code__], function.__globals__
    for code in codes:  # which grows meanwhile
        codes += [x for x in code.co_consts if isinstance(x, types.CodeType)]
    steps = [step for code in codes for step in dis.get_instructions(code)]
    steps = [step for step in steps if step.opname != "EXTENDED_ARG"]
    yield codes[0]

    names = {name for code in codes for name in code.co_names}
    read = {x.argval for x in steps if x.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    places, modules = [(read, namespace)], []
    # The level of an import, and the names it asks for, are loaded before it.
    for level, items, step in zip(steps, steps[1:], steps[2:], strict=False):
        name, arguments = step.argval, (namespace, None, items.argval, level.argval)
        if step.opname != "IMPORT_NAME" or (not level.argval and _is_library(name)):
            continue
        with contextlib.suppress(Exception):  # the function may do without it
            places.append((names, vars(__import__(name, *arguments))))
    for wanted, values in places:  # which grows meanwhile
        for name in sorted(wanted & values.keys()):
            value = values[name]
            if not isinstance(value, types.ModuleType):
                yield from (name, value) if _counts(name, value) else ()
                continue
            yield _versioned(value.__name__)
            if value not in modules and not _is_library(value.__name__):
                modules.append(value)
                places.append((names, vars(value)))


# Objects of Keras


def architecture(model, compile_kwargs):
    """Return a network and its settings as text, equal for equal networks."""
    import keras

    config = keras.saving.serialize_keras_object([model, compile_kwargs])
    text = json.dumps(config, sort_keys=True, default=str)
    # scikeras registers Keras's own classes once it has pickled a model.
    text = text.replace('"registered_name": ">', '"registered_name": "')
    # Keras numbers its objects through the whole process: number them from here on.
    # Their names stand behind "name", and in connections as [name, 0, 0].
    found = {}

    def numbered(match):
        base = re.sub(r"_?\d+", "", match[0])
        return found.setdefault(match[0], f"{base}#{len(found)}")

    behind_key = r'(?<!DTypePolicy", "config": {"name": ")(?<="name": ")[^"]+'
    connected = r'(?<=\[")[^"]+(?=", \d+, \d+\])'
    return re.sub(f"{behind_key}|{connected}", numbered, text)


def _is_of_keras(value):
    """Whether a value is a layer, a loss, an optimizer, a schedule or the like."""
    return hasattr(type(value), "get_config") and any(
        cls.__module__.startswith("keras.") for cls in type(value).__mro__
    )


def _keras_parts(value, compile_kwargs=None):
    """Return the parts of an object of Keras, such as a network and its settings."""
    import keras

    described = [value, compile_kwargs or {}]
    try:
        with named_functions(described) as (named, _):
            text = architecture(*named)
    except Exception as error:  # of the user's objects, which may raise anything
        if not _is_own(value):  # else its attributes are counted
            what = "a network" if isinstance(value, keras.Model) else repr(value)
            message = f"{what} that Keras cannot describe ({error_summary(error)})"
            raise Unidentifiable(message) from error
        text = None
    # A generator of seeds has a single one.
    variables = getattr(value, "variables", None) or [getattr(value, "state", None)]
    values = [x.numpy() for x in variables if isinstance(x, keras.Variable)]
    return ["Keras", text, _own_parts(described), values]


def _own_parts(value, holders=()):
    """Return what is the user's own in an object of Keras, or in a container of them.

    All else is in the text that Keras writes of it. Of an instance of a class of the
    user's own that is every attribute that Keras does not set, since its configuration
    may be incomplete.
    """
    import keras

    found = []
    for part in keras.tree.flatten(value):
        if not _is_of_keras(part):
            found += [part] if callable(part) or _is_own(part) else []
            continue
        if any(part is holder for holder in holders):
            continue
        attributes = _attributes(part)
        if _is_own(part):
            found += [type(part), *_sorted(attributes)]
            attributes = {}
        if isinstance(part, keras.Model):
            attributes["layers"] = part.layers
        for name, attribute in sorted(attributes.items()):
            inner = _own_parts(attribute, (*holders, part))
            found += [name, inner] if inner else []
    return found


def _attributes(value):
    """Return the attributes of an object of Keras that Keras itself does not set.

    Those are its name, links to other objects, and what is in its configuration.
    """
    bare = [vars(x) for x, cls in _bare_objects() if isinstance(value, cls)]
    known = {"name"}.union(*bare) - {"activity_regularizer", "_learning_rate"}
    internal = "_self_", "_obj_ref", "_skssl_"
    return {
        name: attribute
        for name, attribute in vars(value).items()
        if name not in known and not name.startswith(internal)
    }


@functools.cache
def _bare_objects():
    """Return objects of Keras of nobody's own, each with its class."""
    import keras
    from keras import layers, losses, metrics, optimizers

    inputs = keras.Input((1,))
    # Some versions of Keras, as 3.12, refuse inputs as outputs.
    model = keras.Model(inputs, layers.Identity()(inputs))
    plain = [layers.Layer(), keras.Sequential([inputs]), losses.Loss()]
    plain += [metrics.Metric(), optimizers.Optimizer(0.1)]
    return [(model, keras.Model), *((x, type(x)) for x in plain)]


# Trainings


@functools.cache
def _versions():
    """Return the versions of Python, whose bytecode each has its own, and libraries."""
    names = "skssl keras tensorflow numpy scipy scikit-learn scikeras".split()
    return [platform.python_version(), *map(version, names)]


def training_key(stage, model, compile_kwargs, parts=tuple):
    """Return a digest of all that a training depends on.

    Parameters
    ----------
    stage : str
        Name of the stage of training, for the message.
    model : keras.Model
        The network in the state in which the training begins.
    compile_kwargs : dict
        Arguments of `keras.Model.compile`.
    parts : callable, default=tuple
        Returns an iterable of what the training depends on besides, as for
        :func:`identity`.

    Returns
    -------
    key : str or None
        None, with a warning, if nobody can say whether a training is the same.
    """
    import keras

    precision = keras.config.dtype_policy().name, keras.config.floatx()
    try:
        network = _keras_parts(model, dict(sorted(compile_kwargs.items())))
        return identity(network, precision, _versions(), *parts())
    except Unidentifiable as error:
        warnings.warn(
            f"memory= and checkpoint_dir= are not used for {stage}: nobody can say "
            "whether it would be the same training another time, since it depends on "
            f"{error}.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
