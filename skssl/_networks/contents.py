"""What an object is by itself, and what it holds: code, values, parts of networks.

Each kind of object has a function that yields its own content as text and bytes, and
lists of the objects that it holds. Code of installed packages is known by its name and
version.
"""

import copyreg
import dis
import functools
import hashlib
import importlib
import importlib.util
import itertools
import json
import re
import sys
import sysconfig
import threading
import types
import weakref
from collections import defaultdict

import numpy as np

LIBRARIES = frozenset("keras tensorflow numpy scipy sklearn scikeras skssl".split())
STANDARD_LIBRARY = sysconfig.get_path("stdlib")
# What a class holds besides its code and settings.
NOT_OF_A_CLASS = frozenset(
    """
    __dict__ __weakref__ __doc__ __module__ __qualname__ __annotations__ __annotate__
    __annotate_func__ __annotations_cache__ __abstractmethods__ _abc_impl
    __firstlineno__ __static_attributes__ __orig_bases__ __parameters__
    __type_params__ __match_args__
    """.split()
)
# State that says nothing on the values that a training computes.
MEANINGLESS = (
    type(threading.Lock()),
    type(threading.RLock()),
    weakref.WeakKeyDictionary,
    weakref.WeakValueDictionary,
)
PLAIN = (type(None), type(...), type(NotImplemented), bool, int, float, complex, str)


class Unidentifiable(TypeError):
    """Raised for an object of which nobody can say whether it is the same again."""


class OwnParts:
    """Stands for what is the user's own in an object of Keras."""

    def __init__(self, value):
        self.value = value


class Lenient:
    """Stands for a value whose state may stay unknown."""

    def __init__(self, value):
        self.value = value


@functools.lru_cache(maxsize=4096)
def _is_library(module):
    """Whether a module is known by its version: it is installed, or comes with Python.

    A package that is installed to be edited is code of the user's own.
    """
    top = str(module).partition(".")[0]
    if top in LIBRARIES:
        return True
    path = getattr(sys.modules.get(module), "__file__", None)
    if path is not None and ("site-packages" in path or "dist-packages" in path):
        return True
    if top not in sys.stdlib_module_names:
        return False
    # A file of the user's may have the name of a module of the standard library.
    return path is None or path.startswith(STANDARD_LIBRARY)


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


def content_hash(*parts):
    total = hashlib.blake2b(digest_size=32)
    for part in parts:
        part = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        total.update(len(part).to_bytes(8, "big") + part)
    return total.digest()


def architecture(model, compile_kwargs):
    """Return a network and its settings as text, equal for equal networks."""
    import keras

    settings = {
        key: keras.saving.serialize_keras_object(value)
        for key, value in compile_kwargs.items()
    }
    config = [json.loads(model.to_json()), settings]
    text = json.dumps(config, sort_keys=True, default=str)
    # scikeras registers Keras's own classes once it has pickled a model.
    text = text.replace('"registered_name": ">', '"registered_name": "')
    # Keras numbers its objects through the whole process: number them from here on.
    numbers = defaultdict(itertools.count)
    for name in dict.fromkeys(re.findall(r'"name": "([^"]+)"', text)):
        base = re.sub(r"_?\d+", "", name)
        text = text.replace(f'"{name}"', f'"{base}#{next(numbers[base])}"')
    return text


# Code


def _inner_code(code):
    """Yield code and all code inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _inner_code(constant)


def _references(code):
    """Return the global names that code reads, and the modules that it imports.

    Returns
    -------
    names : set of str
        Names of globals.
    imports : set of (int, str)
        Level and name of each module, as in `__import__`.
    """
    names, imports = set(), set()
    for inner in _inner_code(code):
        constants = []
        for step in dis.get_instructions(inner):
            if step.opname == "LOAD_CONST":
                constants.append(step.argval)
            elif step.opname == "IMPORT_NAME":  # behind its level and list of names
                imports.add((constants[-2], step.argval))
            elif step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                names.add(step.argval)
    return names, imports


def _imported(level, name, package):
    """Return a module of the user's own that a function imports as it runs, or None."""
    try:
        absolute = importlib.util.resolve_name("." * level + name, package)
        if not _is_library(absolute):
            return importlib.import_module(absolute)
    except Exception:  # the function may know what to do without it
        pass
    return None


def _code_parts(code):
    yield from ("code", code.co_code, code.co_exceptiontable)
    yield str(
        (
            code.co_argcount,
            code.co_posonlyargcount,
            code.co_kwonlyargcount,
            code.co_flags,
            code.co_names,
            code.co_varnames,
            code.co_freevars,
            code.co_cellvars,
        )
    )
    yield list(code.co_consts)


def _function_parts(function):
    own = _is_own(function)
    if own:
        yield from ("function", [function.__code__])
        yield from _named_parts(function.__code__, function.__globals__)
    else:
        yield from ("library", _versioned(function.__module__), function.__qualname__)
    yield [function.__defaults__, function.__kwdefaults__]
    attributes = vars(function)
    yield from _attribute_parts(attributes, attributes)
    for cell in function.__closure__ or ():
        try:
            content = cell.cell_contents
        except ValueError:
            yield "empty"
        else:  # a library may keep anything for itself
            yield [content if own else Lenient(content)]


def _named_parts(code, namespace):
    """Yield what the names in a function stand for."""
    names, imports = _references(code)
    modules = [
        _imported(level, name, namespace.get("__package__"))
        for level, name in sorted(imports)
    ]
    for name in sorted(names & namespace.keys()):
        value = namespace[name]
        if isinstance(value, types.ModuleType):
            modules.append(value)
        elif not _is_special(name):
            yield from (name, [value])
    # Of a module count the attributes with names that stand in the code.
    names = {name for inner in _inner_code(code) for name in inner.co_names}
    seen = set()
    while modules:
        module = modules.pop()
        if module is None or id(module) in seen:
            continue
        seen.add(id(module))
        if _is_library(module.__name__):
            yield _versioned(module.__name__)
            continue
        yield module.__name__
        for name in sorted(names & vars(module).keys()):
            value = vars(module)[name]
            if isinstance(value, types.ModuleType):
                modules.append(value)
            elif not _is_special(name):
                yield from (name, [value])


def _method_parts(method):
    yield from ("method", [method.__func__, method.__self__])


def _builtin_parts(function):
    yield from ("builtin", str(function.__module__), function.__qualname__)
    owner = getattr(function, "__self__", None)
    if owner is not None and not isinstance(owner, types.ModuleType | type):
        yield [owner]


def _descriptor_parts(descriptor):
    yield type(descriptor).__name__
    for name in ("fget", "fset", "fdel", "__func__"):
        yield [getattr(descriptor, name, None)]


def _module_parts(module):
    yield from ("module", module.__name__)
    if not _is_library(module.__name__):  # nobody says what is used of it
        values = vars(module)
        yield from _attribute_parts(values, [x for x in values if not _is_special(x)])


def _class_parts(cls):
    yield from ("class", cls.__name__)
    if not _is_own(cls):
        yield from (_versioned(cls.__module__), cls.__qualname__)
        return
    yield [type(cls), *cls.__bases__]
    slots = types.MemberDescriptorType | types.GetSetDescriptorType
    values = {
        name: value
        for name, value in vars(cls).items()
        if name not in NOT_OF_A_CLASS and not isinstance(value, slots)
    }
    yield from _attribute_parts(values, values)


def _attribute_parts(values, names):
    for name in sorted(names):
        yield from (name, [values[name]])


# Values


def plain_content(value):
    """Return a value that has no parts as bytes."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        text = repr(value)
    else:
        text = value.hex() if isinstance(value, float) else f"{value:x}"
    return content_hash(type(value).__name__, text)


def _array_parts(array):
    yield from ("array", str(array.dtype), str(array.shape))
    if array.dtype.hasobject:
        yield [array.tolist()]
    else:
        yield content_hash(np.ascontiguousarray(array).tobytes())
    if np.ma.isMaskedArray(array):
        yield [np.ma.getmaskarray(array)]


def _sequence_parts(sequence):
    yield "tuple" if isinstance(sequence, tuple) else "list"
    yield list(sequence)


def _mapping_parts(mapping):
    yield "dict"
    for key, value in mapping.items():
        yield [key, value]


def _set_parts(value):
    # It has no order of its own; nor have its references in the graph.
    yield "set"
    yield from sorted(plain_content(item) for item in value if type(item) in PLAIN)
    yield [item for item in value if type(item) not in PLAIN]


def _instance_parts(value):
    """Yield the parts of an instance of the user's own class."""
    yield from ("instance", [type(value)])
    values = dict(getattr(value, "__dict__", {}))
    for cls in type(value).__mro__:
        slots = vars(cls).get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            if not _is_special(name) and hasattr(value, name):
                values[name] = getattr(value, name)
    yield from _attribute_parts(values, values)
    for base in (bool, int, float, complex, str, bytes):
        if isinstance(value, base):
            yield [base(value)]


def _library_parts(value):
    """Yield the parts of an object by what a copy of it would hold."""
    yield from ("library", [type(value)])
    for name in ("python_function", "__wrapped__"):  # tf.function, lru_cache
        if callable(getattr(value, name, None)):
            yield [getattr(value, name)]
            return
    if callable(getattr(value, "numpy", None)):  # a tensor
        yield from _array_parts(np.asarray(value.numpy()))
        return
    try:
        reducer = copyreg.dispatch_table.get(type(value))
        reduced = reducer(value) if reducer else value.__reduce_ex__(4)
    except Exception as error:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise Unidentifiable(f"an object of type {kind}") from error
    if isinstance(reduced, str):  # the name of a global
        yield from (str(getattr(value, "__module__", "")), reduced)
        return
    function, arguments, state, *items = (*reduced, None, None, None)[:5]
    yield [function, arguments]
    if isinstance(state, dict):  # its attributes, in the order in which they were set
        yield from _attribute_parts(state, state)
    else:
        yield [state]
    yield [None if part is None else list(part) for part in items]


# Objects of Keras


@functools.cache
def _keras_bases():
    """Return base classes of Keras, each with the attributes that Keras itself sets.

    These name an object, tie it to others or hold what its configuration says.
    """
    import keras

    inputs = keras.Input((1,))
    plain = {
        keras.layers.Layer: keras.layers.Layer(),
        keras.Model: keras.Model(inputs, inputs),
        keras.Sequential: keras.Sequential([inputs]),
        keras.losses.Loss: keras.losses.Loss(),
        keras.metrics.Metric: keras.metrics.Metric(),
        keras.optimizers.Optimizer: keras.optimizers.Optimizer(0.1),
        keras.callbacks.Callback: keras.callbacks.Callback(),
    }
    others = (
        keras.optimizers.schedules.LearningRateSchedule,
        keras.initializers.Initializer,
        keras.regularizers.Regularizer,
        keras.constraints.Constraint,
        keras.dtype_policies.DTypePolicy,
    )
    names = {base: frozenset(vars(instance)) for base, instance in plain.items()}
    return {**names, **{base: frozenset({"name"}) for base in others}}


def _is_of_keras(value):
    """Whether a value is a layer, a loss, an optimizer, a callback or the like."""
    return "keras" in sys.modules and isinstance(value, tuple(_keras_bases()))


def _keras_parts(value):
    """Yield the parts of an object of Keras that is no part of the network itself."""
    import keras

    yield from ("Keras", [type(value)])
    if isinstance(value, keras.Model):
        try:
            yield architecture(value, {})
        except Exception as error:
            raise Unidentifiable(f"a network without description ({error})") from error
    elif not isinstance(value, keras.callbacks.Callback):
        try:
            yield [_without_names(value.get_config())]
        except Exception as error:
            if not _is_own(value):  # else its attributes say all
                raise Unidentifiable(f"{value!r} without settings ({error})") from error
    if isinstance(value, keras.layers.Layer):
        yield list(value.variables)
    yield [OwnParts(value)]


def _without_names(config):
    """Return a configuration without names, which are counted through the process."""
    if isinstance(config, list | tuple):
        return [_without_names(item) for item in config]
    if not isinstance(config, dict):
        return config
    return {
        key: _without_names(item)
        for key, item in sorted(config.items())
        if key not in ("name", "registered_name", "shared_object_id")
    }


def _own_parts(stand_in):
    """Yield what is the user's own in an object of Keras, or in a container of them.

    Of a class of the user's own that is every attribute which Keras does not set,
    since nobody knows whether the configuration says all.
    """
    import keras

    value = stand_in.value
    if isinstance(value, list | tuple | dict):
        items = value.values() if isinstance(value, dict) else value
        yield from ("parts", [OwnParts(item) for item in items if not _is_empty(item)])
        return
    if not _is_of_keras(value):
        yield [value]
        return
    own, is_callback = _is_own(value), isinstance(value, keras.callbacks.Callback)
    yield from ("own", [type(value)] if own else [])
    known = [names for base, names in _keras_bases().items() if isinstance(value, base)]
    known = frozenset().union(*known) - {"activity_regularizer", "_learning_rate"}
    for name, attribute in sorted(vars(value).items()):
        if name in known or name.startswith(("_self_", "_obj_ref")):
            continue
        if is_callback:
            # An open file and the like: a checkpoint does not hold it, either.
            yield from (name, [Lenient(attribute)])
        elif own:
            yield from (name, [attribute])
        elif not _is_empty(attribute):
            yield from (name, [OwnParts(attribute)])
    if isinstance(value, keras.Model):
        yield [OwnParts(layer) for layer in value.layers]


def _is_empty(value):
    """Whether a value holds nothing of the user's own for certain."""
    import keras

    if isinstance(value, list | tuple | dict):
        return not value
    if isinstance(value, types.FunctionType):
        return not _is_own(value) and not value.__closure__
    if isinstance(value, keras.Variable | keras.KerasTensor):
        return True
    return not (callable(value) or _is_of_keras(value) or _is_own(value))


EXACTLY = {
    OwnParts: _own_parts,
    types.CodeType: _code_parts,
    types.FunctionType: _function_parts,
    types.MethodType: _method_parts,
    types.BuiltinFunctionType: _builtin_parts,
    property: _descriptor_parts,
    staticmethod: _descriptor_parts,
    classmethod: _descriptor_parts,
    list: _sequence_parts,
    tuple: _sequence_parts,
    dict: _mapping_parts,
    set: _set_parts,
    frozenset: _set_parts,
    types.MappingProxyType: _mapping_parts,
    bytes: lambda value: ("bytes", value),
    bytearray: lambda value: ("bytes", bytes(value)),
    weakref.ref: lambda value: ("reference", [value()]),
}
INSTANCES = (
    (types.ModuleType, _module_parts),
    (type, _class_parts),
    (MEANINGLESS, lambda value: (type(value).__name__,)),
)
CONTAINERS = (
    ((list, tuple), _sequence_parts),
    (dict, _mapping_parts),
    ((set, frozenset), lambda value: ("set", [frozenset(value)])),
    ((np.ndarray, np.generic), _array_parts),
)


def contents(value):
    """Yield the content of an object as text and bytes, and in lists what it holds."""
    if type(value) in EXACTLY:
        return EXACTLY[type(value)](value)
    for kinds, parts in INSTANCES:
        if isinstance(value, kinds):
            return parts(value)
    keras = sys.modules.get("keras")
    if keras and isinstance(value, keras.Variable):
        return _array_parts(value.numpy())
    if keras and isinstance(value, keras.KerasTensor):
        return ["symbol", str(value.shape), str(value.dtype)]
    if _is_of_keras(value):
        return _keras_parts(value)
    own = _is_own(value)
    for kinds, parts in CONTAINERS:
        tracked = type(value).__module__.startswith(("keras.", "numpy"))
        if isinstance(value, kinds) and (own or tracked):
            return [*parts(value), *(_instance_parts(value) if own else ())]
    return _instance_parts(value) if own else _library_parts(value)
