"""Networks in pickles and copies, with the user's own layers and functions in them.

Keras writes a network as text and weights. In the text the user's functions and classes
are but names, and a lambda is bytecode that has lost the names it refers to. So a
network is packed as this text, with a name of its own for every function, and a dict
from names to the functions and classes themselves. A pickle of that dict holds them by
reference where they can be imported, and otherwise by their code.
"""

import contextlib
import os
import sys
import tempfile
import types
import warnings
from copy import copy, deepcopy

import joblib
from sklearn.base import BaseEstimator

from .._runtime import LOCK, seeded

# Where Keras puts what belongs to the graph of a network, not to its settings.
OF_THE_GRAPH = frozenset(
    """
    _nodes _nodes_by_depth _operations _operations_by_depth _operations_by_name _inputs
    _outputs _inputs_struct _outputs_struct _layers _functional _inbound_nodes
    _outbound_nodes _tracker _parent_path build quantize _loss_tracker train_function
    test_function predict_function _skssl_traced _skssl_shared_seeds
    """.split()
)
# Attributes of an estimator that are parts of the networks in others.
OF_OTHERS = "_network", "backbone_"


def reason(error):
    """Say what went wrong; a library that met damaged data raises anything."""
    message = str(error).rstrip(".")
    if type(error) is not ValueError:
        message = f"{type(error).__name__}: {message}"
    message = " ".join(message.split())
    if len(message) > 500:  # Keras quotes whole networks, and the cause comes last
        message = f"{message[:250]} … {message[-250:]}"
    return message


def keras_file(model, folder):
    """Return a network as Keras saves it, by way of a file in a folder."""
    path = os.path.join(folder, "network.keras")
    with warnings.catch_warnings():
        # Keras converts its variables in a way that NumPy 2 warns about.
        warnings.filterwarnings("ignore", "__array__", DeprecationWarning)
        model.save(path)
    with open(path, "rb") as file:
        return file.read()


def _is_of_keras(value):
    return type(value).__module__.partition(".")[0] == "keras"


def _is_own_function(value):
    """Whether a value is a function that Keras cannot find by what it writes of it."""
    if isinstance(value, types.FunctionType):
        return not str(value.__module__).startswith("keras.")
    return (
        callable(value)
        and not isinstance(value, type)
        and not hasattr(value, "get_config")
        and not _is_of_keras(value)
    )


def _settings(value):
    """Yield the dicts in which an object of Keras keeps its settings."""
    values = getattr(value, "__dict__", None)
    if values is None:
        return
    yield values
    if values.get("_compile_config") is not None:
        yield values["_compile_config"].config


def _is_of_the_graph(name):
    return name in OF_THE_GRAPH or name.startswith(("_self_", "_obj_ref"))


def _parts(value, seen):
    """Yield all objects with a configuration in an object of Keras, itself first."""
    import keras

    if id(value) in seen or isinstance(value, keras.Variable | keras.KerasTensor | str):
        return
    seen[id(value)] = value
    if isinstance(value, list | tuple):
        inner = value
    elif isinstance(value, dict):
        inner = value.values()
    elif hasattr(type(value), "get_config"):
        yield value
        inner = [
            part
            for settings in _settings(value)
            for name, part in settings.items()
            if not _is_of_the_graph(name)
        ]
        inner += getattr(value, "layers", ()) if isinstance(value, keras.Model) else ()
    else:
        return
    for part in inner:
        yield from _parts(part, seen)


class _Names:
    """Gives every function a name of its own, and every class the one Keras gives it.

    Attributes
    ----------
    objects : dict
        The function or class of each name.
    """

    def __init__(self):
        self.objects = {}
        self.stand_ins = {}  # id of a function: what stands in for it

    def add_class(self, cls):
        import keras

        name = keras.saving.get_registered_name(cls)
        if self.objects.setdefault(name, cls) is not cls:
            raise TypeError(
                f"it has parts of two classes named {name!r}: give one of them another "
                "name"
            )

    def replaced(self, value):
        """Return a value with stand-ins for its functions; itself if it has none."""
        if _is_own_function(value):
            if id(value) not in self.stand_ins:
                name = f"skssl_function_{len(self.stand_ins)}"
                self.objects[name] = value
                self.stand_ins[id(value)] = _renamed(value, name)
            return self.stand_ins[id(value)]
        if type(value) in (list, tuple):
            items = [self.replaced(item) for item in value]
            changed = any(a is not b for a, b in zip(items, value, strict=True))
            return type(value)(items) if changed else value
        if type(value) is dict:
            items = {key: self.replaced(item) for key, item in value.items()}
            return items if any(items[k] is not value[k] for k in value) else value
        return value


def _renamed(function, name):
    """Return a function that does the same under another name."""
    if isinstance(function, types.FunctionType):
        renamed = types.FunctionType(
            function.__code__,
            function.__globals__,
            name,
            function.__defaults__,
            function.__closure__,
        )
        renamed.__kwdefaults__ = function.__kwdefaults__
    else:

        def renamed(*args, **kwargs):
            return function(*args, **kwargs)

        renamed.__name__ = name
    renamed.__module__ = "builtins"  # not a name to import
    return renamed


@contextlib.contextmanager
def named_functions(value):
    """Have every function in an object of Keras written by a name of its own.

    Meanwhile stand-ins that do the same are in the place of the functions.

    Parameters
    ----------
    value : keras.Model, keras.losses.Loss, dict, list, …
        An object of Keras, or a container of these.

    Returns
    -------
    value : object
        The same object, or a container with stand-ins.
    objects : dict
        The functions and classes of the user's own that it consists of, by name.
    """
    names, before = _Names(), []
    with LOCK:
        try:
            for part in _parts(value, {}):
                if not _is_of_keras(part):
                    names.add_class(type(part))
                for settings in _settings(part):
                    for name, setting in list(settings.items()):
                        if _is_of_the_graph(name):
                            continue
                        stand_in = names.replaced(setting)
                        if stand_in is not setting:
                            before.append((settings, name, setting))
                            settings[name] = stand_in
            yield names.replaced(value), names.objects
        finally:
            for settings, name, setting in before:
                settings[name] = setting


class Packed:
    """An object of Keras as bytes or text, with the user's code that it consists of.

    Parameters
    ----------
    content : bytes, dict or None
        A file in the `.keras` format, or the configuration of what is no network; None
        for code alone.
    objects : dict
        Functions and classes by the names that stand for them; of code alone it is
        called "code".
    """

    def __init__(self, content, objects):
        self.content = content
        self.objects = objects

    def __reduce__(self):
        try:
            wrapped = joblib.wrap_non_picklable_objects(self.objects, False)
            by_value = wrapped.__reduce__() if self.objects else (dict, ())
        except Exception as error:
            raise TypeError(
                "Layers or functions of your own cannot be pickled: "
                f"{reason(error)}. Define them in a module, and let them refer to what "
                "can be pickled."
            ) from error
        return _from_pickle, (self.content, *by_value)

    def __deepcopy__(self, memo):
        if self.content is None:
            return Packed(None, deepcopy(self.objects, memo))
        return self  # nothing changes it

    def __sklearn_clone__(self):
        return self

    def unpacked(self):
        """Return the object."""
        if self.content is None:
            return unpacked(self.objects["code"])
        import keras

        # No lambda is in the text: so nothing in it is code, and Keras may stay safe.
        with seeded(0), tempfile.TemporaryDirectory() as folder:
            if isinstance(self.content, dict):
                return keras.saving.deserialize_keras_object(
                    self.content, custom_objects=self.objects, safe_mode=True
                )
            path = os.path.join(folder, "network.keras")
            with open(path, "wb") as file:
                file.write(self.content)
            with warnings.catch_warnings():
                # An optimizer that has done no step has no state to read.
                warnings.filterwarnings("ignore", "Skipping variable loading")
                return keras.saving.load_model(path, custom_objects=self.objects)


def _from_pickle(content, load, arguments):
    return Packed(content, load(*arguments))


def _pack(value):
    """Pack one object of Keras; where it would not come back, say so."""
    import keras

    try:
        with named_functions(value) as (_, objects):
            if isinstance(value, keras.Model):
                with tempfile.TemporaryDirectory() as folder:
                    content = keras_file(value, folder)
            else:
                content = keras.saving.serialize_keras_object(value)
        packed = Packed(content, objects)
        if objects:
            packed.unpacked()
    except Exception as error:
        raise TypeError(
            f"{value!r} cannot be copied or pickled: {reason(error)}. Keras must be "
            "able to build it from its configuration: a layer of your own needs "
            "get_config with all arguments of its __init__."
        ) from error
    return packed


def packed(value):
    """Return a value in which all networks are packed; itself if it holds none.

    Parameters
    ----------
    value : object
        A parameter or a fitted attribute of an estimator, or a dict or list of these.

    Returns
    -------
    value : object
        A network, a loss, a metric, an optimizer as :class:`Packed`; a copy of what
        holds one; all else as it is.
    """
    if "keras" not in sys.modules:  # then there are none
        return value
    import keras

    kinds = keras.Model, keras.Loss, keras.Metric, keras.Optimizer
    if isinstance(value, kinds):
        return _pack(value)
    if isinstance(value, keras.callbacks.Callback):
        if vars(value).get("_model") is None:
            return value
        value = copy(value)
        value._model = None  # the network that it saw last, and its optimizer
        return value
    return _with_parts(value, packed)


def _code_packed(value):
    """Return a value in which functions and classes that no import finds are packed."""
    code = value if isinstance(value, types.FunctionType | type) else type(value)
    module, found = code.__module__, sys.modules.get(code.__module__)
    for name in code.__qualname__.split("."):
        found = getattr(found, name, None)
    if module != "builtins" and (found is not code or module == "__main__"):
        return Packed(None, {"code": value})
    return _with_parts(value, _code_packed)


def unpacked(value):
    """Return a value in which all networks are themselves again."""
    if isinstance(value, Packed):
        return value.unpacked()
    return _with_parts(value, unpacked)


def _with_parts(value, function):
    """Return a value with what a function makes of its parts; itself if all stay."""
    if type(value) in (list, tuple):
        items = [function(item) for item in value]
        same = all(a is b for a, b in zip(items, value, strict=True))
        return value if same else type(value)(items)
    if type(value) is dict:
        items = {key: function(item) for key, item in value.items()}
        return value if all(items[key] is value[key] for key in value) else items
    # An estimator that packs its own networks is left to do so.
    if isinstance(value, BaseEstimator) and not isinstance(value, PacksNetworks):
        attributes = _with_parts(vars(value), function)
        if attributes is not vars(value):
            value = copy(value)
            vars(value).update(attributes)
    return value


class PacksNetworks:
    """Gives an estimator pickles, copies and clones with the user's code in them."""

    def __getstate__(self):
        state = super().__getstate__().copy()
        for name in OF_OTHERS:
            state.pop(name, None)
        return {name: _code_packed(value) for name, value in packed(state).items()}

    def __setstate__(self, state):
        super().__setstate__(unpacked(state))
        if hasattr(self, "pretext_model_"):
            self.backbone_ = self.pretext_model_.get_layer("backbone")

    def __copy__(self):
        copied = type(self).__new__(type(self))
        vars(copied).update(vars(self))
        vars(copied).pop("_network", None)  # one of the two trains on
        return copied

    def __sklearn_clone__(self):
        stripped = copy(self)
        for name, value in self.get_params(deep=False).items():
            vars(stripped)[name] = packed(value)
        cloned = super(PacksNetworks, stripped).__sklearn_clone__()
        for name, value in cloned.get_params(deep=False).items():
            vars(cloned)[name] = unpacked(value)
        return cloned
