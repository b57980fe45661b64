"""The code of README and user guide, each page from its first block to its last."""

import importlib.util
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import skssl._training.stages as stages
from skssl.self_training import FixMatch

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.joinpath("docs").rglob("*.md"))]


@pytest.fixture
def few_steps(monkeypatch):
    """Make trainings with default settings end after a few steps."""
    for name in ("PRETRAIN_STEPS", "MIN_STEPS", "MIN_EPOCHS", "MIN_EPOCH_STEPS"):
        monkeypatch.setattr(stages, name, 1)
    monkeypatch.setattr(FixMatch, "_count_steps", lambda self, learner: 2)


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """Make the folder of photographs and the file of images that a page reads."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("photos/cat", "photos/dog", "photos/unlabelled", "new"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for k in range(6):
            pixels = rng.integers(256, size=(70, 80, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{k}.png")
    np.save(tmp_path / "images.npy", np.zeros((20, 8, 8), np.uint8))


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.M | re.S)


def is_installed(block):
    """Whether a block can run without packages that the guide tells to install."""
    names = re.findall(r"^import (faiss|onnxruntime|tf2onnx)$", block, re.M)
    return all(map(importlib.util.find_spec, names))


@pytest.mark.parametrize(
    "path", [x for x in PAGES if blocks(x, "python")], ids=lambda x: x.stem
)
def test_the_code_of_a_page_runs(path, few_steps, photographs, few_labels):
    names = dict(zip(("X", "y"), few_labels, strict=True))
    names["X_new"] = names["X"][:5]
    names["weights"] = None  # those of ImageNet would have to be downloaded
    for number, block in enumerate(blocks(path, "python"), 1):
        if is_installed(block):
            exec(compile(block, f"{path.name}, block {number}", "exec"), names)
    if path.stem == "own_network":
        network = names["resnet"]({"X_shape_": (None, 32, 32, 3), "n_classes_": 3})
        assert network.output_shape == (None, 3)


# The blocks that begin a process of their own.
FIRST = """
import numpy as np
from scikeras.wrappers import KerasClassifier
from sklearn.datasets import load_digits
from skssl import SelfSupervisedClassifier, build_cnn

X, y = load_digits(return_X_y=True)
X, y = X[:90], y[:90]
X_train, y_few = X, np.where(np.arange(90) < 60, y, -1)
network = KerasClassifier(build_cnn, epochs=1)
clf = SelfSupervisedClassifier(network, pretrain_epochs=1, self_training=None)
grid = {"frozen_layers": [0, "all"]}
"""
CLUSTER = """
from distributed import LocalCluster

with LocalCluster(n_workers=1, threads_per_worker=1) as cluster:
    exec(block.replace("tcp://scheduler:8786", cluster.scheduler_address))
"""
WORKERS = [
    pytest.param(block, id=f"{path.stem}, {number}")
    for path in PAGES
    for number, block in enumerate(blocks(path, "py"), 1)
]


@pytest.mark.parametrize("block", WORKERS)
def test_the_code_for_workers_runs(block):
    run = "exec(block)"
    if "tcp://scheduler:8786" in block:
        run = f"if __name__ == '__main__':{textwrap.indent(CLUSTER, '    ')}"
    # The strategy comes before anything else of TensorFlow, so in a process of its own.
    code = "\n".join([FIRST, f"block = {block!r}", run])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_links_between_pages_lead_somewhere():
    for path in PAGES:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text()):
            assert path.parent.joinpath(target).exists(), (path, target)
