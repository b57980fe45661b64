"""build_cnn: the default network."""


def build_cnn(meta, filters=(32, 64), kernel_size=3, dense_units=128, dropout=0.0):
    """Build the default network: convolutions with max pooling, and a dense layer.

    A build function as scikeras takes it: parameters are reached through the
    wrapper, as in ``KerasClassifier(build_cnn, model__filters=(16, 32))``.

    Parameters
    ----------
    meta : dict
        What scikeras knows of the data: `X_shape_`, of which (height, width, channels)
        are used, and `n_classes_`.
    filters : tuple of int, default=(32, 64)
        Number of filters of each convolution; each is followed by 2x2 max pooling as
        long as the image is large enough.
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
    for n_filters in filters:
        # On tiny images valid convolutions would leave nothing, so keep the size.
        padding = "valid" if min(x.shape[1:3]) >= kernel_size + 3 else "same"
        x = keras.layers.Conv2D(
            n_filters, kernel_size, padding=padding, activation="relu", **last
        )(x)
        if min(x.shape[1:3]) >= 2:
            x = keras.layers.MaxPooling2D(**last)(x)
    x = keras.layers.Flatten(**last)(x)
    x = keras.layers.Dense(dense_units, activation="relu")(x)
    if dropout:
        x = keras.layers.Dropout(dropout)(x)
    outputs = keras.layers.Dense(meta["n_classes_"], activation="softmax")(x)
    return keras.Model(inputs, outputs)
