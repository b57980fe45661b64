"""The README's quick start in a fresh process, against the same stages in plain Keras.

python benchmarks/first_contact.py [--pairs 5]
    From the start of Python to the picture of predictions, imports included.

The Keras code is what its guides lead to: digits turned before, preprocessing layers
for random changes, `fit`, and a model with a `train_step` of its own for FixMatch. It
has the network, the stages and the number and size of steps of
`SelfSupervisedClassifier()`, but a fixed threshold in FixMatch. Seconds of the parts
are printed beside.
"""

import argparse
import time

from _timing import alternate, in_fresh_process

START = time.perf_counter()


def note(parts, name):
    """Note the seconds until now under a name."""
    parts.append((name, time.perf_counter() - START))


def load_few():
    """Return images to train on, of which 50 have a label, and images to test on."""
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    return X_train, np.where(np.arange(len(y_train)) < 50, y_train, -1), X_test, y_test


def with_skssl(parts):
    from skssl import PredictionDisplay, SelfSupervisedClassifier

    X_train, y_few, X_test, y_test = load_few()
    import tensorflow  # noqa: F401

    note(parts, "imports")
    clf = SelfSupervisedClassifier(random_state=0)
    clf.fit(X_train, y_few)
    note(parts, "fit")
    clf.score_pretext(X_test)
    accuracy = clf.score(X_test, y_test)
    PredictionDisplay.from_estimator(clf, X_test, y_test)
    note(parts, "scores and picture")
    return accuracy


def with_keras(parts):
    import keras
    import numpy as np
    import tensorflow as tf
    from keras import layers
    from sklearn.decomposition import PCA
    from sklearn.semi_supervised import LabelSpreading

    X_train, y_few, X_test, y_test = load_few()
    note(parts, "imports")
    keras.utils.set_random_seed(0)
    X_train, X_test = (
        x.reshape(-1, 8, 8, 1).astype("float32") for x in (X_train, X_test)
    )
    few = y_few != -1

    def turned(images):
        views = [np.rot90(images, k, axes=(1, 2)) for k in range(4)]
        return np.concatenate(views), np.arange(4).repeat(len(images))

    def changes(size):
        return keras.Sequential(
            [
                layers.RandomTranslation(size * 0.1, size * 0.1, fill_mode="nearest"),
                layers.RandomRotation(size * 10 / 360, fill_mode="nearest"),
                layers.RandomZoom(size * 0.1, size * 0.1, fill_mode="nearest"),
                layers.RandomShear(size * 0.1, size * 0.1, fill_mode="nearest"),
            ]
        )

    standardize = layers.Normalization()
    standardize.adapt(X_train)
    backbone = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            standardize,
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
        ]
    )

    def compiled(model, rate=1e-3, metrics=("accuracy",), **params):
        optimizer = keras.optimizers.Adam(rate, **params)
        loss = "sparse_categorical_crossentropy"
        model.compile(optimizer, loss, metrics=metrics)
        return model

    def falling(n_steps, **params):
        return keras.optimizers.schedules.CosineDecay(1e-3, n_steps, **params)

    pretext = keras.Sequential([backbone, layers.Dense(4, activation="softmax")])
    views = turned(X_train)
    compiled(pretext, falling(680))
    pretext.fit(*views, batch_size=64, epochs=8, verbose=0)
    pretrained = backbone.get_weights()
    note(parts, "pretraining")

    network = keras.Sequential([backbone, layers.Dense(10, activation="softmax")])
    compiled(keras.Sequential([changes(1), network])).fit(
        tf.data.Dataset.from_tensor_slices((X_train[few], y_few[few]))
        .shuffle(64).repeat().batch(50),
        steps_per_epoch=50, epochs=20, verbose=0,
    )  # fmt: skip
    note(parts, "fine-tuning")

    embeddings = PCA(32).fit_transform(backbone.predict(X_train, verbose=0))
    spread = LabelSpreading(kernel="knn", n_neighbors=10, max_iter=100, tol=0)
    labels = spread.fit(embeddings, y_few).transduction_
    sure = spread.label_distributions_.max(axis=1)
    agree = labels == network.predict(X_train, verbose=0).argmax(axis=1)
    trusted = few | (agree & (sure >= np.quantile(sure, 0.1)))
    backbone.set_weights(pretrained)
    network = keras.Sequential([backbone, layers.Dense(10, activation="softmax")])
    average = {"use_ema": True, "ema_momentum": 1 - 1 / 50}
    compiled(
        keras.Sequential([changes(1), network]), falling(500, alpha=0.02), **average
    ).fit(
        tf.data.Dataset.from_tensor_slices((X_train[trusted], labels[trusted]))
        .shuffle(2000).repeat().batch(64),
        steps_per_epoch=100, epochs=5, verbose=0,
    )  # fmt: skip
    note(parts, "spread labels")

    weak, strong = changes(0.5), changes(1)
    strong.add(layers.RandomErasing(scale=(0.0, 0.25), fill_value=5.0))

    class FixMatch(keras.Model):
        def __init__(self):
            super().__init__()
            self.network, self.changes = network, changes(1)

        def call(self, x, training=False):
            return self.network(x, training=training)

        def train_step(self, data):
            (images, targets), others = data
            guesses = self(weak(others, training=True))
            guessed = tf.argmax(guesses, axis=-1)
            sure = tf.cast(tf.reduce_max(guesses, axis=-1) >= 0.95, "float32")
            views = tf.concat(
                [self.changes(images, training=True), strong(others, training=True)], 0
            )
            with tf.GradientTape() as tape:
                outputs = self(views, training=True)
                loss = self.compute_loss(y=targets, y_pred=outputs[:4])
                loss += self.compute_loss(
                    y=guessed, y_pred=outputs[4:], sample_weight=sure
                )
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply(gradients, self.trainable_variables)
            return {"loss": loss}

    average["ema_momentum"] = 1 - 1 / 600
    labelled = tf.data.Dataset.from_tensor_slices((X_train[few], y_few[few]))
    others = tf.data.Dataset.from_tensor_slices(X_train)
    both = tf.data.Dataset.zip(
        labelled.shuffle(64).repeat().batch(4), others.shuffle(2000).repeat().batch(16)
    )
    model = compiled(FixMatch(), falling(6000, alpha=0.02), None, **average)
    model.fit(both.prefetch(2), steps_per_epoch=100, epochs=60, verbose=0)
    note(parts, "FixMatch")

    import matplotlib.pyplot as plt

    pretext.evaluate(*turned(X_test), verbose=0)
    predicted = network.predict(X_test, verbose=0).argmax(axis=1)
    _, axes = plt.subplots(2, 5)
    for ax, image, digit in zip(axes.flat, X_test, predicted, strict=False):
        ax.imshow(image[..., 0], cmap="gray")
        ax.set(title=digit, xticks=[], yticks=[])
    note(parts, "scores and picture")
    return np.mean(predicted == y_test)


SIDES = {"skssl": with_skssl, "keras": with_keras}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--once", choices=SIDES, help="one side alone")
    arguments = parser.parse_args()
    if arguments.once:
        parts = []
        accuracy = SIDES[arguments.once](parts)
        begin = 0.0
        for name, end in parts:
            print(f"{name} {end - begin:.1f} s", end=", ")
            begin = end
        print(f"accuracy {accuracy:.3f}")
        return

    def fresh(name):
        def job():
            print(f"  {name}: {in_fresh_process(__file__, '--once', name)}")

        return job

    alternate(
        fresh("skssl"), fresh("keras"), rival="Keras", n_pairs=arguments.pairs,
        n_warm_ups=0, target=1.0,
    )  # fmt: skip


if __name__ == "__main__":
    main()
