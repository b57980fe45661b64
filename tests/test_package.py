import ast
import subprocess
import sys
from pathlib import Path

import skssl

PACKAGE = Path(skssl.__file__).parent
# From the bottom up; a module imports only what stands before it.
LAYERS = [
    "_docs",
    "_html",
    "_runtime",
    "_data/__init__",
    "_data/decoding",
    "_data/source",
    "_data/images",
    "_data/labels",
    "_data/training_set",
    "_labeling",
    "_model_selection",
    "augmentation",
    "_networks/__init__",
    "_networks/cnn",
    "_networks/packing",
    "_networks/graph",
    "_networks/copies",
    "_networks/identity",
    "_networks/settings",
    "_networks/training_copies",
    "_networks/trial",
    "_networks/surgery",
    "_networks/network",
    "_storage/__init__",
    "_storage/archive",
    "_storage/lock",
    "_storage/checkpoint",
    "_storage/cache",
    "_storage/image_cache",
    "_image_files",
    "_image_reader",
    "_base",
    "pretext/_base",
    "pretext/_views",
    "pretext/_rotation",
    "pretext/_jigsaw",
    "pretext/_masked",
    "pretext/_two_views",
    "pretext/_simclr",
    "pretext/_barlow_twins",
    "pretext/_combined",
    "pretext/__init__",
    "_training/__init__",
    "_training/distribution",
    "_training/batches",
    "_training/reuse",
    "_training/stages",
    "_training/consistency",
    "_training/callbacks",
    "_training/prediction",
    "_training/loop",
    "self_training/_base",
    "self_training/_fixmatch",
    "self_training/_spreading",
    "self_training/_auto",
    "self_training/__init__",
    "_encoder",
    "_classifier",
    "_load",
    "_conformity",
    "display/_placement",
    "display/_image_grid",
    "display/_embedding",
    "display/_label_efficiency",
    "display/_prediction",
    "display/_pretext",
    "display/_training_curve",
    "display/__init__",
    "__init__",
]

# A module is in one of these, or at the top; a package may still be to come.
PACKAGES = {
    "_data",
    "_networks",
    "_storage",
    "_training",
    "display",
    "pretext",
    "self_training",
}


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


def imports_by_text(path):
    """Yield the calls in a module that import the package's own modules by a text."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = getattr(function, "attr", None) or getattr(function, "id", None)
        if name not in ("import_module", "__import__"):
            continue
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        parts = [part for argument in arguments for part in ast.walk(argument)]
        names = {part.id for part in parts if isinstance(part, ast.Name)}
        texts = [part.value for part in parts if isinstance(part, ast.Constant)]
        if names & {"__package__", "__name__"} or any(
            str(text).startswith((".", "skssl")) for text in texts
        ):
            yield ast.unparse(node)


def test_no_module_of_the_package_is_imported_by_a_text(tmp_path):
    for path in PACKAGE.rglob("*.py"):
        assert list(imports_by_text(path)) == []
    found = [
        "importlib.import_module('skssl')",
        "import_module('._encoder', __package__)",
        "import_module(name, package=__name__)",
        "__import__('skssl._encoder')",
        "import_module(f'skssl.{name}')",
        "import_module(__package__ + name)",
    ]
    other = ["import_module('keras')", "import_module(name)", "print('skssl')"]
    (tmp_path / "module.py").write_text("\n".join([*found, *other]))
    assert list(imports_by_text(tmp_path / "module.py")) == found


def test_modules_are_in_the_packages_of_the_design():
    folders = {module.rpartition("/")[0] for module in LAYERS} - {""}
    assert folders <= PACKAGES
    assert all(f"{folder}/__init__" in LAYERS for folder in folders)


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


def test_the_citation_names_this_version():
    citation = Path(__file__).parents[1].joinpath("CITATION.cff").read_text()
    assert f"version: {skssl.__version__}\n" in citation
