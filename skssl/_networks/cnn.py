"""build_cnn: the default network."""


def build_cnn(meta, filters=None, kernel_size=3, dense_units=128, dropout=0.0):
    """Build the default network: convolutions with max pooling, and a dense layer.

    A build function as scikeras takes it: parameters are reached through the
    wrapper, as in ``KerasClassifier(build_cnn, model__filters=(16, 32))``.

    Parameters
    ----------
    meta : dict
        What scikeras knows of the data: `X_shape_`, of which (height, width, channels)
        are used, and `n_classes_`.
    filters : tuple of int or None, default=None
        Number of filters of each convolution; each is followed by 2x2 max pooling as
        long as the image is large enough. None chooses the convolutions by the size of
        the images, see Notes.
    kernel_size : int, default=3
        Height and width of the filters, in pixels.
    dense_units : int, default=128
        Number of units of the dense layer, which is the embedding.
    dropout : float, default=0.0
        Share of the embedding that is dropped during training.

    Returns
    -------
    model : keras.Model
        Uncompiled network from images of shape (height, width, channels) to class
        probabilities. Its first layer standardises each channel.

    See Also
    --------
    SelfSupervisedClassifier : Trains this network where no other is given.
    scikeras.wrappers.KerasClassifier : Calls a build function.

    Notes
    -----
    With ``filters=None``, the longer side of the images decides:

    - Below 32 pixels, ``filters=(32, 64)`` is used.
    - From 32 pixels on, convolutions that keep the size, each followed by pooling,
      halve the images until the longer side is 4 to 8 pixels. The last three have 32,
      64 and 128 filters, all before them 16. So the network hardly grows with the
      images.
    - From 64 pixels on, the first convolution has a stride of 2 in place of pooling,
      and filters larger by 2 pixels. At full size it would take most of the time.

    Examples
    --------
    >>> from skssl import build_cnn
    >>> meta = {"X_shape_": (1, 28, 28, 1), "n_classes_": 10}
    >>> build_cnn(meta).output_shape
    (None, 10)
    """
    import keras  # here, because it takes seconds

    last = {"data_format": "channels_last"}  # whatever image_data_format() is
    inputs = keras.Input(meta["X_shape_"][1:], name="images")
    x = keras.layers.Normalization(name="standardize")(inputs)
    if filters is None and max(x.shape[1:3]) >= 32:
        x = _halve_until_small(x, kernel_size, last)
    else:
        x = _convolve(x, (32, 64) if filters is None else filters, kernel_size, last)
    x = keras.layers.Flatten(**last)(x)
    x = keras.layers.Dense(dense_units, activation="relu")(x)
    if dropout:
        x = keras.layers.Dropout(dropout)(x)
    outputs = keras.layers.Dense(meta["n_classes_"], activation="softmax")(x)
    return keras.Model(inputs, outputs)


def _convolve(x, filters, kernel_size, last):
    """Apply convolutions, each with pooling as long as the image is large enough."""
    import keras

    for n_filters in filters:
        # On tiny images valid convolutions would leave nothing, so keep the size.
        padding = "valid" if min(x.shape[1:3]) >= kernel_size + 3 else "same"
        x = keras.layers.Conv2D(
            n_filters, kernel_size, padding=padding, activation="relu", **last
        )(x)
        if min(x.shape[1:3]) >= 2:
            x = keras.layers.MaxPooling2D(**last)(x)
    return x


def _halve_until_small(x, kernel_size, last):
    """Halve images by convolutions until their longer side is 4 to 8 pixels."""
    import keras

    n_halvings = max(x.shape[1:3]).bit_length() - 3
    filters = [16] * (n_halvings - 3) + [32, 64, 128]
    same = {"padding": "same", "activation": "relu", **last}
    if n_halvings > 3:
        x = keras.layers.Conv2D(filters.pop(0), kernel_size + 2, strides=2, **same)(x)
    for n_filters in filters:
        x = keras.layers.Conv2D(n_filters, kernel_size, **same)(x)
        # A side of 1 pixel, as in very oblong images, cannot be halved.
        pool_size = [min(2, side) for side in x.shape[1:3]]
        x = keras.layers.MaxPooling2D(pool_size, **last)(x)
    return x
