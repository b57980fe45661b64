"""The code of README and user guide, each page from its first block to its last."""

import re
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


def blocks(path):
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S)


@pytest.mark.parametrize("path", [x for x in PAGES if blocks(x)], ids=lambda x: x.stem)
def test_the_code_of_a_page_runs(path, few_steps, photographs):
    names = {"weights": None}  # those of ImageNet would have to be downloaded
    for number, block in enumerate(blocks(path), 1):
        exec(compile(block, f"{path.name}, block {number}", "exec"), names)
    if path.stem == "own_network":
        network = names["resnet"]({"X_shape_": (None, 32, 32, 3), "n_classes_": 3})
        assert network.output_shape == (None, 3)


def test_links_between_pages_lead_somewhere():
    for path in PAGES:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text()):
            assert path.parent.joinpath(target).exists(), (path, target)
