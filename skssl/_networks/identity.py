"""What tells one training from another: the user's own code as it runs, and values.

The code is read from the functions and classes in memory, and not from their files,
which may have been edited since. A function is its bytecode, its constants, defaults
and closure, and whatever it refers to by name; where it is written does not count.
Code of installed packages is known by its name and version.

Every object is a list of other objects, down to numbers and text. All that is reached
makes a graph, which is followed without recursion. It may have cycles.
"""

import copyreg
import dis
import functools
import hashlib
import importlib
import importlib.util
import itertools
import json
import platform
import re
import sys
import sysconfig
import threading
import types
import warnings
import weakref
from collections import defaultdict
from importlib.metadata import version

import numpy as np

from .packing import named_functions, reason

# Whoever reaches more objects than this reaches something that is not about training.
MAX_OBJECTS = 50_000
STANDARD_LIBRARY = sysconfig.get_path("stdlib"), "built-in", "frozen"
NUMBERS_AND_TEXT = bool, int, float, complex, str, bytes
PLAIN = {type(None), type(...), type(NotImplemented), *NUMBERS_AND_TEXT}
# Types of Python from which a class of the user's own inherits more than attributes.
VALUES = int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset
# What Python keeps in a class besides its code and settings.
NOT_OF_A_CLASS = frozenset(
    """
    __dict__ __weakref__ __doc__ __module__ __qualname__ __annotations__ _abc_impl
    __abstractmethods__ __firstlineno__ __static_attributes__ __orig_bases__
    __parameters__ __type_params__ __match_args__
    """.split()
)


class Unidentifiable(TypeError):
    """Raised for an object of which nobody can say whether it is the same again."""


class _MayBeUnknown:
    """Marks a part that counts by its type where its state cannot be read."""

    def __init__(self, value):
        self.value = value


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


def _graph(root):
    """Follow an object to all that it reaches.

    Returns
    -------
    graph : dict
        For each id of an object: a hash of its plain parts, the ids of its other parts,
        and whether these have an order.
    """
    values, holders = {id(root): root}, {id(root): None}  # values keep their ids
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
        contents, keys = [], []
        for part in parts:
            follow = pending
            if isinstance(part, _MayBeUnknown):
                part, follow = part.value, uncertain
            is_plain = type(part) in PLAIN
            contents.append(_plain_hash(part) if is_plain else b"")
            if not is_plain:
                keys.append(id(part))
                follow.append(id(part))
                values[id(part)] = part
                holders.setdefault(id(part), key)
        ordered = type(value) not in (set, frozenset)
        graph[key] = _hash(*contents), keys, ordered
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


def _hash(*contents):
    total = hashlib.blake2b(digest_size=32)
    for content in contents:
        total.update(len(content).to_bytes(8, "big") + content)
    return total.digest()


def _plain_hash(value):
    if isinstance(value, int):  # Python refuses to write large ones as decimals
        content = f"{value:x}".encode()
    else:
        content = value if isinstance(value, bytes) else repr(value).encode()
    return _hash(type(value).__name__.encode(), content)


# The parts of an object


def _parts(value):
    """Return the parts of an object, beginning with the kind that it is of."""
    cls = type(value)
    if cls in PARTS:
        return PARTS[cls](value)
    if isinstance(value, type):
        return _class_parts(value)
    if isinstance(value, types.ModuleType):
        return _module_parts(value)
    if _is_of_keras(value):
        return _keras_parts(value)
    if _is_own(value):
        return _own_instance_parts(value)
    return _library_instance_parts(value)


def _sorted(attributes):
    """Return names and values in turn, by the order of the names."""
    names = sorted(attributes, key=str)
    return [part for name in names for part in (name, attributes[name])]


def _mapping_parts(mapping):
    return ["dict", *itertools.chain.from_iterable(mapping.items())]


def _set_parts(value):
    plain = sorted(_plain_hash(item) for item in value if type(item) in PLAIN)
    return ["set", *plain, *(item for item in value if type(item) not in PLAIN)]


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
    settings = *settings, getattr(function, "__wrapped__", None)
    name = _versioned(function.__module__), function.__qualname__
    # A library may keep anything for itself.
    return ["library", *name, *map(_MayBeUnknown, settings)]


def _module_parts(module):
    if _is_library(module.__name__):
        return ["library", _versioned(module.__name__)]
    # Nobody says what is used of it.
    used = {name: x for name, x in vars(module).items() if not _is_special(name)}
    return ["module", module.__name__, *_sorted(used)]


def _class_parts(cls):
    if not _is_own(cls):
        return ["library", _versioned(cls.__module__), cls.__qualname__]
    names = vars(cls).keys() - NOT_OF_A_CLASS
    attributes = _sorted({name: vars(cls)[name] for name in names})
    return ["class", cls.__name__, type(cls), *cls.__bases__, *attributes]


def _own_instance_parts(value):
    """Return the type and attributes, whatever the class says of pickling."""
    values = [base(value) for base in VALUES if isinstance(value, base)]
    if isinstance(value, np.ndarray):
        values.append(np.asarray(value))
    state, attributes = object.__getstate__(value), {}
    for part in state if isinstance(state, tuple) else [state]:  # one is of the slots
        attributes.update(part or {})
    return ["instance", type(value), *values, *_sorted(attributes)]


def _library_instance_parts(value):
    """Return the parts of an object by what a copy of it would hold."""
    cls = type(value)
    if callable(getattr(value, "numpy", None)):  # a tensor, a variable
        return ["instance", cls, np.asarray(value.numpy())]
    for name in ("python_function", "__wrapped__"):  # tf.function, lru_cache
        if callable(getattr(value, name, None)):
            return ["instance", cls, getattr(value, name)]
    if cls.__module__.startswith("keras."):  # a list in which Keras tracks variables
        values = [base(value) for base in VALUES if isinstance(value, base)]
        if values:
            return ["instance", cls, *values]
    reducer = copyreg.dispatch_table.get(cls)
    reduced = reducer(value) if reducer else value.__reduce_ex__(4)
    if isinstance(reduced, str):  # the name of a global
        return ["global", str(getattr(value, "__module__", "")), reduced]
    function, arguments, state, *items = (*reduced, None, None, None)[:5]
    # Attributes have the order in which they were set.
    state = _sorted(state) if isinstance(state, dict) else [state]
    items = [None if part is None else list(part) for part in items]
    return ["instance", cls, function, arguments, *items, *state]


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
    if top in ("skssl", "__main__"):  # which may be a program that runs functions
        return top == "skssl"
    try:  # without importing it: the answer is the same before and after
        spec = importlib.util.find_spec(top)
        path = spec.origin or next(iter(spec.submodule_search_locations))
    except (AttributeError, ImportError, StopIteration, TypeError, ValueError):
        return False
    if top in sys.stdlib_module_names and path.startswith(STANDARD_LIBRARY):
        return True
    return "site-packages" in path or "dist-packages" in path


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


def _is_special(name):
    return name.startswith("__") and name.endswith("__")


def _code_and_names(function):
    """Yield the code of a function, and names in it with what they stand for.

    Of a module of the user's own count the attributes with names that stand in the
    code, of other modules the version.
    """
    codes = [function.__code__]
    for code in codes:  # which grows meanwhile
        codes += [x for x in code.co_consts if isinstance(x, types.CodeType)]
    steps = [step for code in codes for step in dis.get_instructions(code)]
    steps = [step for step in steps if step.opname != "EXTENDED_ARG"]
    yield codes[0]

    names = {name for code in codes for name in code.co_names}
    read = {x.argval for x in steps if x.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    places, modules = [(read, function.__globals__)], []
    for level, items, step in zip(steps, steps[1:], steps[2:], strict=False):
        if step.opname == "IMPORT_NAME":
            called = step.argval, function.__globals__, None, items.argval, level.argval
            places += [(names, vars(module)) for module in _imported(*called)]
    for wanted, values in places:  # which grows meanwhile
        for name in sorted(wanted & values.keys()):
            value = values[name]
            if not isinstance(value, types.ModuleType):
                yield from () if _is_special(name) else (name, value)
                continue
            yield _versioned(value.__name__)
            if value not in modules and not _is_library(value.__name__):
                modules.append(value)
                places.append((names, vars(value)))


def _imported(name, *arguments):
    """Return in a list the module of the user's own that an import in a function gives.

    It is empty for a library, and for what cannot be imported: the function may know
    what to do without it.
    """
    level = arguments[-1]
    try:
        is_library = level == 0 and _is_library(name)
        return [] if is_library else [__import__(name, *arguments)]
    except Exception:
        return []


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
    numbers, found = defaultdict(itertools.count), {}

    def numbered(match):
        base = re.sub(r"_?\d+", "", match[0])
        if match[0] not in found:
            found[match[0]] = f"{base}#{next(numbers[base])}"
        return found[match[0]]

    behind_key = r'(?<!DTypePolicy", "config": {"name": ")(?<="name": ")[^"]+'
    connected = r'(?<=\[")[^"]+(?=", \d+, \d+\])'
    return re.sub(f"{behind_key}|{connected}", numbered, text)


def _description(model, compile_kwargs):
    """Return the architecture where functions may be of the user's own."""
    try:
        with named_functions([model, compile_kwargs]) as (named, _):
            return architecture(*named)
    except Exception as error:  # of the user's objects, which may raise anything
        what = "a network" if hasattr(model, "layers") else f"a {type(model).__name__}"
        message = f"{what} that Keras cannot describe ({reason(error)})"
        raise Unidentifiable(message) from error


def _is_of_keras(value):
    """Whether a value is a layer, a loss, an optimizer, a schedule or the like."""
    return hasattr(type(value), "get_config") and any(
        cls.__module__.startswith("keras.") for cls in type(value).__mro__
    )


def _keras_parts(value):
    """Return the parts of an object of Keras that is no part of the network itself."""
    import keras

    parts = ["Keras", _own_parts(value)]
    try:
        parts.append(_description(value, {}))
    except Unidentifiable:
        if not _is_own(value):  # else its attributes say all
            raise
    if isinstance(value, keras.layers.Layer):
        parts.append(value.variables)
    return parts


def _own_parts(value, holders=()):
    """Return what is the user's own in an object of Keras, or in a container of them.

    All else stands in the text that Keras writes of it. Of an instance of a class of
    the user's own that is every attribute which Keras does not set, since nobody knows
    whether the configuration says all.
    """
    import keras

    if any(value is holder for holder in holders):
        return []
    if isinstance(value, keras.Variable | keras.KerasTensor):
        return []
    found = []
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    elif _is_of_keras(value):
        names = sorted(vars(value).keys() - _names_of_keras(value))
        items = [(name, vars(value)[name]) for name in names]
        if _is_own(value):
            found, items = [type(value), *itertools.chain(*items)], []
        if isinstance(value, keras.Model):
            items.append(("layers", value.layers))
    else:
        return [value] if callable(value) or _is_own(value) else []
    for name, item in items:
        inner = _own_parts(item, (*holders, value))
        found += [name, inner] if inner else []
    return found


def _names_of_keras(value):
    """Return the names of attributes that Keras itself sets in one of its objects.

    These name an object, tie it to others or hold what its configuration says.
    """
    plain = [vars(x) for x, cls in _plain_objects() if isinstance(value, cls)]
    own = "activity_regularizer", "_learning_rate"
    ties = "_self_", "_obj_ref", "_skssl_"
    known = {"name"}.union(*plain).difference(own)
    return known.union(name for name in vars(value) if name.startswith(ties))


@functools.cache
def _plain_objects():
    """Return objects of Keras of nobody's own, each with its class."""
    import keras
    from keras import layers, losses, metrics, optimizers

    inputs = keras.Input((1,))
    plain = [layers.Layer(), keras.Sequential([inputs]), losses.Loss()]
    plain += [metrics.Metric(), optimizers.Optimizer(0.1)]
    return [(keras.Model(inputs, inputs), keras.Model), *((x, type(x)) for x in plain)]


# Trainings


@functools.cache
def _versions():
    """Return the versions of Python, whose bytecode each has its own, and libraries."""
    names = "skssl keras tensorflow numpy scipy scikit-learn scikeras".split()
    return [platform.python_version(), *map(version, names)]


def training_key(stage, model, compile_kwargs, *parts):
    """Return a digest of all that a training depends on.

    Parameters
    ----------
    stage : str
        Name of the stage of training, for the message.
    model : keras.Model
        The network in the state in which the training begins.
    compile_kwargs : dict
        Arguments of `keras.Model.compile`.
    *parts : object
        What the training depends on besides, as for :func:`identity`.

    Returns
    -------
    key : str or None
        None, with a warning, if nobody can say whether a training is the same.
    """
    import keras

    trained = [model, dict(sorted(compile_kwargs.items()))]
    try:
        return identity(
            _own_parts(trained),
            _description(*trained),
            [variable.numpy() for variable in model.variables],
            [keras.config.dtype_policy().name, keras.config.floatx(), *_versions()],
            *parts,
        )
    except Unidentifiable as error:
        warnings.warn(
            f"memory= and checkpoint_dir= are not used for {stage}: nobody can say "
            "whether it would be the same training another time, since it depends on "
            f"{error}.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
