"""
Embeddings: clusters, near duplicates, outliers
===============================================

A pretrained network turns images into embeddings, on which everything in scikit-learn
works. Here no label is used at all: digits are clustered, and images that are nearly
the same are found, and those that are like no others.
"""

# %%
# Embeddings
# ----------

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score, roc_auc_score
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors

from skssl import EmbeddingDisplay, SelfSupervisedEncoder, SimCLRPretext

X, y = load_digits(return_X_y=True)
encoder = SelfSupervisedEncoder(pretext=SimCLRPretext(), batch_size=256, random_state=0)
embeddings = encoder.fit_transform(X)
print(f"{len(X)} images, embeddings of {embeddings.shape[1]} numbers")

# %%
# Clusters
# --------
# The adjusted Rand score compares clusters with the digits: 1 is the same, 0 chance.

for name, features in {"pixels": X, "embeddings": embeddings}.items():
    clusters = KMeans(10, n_init=10, random_state=0).fit_predict(features)
    print(f"clusters of {name:11} {adjusted_rand_score(y, clusters):.2f}")
EmbeddingDisplay.from_embeddings(embeddings, clusters)

# %%
# Near duplicates
# ---------------
# Someone has added 100 images that are there already, shifted by half a pixel. For
# each the most similar image is looked up. Embeddings forgive what the augmentation of
# SimCLR does to images, such as shifts. They would not forgive a change of brightness,
# which it leaves out in grey images.

rng = np.random.default_rng(0)
originals = rng.permutation(len(X))[:100]
images = X[originals].reshape(-1, 8, 8)
copies = (images + np.roll(images, 1, axis=2)) / 2

found = {}
for name, features, queries in [
    ("pixels", X, copies.reshape(-1, 64)),
    ("embeddings", embeddings, encoder.transform(copies.reshape(-1, 64))),
]:
    neighbors = NearestNeighbors(n_neighbors=1, metric="cosine").fit(features)
    found[name] = neighbors.kneighbors(queries, return_distance=False)[:, 0]
    print(f"found by {name:11} {np.mean(found[name] == originals):.0%}")

figure, axes = plt.subplots(3, 8, figsize=(8, 3.4), layout="constrained")
rows = {"copy": copies, "original": X[originals], "found": X[found["embeddings"]]}
for axes_of_row, (name, images) in zip(axes, rows.items(), strict=True):
    for ax, image in zip(axes_of_row, images, strict=False):
        ax.imshow(image.reshape(8, 8), cmap="gray_r")
        ax.set(xticks=[], yticks=[])
    axes_of_row[0].set_ylabel(name)

# %%
# Unusual images
# --------------
# scikit-learn's detectors of outliers give each image a score, which is lower the more
# unusual it is. Here each digit of one kind is unusual, since none was seen before. On
# small, centred digits pixels do better than embeddings: try both on your images.

for unseen in 3, 8:
    seen = X[y != unseen]
    encoder = SelfSupervisedEncoder(random_state=0).fit(seen[:1200])
    others, strangers = seen[1200:], X[y == unseen]
    is_seen = np.repeat([True, False], [len(others), len(strangers)])
    for name, transform in {
        "pixels": np.asarray,
        "embeddings": encoder.transform,
    }.items():
        detector = LocalOutlierFactor(novelty=True).fit(transform(seen[:1200]))
        scores = detector.score_samples(transform(np.vstack([others, strangers])))
        print(f"{unseen} unseen, {name:11} AUC {roc_auc_score(is_seen, scores):.2f}")

# %%
# The most unusual of all digits, each judged by its neighbours among the others.

detector = LocalOutlierFactor().fit(embeddings)
order = np.argsort(detector.negative_outlier_factor_)
figure, axes = plt.subplots(1, 10, figsize=(10, 1.4), layout="constrained")
for ax, image, digit in zip(axes, X[order], y[order], strict=False):
    ax.imshow(image.reshape(8, 8), cmap="gray_r")
    ax.set(xticks=[], yticks=[], title=digit)
plt.show()
