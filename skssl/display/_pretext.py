"""PretextDisplay: views with their true and predicted pretext label."""

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from .._docs import fill_docstrings
from ._image_grid import ImageGridDisplay, chosen_rows


@fill_docstrings
class PretextDisplay(ImageGridDisplay):
    """Views with their true and predicted pretext label, wrong ones marked in red.

    Use :meth:`from_estimator` or :meth:`from_predictions`; they draw at once.

    Parameters
    ----------
    images : ndarray of shape (n_samples, height, width, channels)
        The views to draw.
    y_true, y_pred : array-like of shape (n_samples,) or None
        Names of the pretext labels, such as "90°"; None draws the views alone.

    Attributes
    ----------
    {axes_of_images}
    {figure}

    See Also
    --------
    PredictionDisplay : Images with their true and predicted class.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn.datasets import load_digits
    >>> from skssl import PretextDisplay, RotationPretext
    >>> X, _ = load_digits(return_X_y=True)
    >>> views = RotationPretext().fit_transform(X)
    >>> labels = [[0, 1, 2, 3]] * len(X)
    >>> display = PretextDisplay.from_predictions(
    ...     views, labels, class_names=["0°", "90°", "180°", "270°"], random_state=0
    ... )
    >>> len(display.axes_)
    5
    >>> plt.close()
    """

    @classmethod
    def from_estimator(
        cls, estimator, X, *, n_samples=5, random_state=None, ax=None, **plot_params
    ):
        """Predict and draw one random view of randomly chosen images.

        The views and their true labels are made by the task, as for a batch in
        training; some tasks make them at random. A task that compares two views draws
        these side by side, with the number of the image and that of the image whose
        view is nearest. A task that hides patches draws the image with these beside
        what the network puts there.

        Parameters
        ----------
        estimator : SelfSupervisedEncoder or SelfSupervisedClassifier
            A fitted estimator that was pretrained.
        {X_images}
            Images of the shape seen in `fit`.
        {n_samples_to_draw}
        {random_choice}
        {ax_of_grid}
        {plot_params}

        Returns
        -------
        {drawn_display}

        Raises
        ------
        TypeError
            If the estimator was not pretrained, or was pretrained on a task that has
            no pictures, as one that combines several.
        """
        check_is_fitted(estimator)
        encoder = getattr(estimator, "encoder_", estimator)
        if not hasattr(encoder, "pretext_"):
            raise TypeError(
                "estimator must have been pretrained on a pretext task, such as a task "
                f"that classifies, got {estimator!r}."
            )
        from .._training.prediction import task_pictures

        images, pretext = encoder._check_task_images(X), encoder.pretext_
        random_state = check_random_state(random_state)
        rows = chosen_rows(len(images), n_samples, random_state)
        chosen = random_state.randint(pretext.n_views, size=len(rows))
        pictures, y_true, y_pred = task_pictures(
            encoder.pretext_model_,
            pretext,
            images[rows],
            random_state.randint(np.iinfo(np.int32).max, size=2, dtype=np.int32),
        )
        chosen += np.arange(len(rows)) * pretext.n_views
        labels = (None if y is None else y[chosen] for y in (y_true, y_pred))
        return cls(pictures[chosen], *labels).plot(ax=ax, **plot_params)

    @classmethod
    def from_predictions(
        cls,
        views,
        y_pred,
        *,
        class_names=None,
        n_samples=5,
        random_state=None,
        ax=None,
        **plot_params,
    ):
        """Draw one random view of randomly chosen images with given predictions.

        Parameters
        ----------
        views : ndarray of shape (n_samples, n_views, height, width, channels)
            Views, as `RotationPretext.transform` makes them.
        y_pred : array-like of shape (n_samples, n_views)
            Predicted labels, as `predict_pretext` returns them.
        class_names : sequence of str, default=None
            Name of each label; None writes the labels themselves.
        {n_samples_to_draw}
        {random_choice}
        {ax_of_grid}
        {plot_params}

        Returns
        -------
        {drawn_display}

        Raises
        ------
        ValueError
            If views are not views, or y_pred does not hold one label for each.
        """
        views, y_pred = np.asarray(views), np.asarray(y_pred)
        if views.ndim != 5 or y_pred.shape != views.shape[:2]:
            raise ValueError(
                "views must have shape (n_samples, n_views, height, width, channels) "
                "and y_pred (n_samples, n_views), got "
                f"{views.shape} and {y_pred.shape}."
            )
        names = np.asarray(
            range(views.shape[1]) if class_names is None else class_names
        )
        random_state = check_random_state(random_state)
        rows = chosen_rows(len(views), n_samples, random_state)
        chosen = random_state.randint(views.shape[1], size=len(rows))
        return cls(
            views[rows, chosen], names[chosen], names[y_pred[rows, chosen]]
        ).plot(ax=ax, **plot_params)
