"""load: read an estimator that `save` has written."""

import os

from ._classifier import SelfSupervisedClassifier
from ._encoder import SelfSupervisedEncoder
from ._networks.packing import error_summary
from ._storage.archive import read_archive, require

ESTIMATORS = {
    cls.__name__: cls for cls in (SelfSupervisedClassifier, SelfSupervisedEncoder)
}


def load(path):
    """Load a saved estimator; the file need not be trusted.

    No code in the file is run. Memory is bounded by a small multiple of its size; that
    of later predictions is what the network in it asks for.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    estimator : SelfSupervisedClassifier or SelfSupervisedEncoder
        The fitted estimator; for parameters that are not saved see its `save`.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is damaged, from a newer version, or holds anything that `save` does not
        write.

    See Also
    --------
    SelfSupervisedClassifier.save : Write the file.
    SelfSupervisedEncoder.save : Write the file.

    Examples
    --------
    >>> import os, tempfile
    >>> from sklearn.datasets import load_digits
    >>> import skssl
    >>> X, _ = load_digits(return_X_y=True)
    >>> encoder = skssl.SelfSupervisedEncoder(epochs=1).fit(X[:50])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "digits.skssl")
    ...     encoder.save(path)
    ...     loaded = skssl.load(path)
    >>> bool((loaded.transform(X[:5]) == encoder.transform(X[:5])).all())
    True
    """
    with open(path, "rb") as file:
        try:
            kind, state = read_archive(file)
            require(kind in ESTIMATORS, f"it holds the unknown kind {kind!r}")
            return ESTIMATORS[kind]._from_saved_state(state)
        except Exception as error:
            raise ValueError(
                f"{os.fspath(path)!r} cannot be loaded: {error_summary(error)}. Only "
                "unchanged files from the save method of skssl can."
            ) from error
