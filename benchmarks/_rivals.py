"""What skssl is compared with, in Keras and with scikeras.

As in tutorials, images are turned one by one in a loop, all turned images are held in
memory, and `fit` and `predict` get arrays. Network, data, batch size, number of steps,
precision and threads are the same on both sides.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from scikeras.wrappers import KerasClassifier

ANGLES = 4


def standardized(images):
    """Return bytes of shape (n, height, width) as standardised float32 images."""
    images = images[..., np.newaxis].astype(np.float32)
    return (images - images.mean()) / images.std()


def turned_in_a_loop(images):
    """Return all images in four rotations, and the number of turns of each."""
    turned, turns = [], []
    for image in images:
        for k in range(ANGLES):
            turned.append(tf.image.rot90(image, k).numpy())
            turns.append(k)
    return np.array(turned), np.array(turns)


def plain_cnn(image_shape, n_classes):
    """Return the network of `skssl.build_cnn`, compiled; images come standardised."""
    model, size = keras.Sequential([keras.Input(image_shape)]), image_shape[0]
    for filters in (32, 64):
        padding = "valid" if size >= 6 else "same"
        model.add(layers.Conv2D(filters, 3, padding=padding, activation="relu"))
        model.add(layers.MaxPooling2D())
        size = (size - 2 if padding == "valid" else size) // 2
    model.add(layers.Flatten())
    model.add(layers.Dense(128, activation="relu"))
    model.add(layers.Dense(n_classes, activation="softmax"))
    return compiled(model)


def compiled(model):
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def keras_pretraining(turned, turns, epochs):
    """Train a new network to tell the angle of images that were turned before."""
    model = plain_cnn(turned.shape[1:], ANGLES)
    model.fit(turned, turns, epochs=epochs, batch_size=64, verbose=0)
    return model


def with_new_head(model, n_classes, frozen):
    """Return a copy of a network with a new last layer, its first layers frozen."""
    copied = keras.models.clone_model(model)
    copied.set_weights(model.get_weights())
    copied.pop()
    for layer in copied.layers[:frozen]:
        layer.trainable = False
    copied.add(layers.Dense(n_classes, activation="softmax"))
    return compiled(copied)


def scikeras_classifier(image_shape, n_classes, epochs):
    """Return scikeras's classifier of the same network."""
    return KerasClassifier(
        plain_cnn,
        image_shape=image_shape,
        n_classes=n_classes,
        epochs=epochs,
        batch_size=64,
        verbose=0,
    )
