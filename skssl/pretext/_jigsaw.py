"""JigsawPretext: the pretext task of images whose tiles have changed places."""

import functools
import math
from itertools import permutations

import numpy as np

from .._docs import fill_docstrings
from .._storage.archive import saved_by_parameters
from ._base import PretextTask, check_number
from ._views import class_head

# All permutations of so many tiles, 40,320, can be compared with each other in no time.
# Of more tiles, as many are drawn.
MAX_ENUMERATED_TILES = 8
N_DRAWN = 40_000


@functools.lru_cache(maxsize=16)
def distant_permutations(n_tiles, n_permutations):
    """Return permutations that differ in many places, the identity first.

    Each further one is the first of those that differ most from the chosen one which
    is nearest to it: Algorithm 1 of Noroozi and Favaro (2016), without chance.

    Parameters
    ----------
    n_tiles, n_permutations : int
        How many elements are permuted, in how many ways.

    Returns
    -------
    chosen : ndarray of shape (n_permutations, n_tiles), int32
        Row `k` holds which tile comes to each place.
    """
    if n_tiles <= MAX_ENUMERATED_TILES:
        pool = np.array(list(permutations(range(n_tiles))))
    else:
        drawn = np.random.RandomState(0).rand(N_DRAWN, n_tiles).argsort(axis=1)
        pool = np.concatenate([[np.arange(n_tiles)], drawn])
    chosen, nearest = [0], np.full(len(pool), n_tiles)
    while len(chosen) < n_permutations:
        nearest = np.minimum(nearest, (pool != pool[chosen[-1]]).sum(axis=1))
        chosen.append(int(nearest.argmax()))
    chosen = pool[chosen].astype(np.int32)
    chosen.flags.writeable = False  # it is kept
    return chosen


def permuted_tiles(images, grid, order):
    """Move the tiles of each image, as graph operations.

    Parameters
    ----------
    images : tensor of shape (batch, height, width, channels)
        Images.
    grid : tuple of int
        Number of rows and columns of tiles.
    order : int32 tensor of shape (batch, n_tiles)
        Which tile comes to each place, row by row.

    Returns
    -------
    images : tensor of shape (batch, height, width, channels)
        Pixels that no tile holds, at the borders of an image that the grid does not
        divide, stay where they are.
    """
    import tensorflow as tf

    (rows, columns), (height, width, channels) = grid, images.shape[1:]
    tile = height // rows, width // columns
    top, left = (height - rows * tile[0]) // 2, (width - columns * tile[1]) // 2
    bottom, right = top + rows * tile[0], left + columns * tile[1]

    tiles = images[:, top:bottom, left:right]
    tiles = tf.reshape(tiles, (-1, rows, tile[0], columns, tile[1], channels))
    tiles = tf.transpose(tiles, (0, 1, 3, 2, 4, 5))
    tiles = tf.reshape(tiles, (-1, rows * columns, *tile, channels))
    tiles = tf.gather(tiles, order, batch_dims=1)
    tiles = tf.reshape(tiles, (-1, rows, columns, *tile, channels))
    tiles = tf.transpose(tiles, (0, 1, 3, 2, 4, 5))
    tiles = tf.reshape(tiles, (-1, bottom - top, right - left, channels))

    beside = images[:, top:bottom, :left], tiles, images[:, top:bottom, right:]
    return tf.concat([images[:, :top], tf.concat(beside, 2), images[:, bottom:]], 1)


@saved_by_parameters
@fill_docstrings
class JigsawPretext(PretextTask):
    """Pretext task that asks in which order the tiles of an image are.

    To tell the order, a network has to learn how the parts of an object lie to each
    other [1]_. The tiles are permuted within the image, which the network sees as a
    whole; in the paper it sees each tile alone. Pixels are moved, never interpolated.

    Parameters
    ----------
    grid : tuple of int, default=(2, 2)
        Number of rows and columns of tiles. Where these do not divide the height or
        the width, the pixels left over at the borders stay where they are.
    n_permutations : int, default=24
        Number of orders to tell apart, at most the factorial of the number of tiles.
        They are chosen to differ in as many places as possible, always in the same
        way. The first one is the image as it is.

    Attributes
    ----------
    n_views : int
        1: each image is shown in one order, which is drawn at random.

    See Also
    --------
    RotationPretext : Asks by which angle an image is turned.
    SelfSupervisedEncoder : Pretrains a network on a pretext task.

    References
    ----------
    .. [1] Mehdi Noroozi, Paolo Favaro, "Unsupervised Learning of Visual Representations
       by Solving Jigsaw Puzzles", ECCV 2016, arXiv:1603.09246.

    Examples
    --------
    >>> from skssl import JigsawPretext
    >>> JigsawPretext(n_permutations=4).class_names
    ('1 2 3 4', '2 1 4 3', '3 4 1 2', '4 3 2 1')
    """

    def __init__(self, grid=(2, 2), n_permutations=24):
        self.grid = grid
        self.n_permutations = n_permutations

    @property
    def class_names(self):
        """Name of each order: which tile is at each place, counted from 1."""
        return tuple(
            " ".join(str(tile + 1) for tile in order) for order in self._orders()
        )

    def fit(self, X, y=None):
        """Check the parameters against the shape of the images.

        Parameters
        ----------
        {training_images}
        {y_ignored}

        Returns
        -------
        {fitted_task}

        Raises
        ------
        ValueError
            If there are fewer than two tiles, more than the image has pixels, or
            other than 2 to `n_tiles!` permutations.
        TypeError
            If `grid` is no pair of integers, or `n_permutations` no integer.
        """
        if not isinstance(self.grid, tuple | list) or len(self.grid) != 2:
            raise TypeError(
                f"grid must be a pair of integers, such as (2, 2), got {self.grid!r}."
            )
        for number, pixels, name in zip(
            self.grid, X.shape[1:3], ("rows", "columns"), strict=True
        ):
            remedy = f"The images have shape {X.shape[1:]}; use grid=(2, 2)."
            bounds = 0, pixels + 1
            check_number(number, f"{name} of grid", *bounds, whole=True, remedy=remedy)
        n_tiles = math.prod(self.grid)
        if n_tiles < 2:
            raise ValueError(
                f"grid must have at least two tiles, got {self.grid!r}. Use (2, 2)."
            )
        n_orders = math.factorial(n_tiles)
        if n_tiles > MAX_ENUMERATED_TILES:
            n_orders = N_DRAWN
        remedy = f"That many differ in a grid of {self.grid}; 4 to 100 are common."
        bounds = 1, n_orders + 1
        check_number(
            self.n_permutations, "n_permutations", *bounds, whole=True, remedy=remedy
        )
        return self

    def make_batch(self, images, seed):
        """Draw an order for each image, and permute its tiles.

        Parameters
        ----------
        {image_batch}
        {batch_seed}

        Returns
        -------
        {batch_inputs}
        targets : tensor of shape (batch,), int32
            The index of each order.
        """
        import tensorflow as tf

        targets = tf.random.stateless_uniform(
            [tf.shape(images)[0]], seed, maxval=self.n_permutations, dtype=tf.int32
        )
        order = tf.gather(self._orders(), targets)
        return permuted_tiles(images, self.grid, order), targets

    def build_head(self, features, image_shape):
        """Build a softmax layer with one unit for each order.

        Parameters
        ----------
        {features}
        {shape_of_images}

        Returns
        -------
        outputs : KerasTensor of shape (None, n_permutations)
            Probability of each order.
        """
        return class_head(features, self.n_permutations)

    def loss_and_metrics(self):
        """Return the cross entropy, and the accuracy.

        Returns
        -------
        loss : str
            "sparse_categorical_crossentropy".
        metrics : list of str
            "accuracy" alone.
        """
        return "sparse_categorical_crossentropy", ["accuracy"]

    def _orders(self):
        return distant_permutations(math.prod(self.grid), self.n_permutations)
