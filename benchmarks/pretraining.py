"""Rate of pretraining on MNIST in batches of 64, against other ways.

python benchmarks/pretraining.py keras [--data mnist.npz]
    Keras on arrays of turned images, with and without the time for turning them.
python benchmarks/pretraining.py scikeras
    scikeras's classifier on arrays of turned images.
python benchmarks/pretraining.py bfloat16
    skssl itself in float32, against Keras's mixed_bfloat16 policy.
python benchmarks/pretraining.py resnet --images 320
    ResNet50V2 on digits enlarged to 64x64x3: Keras on images turned before, then skssl
    in float32 against bfloat16.
"""

import argparse
import statistics

import keras
import numpy as np
import tensorflow as tf
from _mnist import load_mnist
from _timing import alternate, seconds

from skssl import RotationPretext, SelfSupervisedEncoder, build_cnn


def training_flops():
    """Return the operations of one image and step: forward, and twice that backward."""
    model = build_cnn({"X_shape_": (1, 28, 28, 1), "n_classes_": 4})
    flops = 0
    for layer in model.layers:
        if layer.weights and hasattr(layer, "kernel"):
            positions = np.prod(layer.output.shape[1:-1], dtype=int)
            flops += 3 * 2 * int(positions) * int(np.prod(layer.kernel.shape))
    return flops


def peak_flops(size=2048):
    """Return the operations a second of a product of two float32 matrices."""
    a = tf.random.normal((size, size))
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(a, a)))
    product()
    return 2 * size**3 / min(seconds(lambda: product().numpy())[0] for _ in range(20))


def skssl_job(images, test, epochs, policy="float32"):
    def job():
        keras.config.set_dtype_policy(policy)
        encoder = SelfSupervisedEncoder(epochs=epochs).fit(images)
        keras.config.set_dtype_policy("float32")
        return lambda: encoder.score(test)

    return job


def keras_job(images, test, epochs, turn_in_a_loop):
    from _rivals import keras_pretraining, standardized, turned_in_a_loop

    turn = turned_in_a_loop if turn_in_a_loop else RotationPretext().make_task
    ready = None if turn_in_a_loop else turn(standardized(images))
    x_test, y_test = RotationPretext().make_task(standardized(test))

    def job():
        turned = ready or turn(standardized(images))
        model = keras_pretraining(*turned, epochs)
        return lambda: model.evaluate(x_test, y_test, verbose=0)[1]

    return job


def scikeras_job(images, test, epochs):
    from _rivals import scikeras_classifier, standardized

    x_test, y_test = RotationPretext().make_task(standardized(test))

    def job():
        turned, turns = RotationPretext().make_task(standardized(images))
        classifier = scikeras_classifier((28, 28, 1), 4, epochs).fit(turned, turns)
        return lambda: np.mean(classifier.predict(x_test) == y_test)

    return job


def resnet(meta):
    """Build a ResNet50V2 with a head for angles, with weights drawn at random."""
    inputs = keras.Input(meta["X_shape_"][1:])
    base = keras.applications.ResNet50V2(
        include_top=False, weights=None, input_shape=inputs.shape[1:], pooling="avg"
    )
    outputs = keras.layers.Dense(meta["n_classes_"], activation="softmax")
    scaled = keras.applications.resnet_v2.preprocess_input(inputs)
    return keras.Model(inputs, outputs(base(scaled)))


def enlarged(images):
    """Return digits as images of shape (n, 64, 64, 3)."""
    images = np.pad(
        images.repeat(2, axis=1).repeat(2, axis=2), [(0, 0), (4, 4), (4, 4)]
    )
    return np.repeat(images[..., None], 3, axis=-1)


def resnet_job(images, epochs, policy="float32"):
    from scikeras.wrappers import KerasClassifier

    def job():
        keras.config.set_dtype_policy(policy)
        network = KerasClassifier(resnet, optimizer="adam")
        task = RotationPretext(augmentation=None)
        encoder = SelfSupervisedEncoder(network, pretext=task, batch_size=64)
        encoder.set_params(epochs=epochs).fit(images)
        keras.config.set_dtype_policy("float32")

    return job


def keras_resnet_job(images, epochs):
    turned, turns = RotationPretext().make_task(images)

    def job():
        model = resnet({"X_shape_": turned.shape, "n_classes_": 4})
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(turned, turns, epochs=epochs, batch_size=64, verbose=0)

    return job


def compare_resnet(images, epochs, n_pairs):
    images = enlarged(images)
    ours = resnet_job(images, epochs)
    theirs = keras_resnet_job(images, epochs)
    alternate(ours, theirs, rival="Keras", n_pairs=n_pairs, target=0.95)
    bfloat16 = resnet_job(images, epochs, "mixed_bfloat16")
    alternate(bfloat16, ours, rival="float32", n_pairs=n_pairs, target=1.5)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rival", choices=["keras", "scikeras", "bfloat16", "resnet"])
    parser.add_argument("--data", help="mnist.npz; without it Keras downloads it")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    (images, _), (test, _) = load_mnist(arguments.data)
    images = images[: arguments.images]
    if arguments.rival == "resnet":
        compare_resnet(images, arguments.epochs, arguments.pairs)
        return
    data = images, test[:1000], arguments.epochs
    ours = skssl_job(*data)
    if arguments.rival == "keras":
        comparisons = [
            ("Keras, images turned before", keras_job(*data, False), 2.0),
            ("Keras, with turning", keras_job(*data, True), 2.0),
        ]
    elif arguments.rival == "scikeras":
        comparisons = [("scikeras", scikeras_job(*data), None)]
    else:
        ours = skssl_job(*data, policy="mixed_bfloat16")
        comparisons = [("float32", skssl_job(*data), 1.3)]
    n_inputs = 4 * len(data[0]) * arguments.epochs
    peak = peak_flops()
    for rival, theirs, target in comparisons:
        times, _ = alternate(
            ours, theirs, rival=rival, n_pairs=arguments.pairs, target=target
        )
        rate = n_inputs / statistics.median(times)
        share = rate * training_flops() / peak
        print(
            f"skssl: {rate:.0f} turned images per second, of "
            f"{training_flops() / 1e6:.1f} MFLOP each, {share:.0%} of the "
            f"{peak / 1e9:.0f} GFLOP/s of a float32 matrix product\n"
        )


if __name__ == "__main__":
    main()
