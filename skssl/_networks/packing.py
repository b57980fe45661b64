"""Networks in pickles and copies, with the user's own layers and functions in them.

Keras writes a network as text and weights. In the text the user's functions and classes
are only names, and a lambda is bytecode without the globals that it uses. So a
network is packed as this text, with a unique name for every function, and a dict
from names to the functions and classes themselves. A pickle of that dict holds them by
reference where they can be imported, and otherwise by their code.

This is the only module that uses the functions behind the pickles of Keras,
`_save_model_to_fileobj` and `_load_model_from_fileobj`: other than these pickles, it
loads in safe mode and with the user's classes at hand.
"""

import contextlib
import functools
import io
import sys
import types
import warnings
from copy import copy, deepcopy

import joblib
from sklearn.base import BaseEstimator

from .._runtime import LOCK, seeded

# Functions in a network that are not among its settings, beside methods of its class.
TRACED_FUNCTIONS = "train_function test_function predict_function _skssl_traced".split()


def error_summary(error):
    """Say what went wrong; libraries raise errors of any type on damaged data."""
    message = str(error).rstrip(".")
    if type(error) is not ValueError:
        message = f"{type(error).__name__}: {message}"
    message = " ".join(message.split())
    if len(message) > 500:  # Keras quotes whole networks, and the cause comes last
        message = f"{message[:250]} … {message[-250:]}"
    return message


def _with_parts(value, function):
    """Return a value with what a function makes of its parts; itself if all stay."""
    if type(value) in (list, tuple):
        items = [function(item) for item in value]
        same = all(a is b for a, b in zip(items, value, strict=True))
        return value if same else type(value)(items)
    if type(value) is dict:
        items = {key: function(item) for key, item in value.items()}
        return value if all(items[key] is value[key] for key in value) else items
    # An estimator that packs its own networks does so itself.
    packs_itself = getattr(value, "_packs_networks", False)
    if isinstance(value, BaseEstimator) and not packs_itself:
        attributes = _with_parts(vars(value), function)
        if attributes is not vars(value):
            value = copy(value)
            vars(value).update(attributes)
    return value


# Names for the user's functions and classes


def is_of_keras(thing):
    """Return whether a class, or a function, comes with Keras."""
    return f"{thing.__module__}.".startswith("keras.")


def _is_own_function(value):
    """Whether a value is a function that Keras cannot find by what it writes of it."""
    named = value if isinstance(value, types.FunctionType) else type(value)
    is_function = callable(value) and not isinstance(value, type)
    return is_function and not is_of_keras(named)


def _renamed(function, name):
    """Return a function that does the same under another name."""

    @functools.wraps(function)
    def renamed(*args, **kwargs):
        return function(*args, **kwargs)

    renamed.__name__ = name
    renamed.__module__ = "builtins"  # not a name to import
    return renamed


class _Naming:
    """Puts stand-ins with unique names in the place of the user's functions.

    Attributes
    ----------
    objects : dict
        The user's functions and classes by the names that Keras writes.
    """

    def __init__(self):
        self.objects = {}
        self.stand_ins = {}  # id of a value: the value and what stands in for it
        self.replaced = []  # (settings, name, value before)

    def stand_in(self, value):
        """Return what is written in place of a value: itself, apart from functions."""
        if id(value) not in self.stand_ins:
            self.stand_ins[id(value)] = value, value  # a cycle ends here
            self.stand_ins[id(value)] = value, self._stand_in(value)
        return self.stand_ins[id(value)][1]

    def _stand_in(self, value):
        if hasattr(type(value), "get_config"):
            self._replace_functions(value)
        elif _is_own_function(value):
            name = f"skssl_function_{len(self.objects)}"
            self.objects[name] = value
            return _renamed(value, name)
        # Keras keeps what an attribute lists in containers of classes of its own.
        for kind in (list, tuple, dict):
            if isinstance(value, kind):
                parts = value if type(value) is kind else kind(value)
                replaced = _with_parts(parts, self.stand_in)
                return value if replaced is parts else replaced
        return value

    def _replace_functions(self, value):
        """Replace the functions among the settings of an object of Keras."""
        import keras

        if not is_of_keras(type(value)):
            self._add_class(type(value))
        compiled = getattr(value, "_compile_config", None)
        attributes = getattr(value, "__dict__", {})
        for settings in filter(None, [attributes, compiled and compiled.config]):
            for name, setting in list(settings.items()):
                # Keras keeps wrapped methods as attributes, TensorFlow its own lists.
                is_method = callable(getattr(keras.Layer, name, None))
                if is_method or name in TRACED_FUNCTIONS or name.startswith("_self_"):
                    continue
                stand_in = self.stand_in(setting)
                if stand_in is not setting:
                    self.replaced.append((settings, name, setting))
                    settings[name] = stand_in

    def _add_class(self, cls):
        import keras

        name = keras.saving.get_registered_name(cls)
        if self.objects.setdefault(name, cls) is not cls:
            raise TypeError(
                f"it has parts of two classes named {name!r}: give one of them another "
                "name"
            )


@contextlib.contextmanager
def named_functions(value):
    """Have every function in an object of Keras written by a unique name.

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
    naming = _Naming()
    with LOCK:
        try:
            yield naming.stand_in(value), naming.objects
        finally:
            for settings, name, setting in naming.replaced:
                settings[name] = setting


# Networks as bytes


class _ByValue:
    """Functions and classes, which a pickle holds by value if no import finds them."""

    def __init__(self, code):
        self.code = code

    def __reduce__(self):
        try:
            by_value = joblib.wrap_non_picklable_objects([self.code], False)
            return _from_pickle, by_value.__reduce__()
        except Exception as error:
            raise TypeError(
                "Layers or functions of your own cannot be pickled: "
                f"{error_summary(error)}. Define them in a module, and let them refer "
                "to what can be pickled."
            ) from error

    def __deepcopy__(self, memo):
        return deepcopy(self.code, memo)

    def unpacked(self):
        """Return the code."""
        return self.code


def _from_pickle(load, arguments):
    (code,) = load(*arguments)
    return code


class Packed:
    """An object of Keras as bytes, with the user's code that it consists of.

    Parameters
    ----------
    content : bytes
        A file in the `.keras` format.
    objects : dict
        Functions and classes by the names that stand for them.
    """

    def __init__(self, content, objects):
        self.content = content
        self.objects = objects

    def __reduce__(self):
        return Packed, (self.content, _ByValue(self.objects) if self.objects else {})

    def __deepcopy__(self, memo):
        return self  # nothing changes it

    def unpacked(self):
        """Return the object."""
        from keras.src.saving import saving_lib

        # The text holds no lambda, so Keras can load it in safe mode.
        with seeded(0), warnings.catch_warnings():
            # An optimizer that has done no step has no state to read.
            warnings.filterwarnings("ignore", "Skipping variable loading")
            return saving_lib._load_model_from_fileobj(
                io.BytesIO(self.content), self.objects, compile=True, safe_mode=True
            )


def _pack(value):
    """Pack one object of Keras; where it would not come back, say so."""
    from keras.src.saving import saving_lib

    file = io.BytesIO()
    try:
        with named_functions(value) as (_, objects), warnings.catch_warnings():
            # Keras converts its variables in a way that NumPy 2 warns about.
            warnings.filterwarnings("ignore", "__array__", DeprecationWarning)
            saving_lib._save_model_to_fileobj(value, file, "h5")
        packed = Packed(file.getvalue(), objects)
        if objects:
            packed.unpacked()
    except Exception as error:
        raise TypeError(
            f"{value!r} cannot be copied or pickled: {error_summary(error)}. Keras "
            "must be able to build it from its configuration: a layer of your own "
            "needs get_config with all arguments of its __init__."
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
    if "keras" not in sys.modules:  # then there is no network
        return value
    import keras

    if isinstance(value, keras.Model | keras.Loss | keras.Metric | keras.Optimizer):
        return _pack(value)
    if isinstance(value, keras.callbacks.Callback):
        if vars(value).get("_model") is None:
            return value
        value = copy(value)
        value._model = None  # the network that it saw last, and its optimizer
        return value
    return _with_parts(value, packed)


def code_packed(value):
    """Return a value in which functions and classes that no import finds are packed."""
    code = value if isinstance(value, types.FunctionType | type) else type(value)
    module, found = code.__module__, sys.modules.get(code.__module__)
    for name in code.__qualname__.split("."):
        found = getattr(found, name, None)
    if module != "builtins" and (found is not code or module == "__main__"):
        return _ByValue(value)
    return _with_parts(value, code_packed)


def unpacked(value):
    """Return a value in which all networks are themselves again."""
    if isinstance(value, Packed | _ByValue):
        return value.unpacked()
    return _with_parts(value, unpacked)
