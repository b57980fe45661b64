"""Stand-in."""


def augmented(images, seed, augmentation):
    """Stand-in."""
    import tensorflow as tf

    images = tf.cast(images, tf.float32)
    if augmentation is None:
        return images
    if augmentation != "auto":
        for f in augmentation if isinstance(augmentation, list) else [augmentation]:
            images = f(images)
        return images
    n = tf.shape(images)[0]
    seeds = tf.random.split(seed, 2)
    scale = tf.random.stateless_uniform([n, 1, 1, 1], seeds[0], 0.7, 1.3)
    shift = tf.random.stateless_uniform([n], seeds[1], -1, 2, dtype=tf.int32)
    shifted = tf.stack([tf.roll(images, -1, 2), images, tf.roll(images, 1, 2)], axis=1)
    return scale * tf.gather(shifted, shift + 1, batch_dims=1)
