import base64
import io
import os
import re

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import sklearn
from nbclient import NotebookClient
from networks import two_stages

CELLS = [
    """\
import numpy as np
from sklearn.datasets import load_digits
from skssl import SelfSupervisedClassifier
from skssl.self_training import FixMatch

X, y = load_digits(return_X_y=True)
X, y = X[:150], np.where(np.arange(150) < 50, y[:150], -1)
clf = SelfSupervisedClassifier(
    pretrain_epochs=2, self_training=FixMatch(n_steps=120), verbose=2, random_state=0
)
clf.fit(X, y)""",
    """\
import matplotlib.pyplot as plt
from skssl import PredictionDisplay

with plt.style.context("dark_background"):
    PredictionDisplay.from_estimator(clf, X, y)""",
]
TABLE = re.compile('<table class="skssl-training">.*</table>')


def cells_of(html):
    rows = re.findall("<tr>(.*?)</tr>", TABLE.search(html)[0])
    return [re.findall("<t[dh]>(.*?)</t[dh]>", row) for row in rows]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """What the cells of a notebook print and show, run in a Jupyter kernel."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    folder = str(tmp_path_factory.mktemp("notebook"))
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": folder}},
    )
    backend = "module://matplotlib_inline.backend_inline"
    client.execute(env={**os.environ, "MPLBACKEND": backend})
    return [cell.outputs for cell in notebook.cells]


def test_a_notebook_shows_the_progress_of_all_stages(outputs):
    text = "".join(x.text for x in outputs[0] if x.output_type == "stream")
    for stage in "Pretraining: RotationPretext", "Fine-tuning", "Self-training, part 1":
        assert re.search(rf"{stage}.* on \d+ .*\n+Epoch 1/\d+\n", text), text


def test_a_notebook_shows_how_a_classifier_was_trained(outputs):
    html = next(x.data["text/html"] for x in outputs[0] if "data" in x)
    header, *rows = cells_of(html)
    assert header == ["stage", "epochs", "final loss", "seconds"]
    assert [row[:2] for row in rows] == [
        ["pretraining", "2"],
        ["fine-tuning", "20"],
        ["self-training", "2"],
    ]
    assert all(float(row[2]) > 0 and float(row[3]) > 0 for row in rows)


def test_a_notebook_shows_pictures(outputs):
    (picture,) = (x for x in outputs[1] if x.output_type == "display_data")
    image = plt.imread(io.BytesIO(base64.b64decode(picture.data["image/png"])))
    assert min(image.shape[:2]) > 100
    assert np.ptp(image[..., :3]) == 1


def test_what_was_not_trained_shows_no_table(few_labels, quick):
    clf = two_stages(quick(), pretrain_epochs=1, random_state=0)
    assert not TABLE.search(clf._repr_html_())
    clf.fit(*few_labels)
    assert [row[0] for row in cells_of(clf._repr_html_())] == [
        "stage",
        "pretraining",
        "fine-tuning",
    ]
    assert cells_of(clf.encoder_._repr_html_())[1][0] == "pretraining"
    clf.partial_fit(*few_labels)  # whose time is not measured
    assert cells_of(clf._repr_html_())[0] == ["stage", "epochs", "final loss"]
    with sklearn.config_context(display="text"):
        assert "text/html" not in clf._repr_mimebundle_()
