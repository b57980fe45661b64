import ast
import subprocess
import sys
from pathlib import Path

import skssl

PACKAGE = Path(skssl.__file__).parent
# From the bottom up; a module imports only what stands before it.
LAYERS = [
    "_runtime",
    "_data/__init__",
    "_data/images",
    "_data/labels",
    "_data/training_set",
    "_model_selection",
    "pretext/_base",
    "pretext/_views",
    "pretext/_rotation",
    "pretext/__init__",
    "_networks/__init__",
    "_networks/cnn",
    "_networks/packing",
    "_networks/graph",
    "_networks/copies",
    "_networks/contents",
    "_networks/identity",
    "_networks/settings",
    "_networks/trial",
    "_networks/surgery",
    "_networks/network",
    "_storage/__init__",
    "_storage/archive",
    "_storage/checkpoint",
    "_storage/persistence",
    "_training/__init__",
    "_training/reuse",
    "_training/callbacks",
    "_training/loop",
    "_encoder",
    "_classifier",
    "display/_placement",
    "display/_image_grid",
    "display/_embedding",
    "display/_prediction",
    "display/_pretext",
    "display/_training_curve",
    "display/__init__",
    "__init__",
]


def imported_modules(path):
    """Return the package's own modules that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = path.parent
            for _ in range(node.level - 1):
                folder = folder.parent
            target = folder.joinpath(*(node.module or "").split("."))
            target = target / "__init__" if target.is_dir() else target
            yield target.relative_to(PACKAGE).as_posix()


def test_imports_go_one_way():
    modules = sorted(
        path.relative_to(PACKAGE).with_suffix("").as_posix()
        for path in PACKAGE.rglob("*.py")
    )
    assert modules == sorted(LAYERS)
    for position, module in enumerate(LAYERS):
        for target in imported_modules(PACKAGE / f"{module}.py"):
            assert target in LAYERS[:position], f"{module} imports {target}"


def test_importing_it_imports_neither_tensorflow_nor_pyplot():
    code = (
        "import sys, skssl\n"
        "from skssl import *\n"
        "slow = {'tensorflow', 'keras', 'scikeras', 'matplotlib.pyplot'}\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    output = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert output.strip() == "[]"


def test_every_public_name_is_there():
    for name in skssl.__all__:
        assert getattr(skssl, name).__doc__
