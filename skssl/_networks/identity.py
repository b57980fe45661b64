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

from .packing import error_summary, named_functions

# Whoever reaches more objects than this reaches something that is not about training.
MAX_OBJECTS = 50_000
LIBRARIES = frozenset("keras tensorflow numpy scipy sklearn scikeras skssl".split())
DISTRIBUTIONS = "skssl keras tensorflow numpy scipy scikit-learn scikeras".split()
STANDARD_LIBRARY = sysconfig.get_path("stdlib"), "built-in", "frozen"
PLAIN = frozenset(
    [type(None), type(...), type(NotImplemented)]
    + [bool, int, float, complex, str, bytes]
)
# Types of Python from which a class of the user's own inherits more than attributes.
VALUES = int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset
# State that says nothing on the values that a training computes.
MEANINGLESS = (
    type(threading.Lock()),
    type(threading.RLock()),
    weakref.WeakKeyDictionary,
    weakref.WeakValueDictionary,
)
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
                owner = _owner(key, values, holders)
                raise Unidentifiable(_unreadable(value, owner, error)) from error
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


def _unreadable(value, owner, error):
    """Say which object cannot be identified, and why."""
    if isinstance(error, Unidentifiable):
        return f"{error}{owner}"
    cls = type(value)
    return f"an object of type {cls.__module__}.{cls.__qualname__}{owner} ({error})"


def _owner(key, values, holders):
    """Name the function or class through which an object was reached."""
    while key is not None:
        if isinstance(values[key], types.FunctionType | type):
            return f" in {values[key].__qualname__}"
        key = holders[key]
    return ""


def _hash(*contents):
    total = hashlib.blake2b(digest_size=32)
    for content in contents:
        total.update(len(content).to_bytes(8, "big") + content)
    return total.digest()


def _plain_hash(value):
    if not isinstance(value, bytes):  # Python refuses to write large integers as usual
        text = f"{value:x}" if isinstance(value, int) else repr(value)
        return _hash(type(value).__name__.encode(), text.encode())
    return _hash(b"bytes", value)


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
    if isinstance(value, MEANINGLESS):
        return [cls.__name__]
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


def _descriptor_parts(descriptor):
    names = "fget", "fset", "fdel", "__func__"
    return [type(descriptor), *(getattr(descriptor, name, None) for name in names)]


def _cell_parts(cell):
    return ["cell", *([] if cell == types.CellType() else [cell.cell_contents])]


def _code_parts(code):
    yield from ("code", code.co_code, code.co_exceptiontable, code.co_flags)
    yield from (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
    yield from (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    yield code.co_consts


def _function_parts(function):
    settings = [function.__defaults__, function.__kwdefaults__]
    settings += [function.__closure__, *_sorted(vars(function))]
    if _is_own(function):
        code = function.__code__
        names = _references(code, function.__globals__)
        return ["function", code, *settings, *names]
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
    values = [base(value) for base in VALUES if isinstance(value, base)]
    if isinstance(value, np.ndarray):
        values.append(np.asarray(value))
    return ["instance", type(value), *values, *_sorted(_attributes(value))]


def _attributes(value):
    """Return the attributes of an instance, whatever its class says of pickling."""
    state = object.__getstate__(value)
    attributes, in_slots = state if isinstance(state, tuple) else (state, None)
    return {**(attributes or {}), **(in_slots or {})}


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
    property: _descriptor_parts,
    staticmethod: _descriptor_parts,
    classmethod: _descriptor_parts,
    list: lambda value: ["list", *value],
    tuple: lambda value: ["tuple", *value],
    dict: _mapping_parts,
    types.MappingProxyType: _mapping_parts,
    set: _set_parts,
    frozenset: _set_parts,
    bytearray: lambda value: ["bytearray", bytes(value)],
    np.ndarray: _array_parts,
    types.GetSetDescriptorType: lambda value: ["attribute", value.__name__],
    types.MemberDescriptorType: lambda value: ["attribute", value.__name__],
    weakref.ref: lambda value: ["reference", value()],
}


# Whose code it is, and what it refers to


@functools.lru_cache(maxsize=4096)
def _is_library(module):
    """Whether a module is known by its version: it is installed, or comes with Python.

    A package that is installed to be edited is code of the user's own, and so is a file
    of the user's with the name of a module of the standard library.
    """
    top = str(module).partition(".")[0]
    if top in LIBRARIES:
        return True
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


def _references(code, namespace):
    """Return what the names in code stand for: names and values in turn.

    Of a module of the user's own count the attributes with names that stand in the
    code, of other modules the version.
    """
    codes = [code]
    for inner in codes:  # which grows meanwhile
        codes += [x for x in inner.co_consts if isinstance(x, types.CodeType)]
    steps = [step for inner in codes for step in dis.get_instructions(inner)]
    steps = [step for step in steps if step.opname != "EXTENDED_ARG"]
    modules, found = [], []

    def look_up(names, values):
        for name in sorted(names & values.keys()):
            if isinstance(values[name], types.ModuleType):
                modules.append(values[name])
            elif not _is_special(name):
                found.extend((name, values[name]))

    reading = "LOAD_GLOBAL", "LOAD_NAME"
    look_up({step.argval for step in steps if step.opname in reading}, namespace)
    for level, names, step in zip(steps, steps[1:], steps[2:], strict=False):
        if step.opname == "IMPORT_NAME":
            modules += _imported(step.argval, namespace, names.argval, level.argval)
    names = {name for inner in codes for name in inner.co_names}
    for position, module in enumerate(modules):  # which grows meanwhile
        if module not in modules[:position]:
            found.append(_versioned(module.__name__))
            if not _is_library(module.__name__):
                look_up(names, vars(module))
    return found


def _imported(name, namespace, names, level):
    """Return a list of a module of the user's own that a function imports as it runs.

    It is empty for a library and for what cannot be imported: the function may know
    what to do without it.
    """
    if level == 0 and _is_library(name):
        return []
    try:
        return [__import__(name, namespace, None, names, level)]
    except Exception:
        return []


# Objects of Keras


def architecture(model, compile_kwargs):
    """Return a network and its settings as text, equal for equal networks."""
    return _text([model, compile_kwargs])


def _text(value):
    """Return what Keras writes of an object, or of a container of its objects."""
    import keras

    config = keras.saving.serialize_keras_object(value)
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


def _text_with_own_functions(value, what):
    """Return the text of an object in which functions may be of the user's own."""
    try:
        with named_functions(value) as (named, _):
            return _text(named)
    except Exception as error:  # of the user's objects, which may raise anything
        message = f"{what} that Keras cannot describe ({error_summary(error)})"
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
        parts.append(_text_with_own_functions(value, f"a {type(value).__name__}"))
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
    names = [found for cls, found in _keras_bases().items() if isinstance(value, cls)]
    known = frozenset({"name"}).union(*names) - {
        "activity_regularizer",
        "_learning_rate",
    }
    ties = ("_self_", "_obj_ref", "_skssl_")
    return known.union(name for name in vars(value) if name.startswith(ties))


@functools.cache
def _keras_bases():
    """Return base classes of Keras, each with the attributes that Keras itself sets."""
    import keras

    inputs = keras.Input((1,))
    plain = {
        keras.layers.Layer: keras.layers.Layer(),
        keras.Model: keras.Model(inputs, inputs),
        keras.Sequential: keras.Sequential([inputs]),
        keras.losses.Loss: keras.losses.Loss(),
        keras.metrics.Metric: keras.metrics.Metric(),
        keras.optimizers.Optimizer: keras.optimizers.Optimizer(0.1),
    }
    return {base: frozenset(vars(instance)) for base, instance in plain.items()}


# Trainings


@functools.cache
def _versions():
    """Return the versions of Python, whose bytecode each has its own, and libraries."""
    return [platform.python_version(), *map(version, DISTRIBUTIONS)]


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

    trained = [model, dict(sorted(compile_kwargs.items()))]
    try:
        return identity(
            _own_parts(trained),
            _text_with_own_functions(trained, "a network"),
            [variable.numpy() for variable in model.variables],
            [keras.config.dtype_policy().name, keras.config.floatx(), *_versions()],
            *parts(),
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
