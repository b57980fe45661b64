import ast
import inspect
import itertools
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator

import skssl
from skssl import RotationPretext, SelfSupervisedClassifier, SelfSupervisedEncoder
from skssl._docs import TEXTS, fill_docstrings
from skssl.pretext import PretextTask

PUBLIC = {name: getattr(skssl, name) for name in skssl.__all__}
PUBLIC["PretextTask"] = PretextTask

# In the order in which numpydoc puts them.
SECTIONS = (
    "Parameters",
    "Attributes",
    "Returns",
    "Yields",
    "Raises",
    "See Also",
    "Notes",
    "References",
    "Examples",
)
# What rests on a paper.
FROM_PAPERS = {
    "BarlowTwinsPretext",
    "CombinedPretext",
    "JigsawPretext",
    "MaskedPretext",
    "RotationPretext",
    "SelfSupervisedClassifier",
    "SelfSupervisedEncoder",
    "SimCLRPretext",
    "suggest_to_label",
}
ENTRY = re.compile(r"(?P<names>\*{0,2}\w+(, \w+)*)( : (?P<kind>.*))?")


def sections(documented):
    """Return name to lines of the sections of a docstring."""
    lines = (inspect.getdoc(documented) or "").splitlines()
    starts = [k for k, line in enumerate(lines[1:]) if re.fullmatch("-{3,}", line)]
    return {
        lines[start]: lines[start + 2 : end]
        for start, end in itertools.pairwise([*starts, len(lines)])
    }


def entries(lines):
    """Return name to type of the entries of a section, each described."""
    found = {}
    for k, line in enumerate(lines):
        if line and not line.startswith(" "):
            match = ENTRY.fullmatch(line)
            assert match, f"no entry: {line!r}"
            assert lines[k + 1].startswith("    "), f"{line!r} is not described"
            for name in match["names"].split(", "):
                assert name not in found
                found[name] = match["kind"] or ""
    return found


def documented_default(kind):
    """Return the default that a type line states, `empty` where it states none."""
    match = re.search(r"\bdefault=(.*)$", kind)
    if match and match[1] == "np.nan":
        return np.nan
    return ast.literal_eval(match[1]) if match else inspect.Parameter.empty


def check_parameters(function, lines, skip=0):
    """Compare names, order and defaults with the signature."""
    documented = entries(lines)
    parameters = list(inspect.signature(function).parameters.values())[skip:]
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    names = [stars.get(x.kind, "") + x.name for x in parameters]
    assert list(documented) == names
    for parameter, kind in zip(parameters, documented.values(), strict=True):
        if kind == "None":  # ignored, and there for compatibility
            assert parameter.default is None
            continue
        default = documented_default(kind)
        assert type(default) is type(parameter.default), parameter.name
        same = default is parameter.default or default == parameter.default
        assert same, parameter.name


def public_methods():
    """Yield the public methods that skssl itself writes, once each."""
    seen = set()
    for class_name, cls in PUBLIC.items():
        for name, method in inspect.getmembers(cls, callable) if is_class(cls) else ():
            function = inspect.unwrap(getattr(method, "__func__", method))
            if (
                not name.startswith("_")
                and inspect.isfunction(function)
                and function.__module__.startswith("skssl.")
                and function not in seen
            ):
                seen.add(function)
                yield pytest.param(method, function, id=f"{class_name}.{name}")


def is_class(documented):
    return inspect.isclass(documented)


def nodes_of(function):
    """Return the syntax tree of a function's own lines as a list."""
    return list(ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))))


def returns_a_value(function):
    returns = (node for node in nodes_of(function) if isinstance(node, ast.Return))
    return any(node.value is not None for node in returns)


def raised(function):
    """Return the names of the exceptions that a function's own lines raise."""
    calls = (node.exc for node in nodes_of(function) if isinstance(node, ast.Raise))
    return {x.func.id for x in calls if isinstance(x, ast.Call)}


def check_sections(found):
    assert set(found) <= set(SECTIONS)
    assert list(found) == [x for x in SECTIONS if x in found]
    for name, lines in found.items():
        assert any(map(str.strip, lines)), f"{name} is empty"


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented_whole(name):
    found = sections(PUBLIC[name])
    check_sections(found)
    assert {"See Also", "Examples"} <= set(found)
    assert any(line.startswith(">>> ") for line in found["Examples"])
    if name in FROM_PAPERS:
        assert any("arXiv:" in line for line in found["References"])
        assert "[1]_" in inspect.getdoc(PUBLIC[name])
    parameters = inspect.signature(PUBLIC[name]).parameters
    assert ("Parameters" in found) == bool(parameters)
    if parameters:
        check_parameters(PUBLIC[name], found["Parameters"])
    if not is_class(PUBLIC[name]):
        assert ("Returns" in found) == returns_a_value(PUBLIC[name])
        assert raised(PUBLIC[name]) <= set(entries(found.get("Raises", [])))


@pytest.mark.parametrize(("method", "function"), list(public_methods()))
def test_public_methods_are_documented_whole(method, function):
    found = sections(method)
    check_sections(found)
    bound = not inspect.ismethod(method)  # a class method shows no cls
    parameters = list(inspect.signature(method).parameters)[bound:]
    assert ("Parameters" in found) == bool(parameters)
    if parameters:
        check_parameters(method, found["Parameters"], skip=bound)
    yields = any(isinstance(x, ast.Yield) for x in nodes_of(function))
    abstract = getattr(function, "__isabstractmethod__", False)
    assert ("Returns" in found) == (returns_a_value(function) or abstract)
    assert ("Yields" in found) == yields
    assert raised(function) <= set(entries(found.get("Raises", [])))


@pytest.mark.parametrize("name", [name for name in PUBLIC if is_class(PUBLIC[name])])
def test_properties_are_described(name):
    for key, value in inspect.getmembers(PUBLIC[name], inspect.isdatadescriptor):
        if isinstance(value, property) and not key.startswith("_"):
            assert inspect.getdoc(value), key


def fitted_attributes(estimator):
    return {x for x in vars(estimator) if x.endswith("_") and not x.startswith("_")}


def test_fit_sets_the_attributes_that_are_documented(digits, quick):
    X, y = digits[0][:40].reshape(40, -1), digits[1][:40]
    X = pd.DataFrame(X, columns=[f"pixel{k}" for k in range(64)])
    estimators = [
        RotationPretext(),
        SelfSupervisedEncoder(quick(), epochs=1),
        SelfSupervisedClassifier(quick(), pretrain_epochs=1),
        SelfSupervisedClassifier(quick(), pretrain_epochs=0),
    ]
    for estimator in estimators:
        documented = entries(sections(type(estimator))["Attributes"])
        assert fitted_attributes(estimator) == set()
        estimator.fit(X, y)
        assert fitted_attributes(estimator) == set(documented)
        estimator.fit(np.asarray(X), y)
        assert fitted_attributes(estimator) == set(documented) - {"feature_names_in_"}


def test_displays_set_the_attributes_that_are_documented():
    import matplotlib.pyplot as plt

    images, labels = np.zeros((2, 4, 4, 1)), ["a", "b"]
    displays = [
        skssl.PretextDisplay(images, labels, labels),
        skssl.PredictionDisplay(images, labels, labels),
        skssl.TrainingCurveDisplay({"pretraining": {"loss": [1.0]}}),
        skssl.EmbeddingDisplay(np.zeros((2, 2)), labels),
        skssl.LabelEfficiencyDisplay([10, 20], {"a": np.zeros((2, 3))}),
    ]
    shown = {x for x in PUBLIC.values() if is_class(x) and hasattr(x, "plot")}
    assert shown == set(map(type, displays))
    for display in displays:
        assert fitted_attributes(display) == set()
        documented = entries(sections(type(display))["Attributes"])
        assert fitted_attributes(display.plot()) == set(documented)
        plt.close(display.figure_)


def test_every_estimator_is_held_against_its_attributes():
    estimators = {
        name
        for name, x in PUBLIC.items()
        if is_class(x) and issubclass(x, BaseEstimator)
    }
    from_papers = {name for name in FROM_PAPERS if is_class(PUBLIC[name])}
    without_attributes = {"ImageReader", "PretextTask"}
    assert estimators == from_papers | without_attributes


def test_shared_texts_are_used_more_than_once():
    folder = Path(skssl.__file__).parent
    sources = "\n".join(path.read_text() for path in folder.rglob("*.py"))
    uses = re.findall(r"(?m)^ +\{(\w+)\}$", sources)
    assert set(uses) == set(TEXTS) == set(re.findall(r"(?m)^\{(\w+)\}$", sources))
    assert [name for name in TEXTS if uses.count(name) < 2] == []


def test_no_placeholder_is_left_in_a_public_docstring():
    for cls in filter(is_class, PUBLIC.values()):
        for documented in [cls, *(x for _, x in inspect.getmembers(cls))]:
            assert not re.search(r"(?m)^ *\{\w+\}$", documented.__doc__ or "")


def test_docstrings_are_filled_where_they_are_written():
    @fill_docstrings
    class Documented:
        """Have {braces} of its own.

        {figure}
            With more on it.
        """

        @classmethod
        def make(cls):
            """Make one.

            {y_ignored}
            """

    @fill_docstrings
    class Derived(Documented):
        pass

    assert inspect.getdoc(Documented).splitlines() == [
        "Have {braces} of its own.",
        "",
        *TEXTS["figure"].splitlines(),
        "    With more on it.",
    ]
    assert inspect.getdoc(Derived.make).endswith("\n\ny : None\n    Ignored.")
    assert Derived.__doc__ is None

    def misspelt():
        """{figures}"""

    with pytest.raises(KeyError, match="figures"):
        fill_docstrings(misspelt)


def test_it_imports_where_python_drops_docstrings():
    code = "import skssl; print(skssl.RotationPretext().fit([[[0]]]).__doc__)"
    output = subprocess.check_output([sys.executable, "-OO", "-c", code], text=True)
    assert output.strip() == "None"
