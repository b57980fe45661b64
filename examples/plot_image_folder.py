"""
From a folder of images to a classifier
=======================================

Most images are files. Sub-folders name the classes, and images without a label lie in
the folder itself. This example writes such a folder first; put yours in its place.
"""

# %%
# A folder of images
# ------------------

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

folder = Path(tempfile.mkdtemp())
X, y = load_digits(return_X_y=True)
names = np.array("zero one two three four five six seven eight nine".split())
for k, image in enumerate(X[:800].reshape(-1, 8, 8)):
    place = folder / names[y[k]] if k < 100 else folder
    place.mkdir(exist_ok=True)
    Image.fromarray((image * 15).astype(np.uint8)).save(place / f"{k}.png")
print(sorted(path.name for path in folder.iterdir())[-12:])

# %%
# Two lines
# ---------

from skssl import (
    ImageReader,
    PredictionDisplay,
    SelfSupervisedClassifier,
    load_image_files,
)

data = load_image_files(folder, image_shape=(16, 16), color="grayscale")
clf = SelfSupervisedClassifier(unlabeled_label="unlabelled", random_state=0)
clf.fit(data.images, data.target)

# %%
# What the files without a label show
# -----------------------------------
# ``transduction_`` has a label for every file. Here the truth is known.

unlabelled = data.target == "unlabelled"
files = np.array([Path(name).stem for name in data.filenames])[unlabelled].astype(int)
found = clf.transduction_[unlabelled]
print(f"right: {np.mean(found == names[y[files]]):.3f} of {len(files)} files")
PredictionDisplay.from_predictions(
    data.images[unlabelled], names[y[files]], found, n_samples=10, random_state=0
)

# %%
# New files
# ---------
# ``ImageReader`` reads paths in the same way, alone or in a pipeline.

reader = ImageReader((16, 16), color="grayscale")
some = [data.filenames[k] for k in np.flatnonzero(unlabelled)[:5]]
print(clf.predict(reader.fit_transform(some)))
plt.show()
