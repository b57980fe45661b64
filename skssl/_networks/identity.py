"""What tells one training from another: the user's own code as it runs, and values.

The code is read from the functions and classes in memory, and not from their files,
which may have been edited since. A function is its bytecode, its constants, defaults
and closure, and whatever it refers to by name; where it is written does not count. Code
of the libraries below is known by its name: their versions are part of a fingerprint.

All that is reached makes a graph, in which every object is its own content and
references to others. So there is no recursion, and a cycle is nothing special.
"""

import types

from .contents import (
    PLAIN,
    Lenient,
    OwnParts,
    Unidentifiable,
    content_hash,
    contents,
    plain_content,
)

# Whoever reaches more objects than this reaches something that is not about training.
MAX_OBJECTS = 50_000


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
    return _Graph(objects).digest()


def own_code(model, compile_kwargs):
    """Return a digest of the user's own code in a network and its settings.

    The settings of Keras's own objects are left out, since the architecture says them.

    Parameters
    ----------
    model : keras.Model
        A network.
    compile_kwargs : dict
        Arguments of `keras.Model.compile`.

    Returns
    -------
    digest : str
        As that of :func:`identity`.
    """
    settings = [
        [name, OwnParts(compile_kwargs[name])] for name in sorted(compile_kwargs)
    ]
    return _Graph([OwnParts(model), settings]).digest()


class _Graph:
    """Everything that some objects reach."""

    def __init__(self, objects):
        self.values = {}  # id: object, which keeps the id its own
        self.contents = {}  # id: (hash of what it is by itself, ids of what it holds)
        self.stand_ins = {}  # id: OwnParts of that object
        self.lenient = set()  # (id, position) of references to what may be unknown
        self.unknown = {}  # id: what cannot be told
        self.root = self.reference(list(objects))
        pending = [self.root]
        while pending:
            key = pending.pop()
            if key not in self.contents:
                pending += self.add(key)
                if len(self.values) > MAX_OBJECTS:
                    raise Unidentifiable(f"more than {MAX_OBJECTS} objects")

    def reference(self, value):
        if type(value) is OwnParts:  # one for each object
            value = self.stand_ins.setdefault(id(value.value), value)
        self.values[id(value)] = value
        return id(value)

    def add(self, key):
        """Note the content of an object, and return the ids of what it holds."""
        value, local, references = self.values[key], [], []
        try:
            for part in contents(value):
                if isinstance(part, str | bytes):
                    local.append(part)
                    continue
                local.append(f"{len(part)} references")
                for item in part:
                    is_lenient = type(item) is Lenient
                    item = item.value if is_lenient else item
                    if type(item) in PLAIN:
                        local.append(plain_content(item))
                        continue
                    if is_lenient:
                        self.lenient.add((key, len(references)))
                    references.append(self.reference(item))
        except Exception as error:  # of the user's objects, which may raise anything
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            expected = isinstance(error, Unidentifiable)
            self.unknown[key] = str(error) if expected else f"{kind} ({error})"
            local, references = ["unknown"], []
        self.contents[key] = content_hash(*local), references
        return references

    def check_known(self):
        """Raise where something unknown is held by what has to be known."""
        pending, owners = [self.root], {self.root: None}
        while pending:
            key = pending.pop()
            if key in self.unknown:
                raise Unidentifiable(
                    f"{self.unknown[key]}{self.named_owner(key, owners)}"
                )
            for position, other in enumerate(self.contents[key][1]):
                if other not in owners and (key, position) not in self.lenient:
                    owners[other] = key
                    pending.append(other)

    def named_owner(self, key, owners):
        while key is not None:
            value = self.values[key]
            if isinstance(value, types.FunctionType | type):
                return f" in {value.__qualname__}"
            key = owners[key]
        return ""

    def digest(self):
        """Return a hash of the whole graph, whatever the order of its objects."""
        self.check_known()
        colors, n_colors = {key: x for key, (x, _) in self.contents.items()}, 0
        # An object is told from another by what it holds, and that by what that holds,
        # until no more of them are told apart.
        while len(set(colors.values())) > n_colors:
            n_colors = len(set(colors.values()))
            colors = {key: self.color(key, colors) for key in colors}
        return content_hash(colors[self.root], *sorted(set(colors.values()))).hex()

    def color(self, key, colors):
        local, references = self.contents[key]
        parts = [colors[other] for other in references]
        if type(self.values[key]) in (set, frozenset):
            parts.sort()
        return content_hash(local, *parts)
