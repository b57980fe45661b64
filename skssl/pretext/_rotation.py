"""RotationPretext: the pretext task of turned images."""

from numbers import Real

import numpy as np
from sklearn.base import TransformerMixin, clone

from .._base import ImageEstimator, all_or_nothing
from .._data.images import channels_first_hint, warn_of_channels_first
from .._docs import fill_docstrings
from .._storage.archive import saved_by_parameters
from ._views import ViewClassification


def quarter_turns(angles):
    """Check angles in degrees and return them as quarter turns, 0 to 3."""
    if not isinstance(angles, tuple | list | range | np.ndarray):
        raise TypeError(
            "angles must be a tuple of multiples of 90 degrees, such as (0, 180), got "
            f"{angles!r}."
        )
    angles = tuple(angles)
    for angle in angles:
        number = isinstance(angle, Real) and not isinstance(angle, bool)
        if not number or angle % 90 != 0:
            raise ValueError(
                f"angles must be multiples of 90 degrees, got {angle!r} in {angles}."
            )
    turns = [int(angle // 90) % 4 for angle in angles]
    for position, turn in enumerate(turns):
        if turn in turns[:position]:
            raise ValueError(
                f"angles must be distinct, but {angles[position]!r} in {angles} turns "
                f"an image as far as {angles[turns.index(turn)]!r} does."
            )
    if len(turns) < 2:
        raise ValueError(f"angles must hold at least two angles, got {angles}.")
    return turns


@saved_by_parameters
@fill_docstrings
class RotationPretext(TransformerMixin, ImageEstimator, ViewClassification):
    """Pretext task that asks by which angle an image is turned.

    To tell the angle, a network has to learn what the objects in the images look like
    upright, which is useful for other tasks with the same images [1]_. As a transformer
    it makes the turned images. As `pretext` of
    :class:`~skssl.SelfSupervisedClassifier` and :class:`~skssl.SelfSupervisedEncoder`
    it turns one batch at a time during training.

    Parameters
    ----------
    angles : tuple of int, default=(0, 90, 180, 270)
        Distinct multiples of 90 degrees, at least two. 90 turns counter-clockwise, as
        `numpy.rot90` does. Pixels are moved, never interpolated.
    augmentation : "auto", None, keras.layers.Layer, list of layers or callable, \
default="auto"
        How images are changed at random in pretraining, before they are turned, as in
        :class:`~skssl.SelfSupervisedClassifier`. "auto" leaves images as they are
        unless they have three channels: it helps photographs, and slows digits down.
        Neither `transform` nor scores change images. What turns images far, or upside
        down, would hide the angle.
    {image_shape}

    Attributes
    ----------
    {input_attributes}

    See Also
    --------
    SelfSupervisedEncoder : Pretrains a network on a pretext task.
    SelfSupervisedClassifier : Pretrains a network, then fine-tunes it.

    References
    ----------
    {rotation_paper}

    Examples
    --------
    >>> import numpy as np
    >>> from skssl import RotationPretext
    >>> image = np.array([[1, 2], [3, 4]])
    >>> views = RotationPretext().fit_transform(image[np.newaxis])
    >>> views.shape
    (1, 4, 2, 2, 1)
    >>> views[0, 1, :, :, 0]
    array([[2, 4],
           [1, 3]])
    """

    def __init__(
        self, angles=(0, 90, 180, 270), *, augmentation="auto", image_shape=None
    ):
        self.angles = angles
        self.augmentation = augmentation
        self.image_shape = image_shape

    @property
    def n_views(self):
        """Number of views of each image."""
        return len(self.angles)

    @property
    def class_names(self):
        """Name of each view: its angle."""
        return tuple(f"{angle}°" for angle in self.angles)

    @all_or_nothing
    def fit(self, X, y=None):
        """Check the angles and the shape of the images.

        Parameters
        ----------
        {X_images}
            Images, of any scale.
        {y_ignored}

        Returns
        -------
        self : object
            The fitted transformer.

        Raises
        ------
        ValueError
            If an angle is no multiple of 90, if two angles turn an image equally far,
            if there are fewer than two, if images that are not square are to be turned
            by 90 or 270 degrees, if `augmentation` changes the shape of images, if
            `image_shape` does not match X, or if X holds anything but real, finite
            numbers.
        TypeError
            If `angles` is no tuple, if `augmentation` is of another type, or if X is
            sparse or holds objects that are no numbers.
        """
        images = self._fit_images(X)
        self._turns_of(images)
        if self.augmentation not in (None, "auto"):
            from ..augmentation import check_augmentation  # imports Keras

            check_augmentation(self.augmentation, images.shape[1:])
        return self

    def transform(self, X):
        """Turn each image by every angle.

        Parameters
        ----------
        {X_images}
            Images of the shape seen in `fit`.

        Returns
        -------
        views : ndarray of shape (n_samples, n_angles, height, width, channels)
            View `k` is turned by `angles[k]`; the dtype is that of X. All views of an
            image are in one row, so they stay together when rows are split.
        """
        images = np.asarray(self._check_images(X))
        turns = self._turns_of(images)
        warn_of_channels_first(images)
        views = [np.rot90(images, n, axes=(1, 2)) for n in turns]
        return np.stack(views, axis=1, dtype=images.dtype)  # its byte order, too

    def make_task(self, X):
        """Return turned images and labels to train a classifier on; needs no `fit`.

        Parameters
        ----------
        {X_images}
            Images.

        Returns
        -------
        X_task : ndarray of shape (n_samples * n_angles, height, width, channels)
            The views of the first image, then those of the second, and so on.
        y_task : ndarray of shape (n_samples * n_angles,), int64
            The index into `angles` of each. Groups for
            :class:`~sklearn.model_selection.GroupKFold` are
            ``np.arange(n_samples).repeat(n_angles)``.
        """
        views = clone(self).fit_transform(X)
        y_task = np.tile(np.arange(views.shape[1]), len(views))
        return views.reshape(-1, *views.shape[2:]), y_task

    def make_views(self, images):
        """Turn a batch of images by every angle, as graph operations.

        Parameters
        ----------
        {image_batch}

        Returns
        -------
        views : tensor of shape (batch, n_angles, height, width, channels)
            View `k` is turned by `angles[k]`; same dtype as the images.
        """
        from keras import ops

        turns = quarter_turns(self.angles)
        return ops.stack([ops.rot90(images, n, axes=(1, 2)) for n in turns], axis=1)

    def training_batch(self, images, seed):
        """Return the views of images that have been changed at random.

        Parameters
        ----------
        {image_batch}
        {batch_seed}

        Returns
        -------
        {batch_inputs}
        targets : tensor of shape (batch * n_angles,)
            The index of each angle.
        """
        from ..augmentation import augmented

        augmentation = self.augmentation
        if isinstance(augmentation, str) and images.shape[-1] != 3:
            augmentation = None
        if augmentation is not None:
            images = augmented(images, seed, augmentation)
        return self.make_batch(images, seed)

    def is_undone_by(self, layer):
        """Say whether a layer turns or mirrors one angle into another.

        Parameters
        ----------
        {layer_to_pretrain}

        Returns
        -------
        undone : bool
            True for a `RandomRotation` so wide that one angle can become another, and
            for a `RandomFlip` that mirrors one angle into another.
        """
        from keras import layers

        angles = {90 * turn for turn in quarter_turns(self.angles)}
        if isinstance(layer, layers.RandomRotation):
            low, high = layer.get_config()["factor"]  # as shares of a full turn
            return 360 * (high - low) > min(
                (b - a) % 360 for a in angles for b in angles - {a}
            )
        if isinstance(layer, layers.RandomFlip):
            mode = layer.get_config()["mode"]
            mirrored = set()
            if "horizontal" in mode:
                mirrored |= {(a, -a % 360) for a in angles}
            if "vertical" in mode:
                mirrored |= {(a, (180 - a) % 360) for a in angles}
            return any(b in angles - {a} for a, b in mirrored)
        return False

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32", "uint8"]
        return tags

    def _turns_of(self, images):
        """Return the quarter turns of the angles, checked against the images."""
        turns = quarter_turns(self.angles)
        height, width = images.shape[1:3]
        if height != width and any(turn % 2 for turn in turns):
            hint = channels_first_hint(images.shape)
            raise ValueError(
                "Turns by 90 and 270 degrees need square images, got images of shape "
                f"{images.shape[1:]}.{hint or ' Use angles=(0, 180) for these.'}"
            )
        return turns
