"""
Explaining a prediction
=======================

``model_`` is a Keras network, so whatever explains Keras networks explains a
classifier. Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) asks which places of a
feature map speak for the predicted class: it weights each channel by the mean gradient
of the output of that class, and adds the channels up.
"""

# %%
# A fitted classifier
# -------------------

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

from skssl import SelfSupervisedClassifier

X, y = load_digits(return_X_y=True)
X = X.reshape(-1, 8, 8, 1)
clf = SelfSupervisedClassifier(self_training=None, random_state=0)
clf.fit(X[:1000], np.where(np.arange(1000) < 200, y[:1000], -1))
print(f"accuracy {clf.score(X[1000:], y[1000:]):.3f}")

# %%
# Feature maps and output of the same images
# ------------------------------------------
# The layers of the network are in the layer "backbone" of ``model_``.

backbone = clf.model_.get_layer("backbone")
convolution = [
    layer for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D)
][-1]
inputs = clf.model_.input
parts = keras.Model(backbone.input, [convolution.output, backbone.output])
head = clf.model_.layers[clf.model_.layers.index(backbone) + 1 :]


def grad_cam(images):
    """Return where each image speaks for its predicted class, (n, height, width)."""
    with tf.GradientTape() as tape:
        maps, outputs = parts(tf.constant(images, tf.float32))
        tape.watch(maps)
        for layer in head:
            outputs = layer(outputs)
        best = tf.reduce_max(outputs, axis=1)
    weights = tf.reduce_mean(tape.gradient(best, maps), axis=(1, 2), keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1)).numpy()


# %%
# Where the network looks
# -----------------------

images = X[1000:1008]
heat = grad_cam(images)
figure, axes = plt.subplots(2, 8, figsize=(10, 2.8), layout="constrained")
for column, (image, spots) in enumerate(zip(images, heat, strict=True)):
    axes[0, column].imshow(image[..., 0], cmap="gray_r")
    axes[0, column].set_title(f"{clf.predict(image[np.newaxis])[0]}")
    axes[1, column].imshow(image[..., 0], cmap="gray_r", extent=(0, 8, 8, 0))
    axes[1, column].imshow(
        spots, cmap="inferno", alpha=0.6, extent=(0, 8, 8, 0), interpolation="bilinear"
    )
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
plt.show()
