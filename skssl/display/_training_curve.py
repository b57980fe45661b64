"""TrainingCurveDisplay: loss and accuracy by epoch."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .._docs import fill_docstrings
from ._placement import axes_on_grid


@fill_docstrings
class TrainingCurveDisplay:
    """Loss and accuracy by epoch, of each stage of training.

    Use :meth:`from_estimator`; it draws at once.

    Parameters
    ----------
    histories : dict of {str: dict of list or None}
        For each stage, in the order of training, "loss" and "accuracy" of each epoch.
        Values of "val_loss" and "val_accuracy", measured on held-out rows, are drawn
        dashed. NaN leaves a gap in the line. The colour of a stage depends on its
        position, so a stage that was not run may be given as None.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (2,)
        Loss and accuracy.
    {figure}

    See Also
    --------
    sklearn.model_selection.LearningCurveDisplay : Scores by number of samples.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from skssl import TrainingCurveDisplay
    >>> history = {"loss": [1.2, 0.4], "accuracy": [0.5, 0.9]}
    >>> display = TrainingCurveDisplay({"pretraining": history}).plot()
    >>> [axes.get_ylabel() for axes in display.axes_]
    ['Loss', 'Accuracy']
    >>> plt.close()
    """

    def __init__(self, histories):
        self.histories = histories

    @classmethod
    def from_estimator(cls, estimator, *, ax=None, **plot_params):
        """Draw the training of a fitted estimator.

        Parameters
        ----------
        estimator : SelfSupervisedClassifier or SelfSupervisedEncoder
            A fitted estimator.
        {ax_of_grid}
        {plot_params}

        Returns
        -------
        {drawn_display}

        Raises
        ------
        TypeError
            If the estimator keeps no histories of training.
        """
        check_is_fitted(estimator)
        if not hasattr(estimator, "_stage_histories"):
            raise TypeError(
                "estimator must be a SelfSupervisedClassifier or a "
                f"SelfSupervisedEncoder, got {estimator!r}. Other histories are drawn "
                "by TrainingCurveDisplay({'training': history}).plot()."
            )
        return cls(estimator._stage_histories()).plot(ax=ax, **plot_params)

    def plot(self, ax=None, *, title=None, line_kw=None):
        """Draw loss and accuracy side by side.

        Parameters
        ----------
        {ax_of_grid}
        title : str, default=None
            Title above both.
        line_kw : dict, default=None
            Further arguments of `matplotlib.axes.Axes.plot`, such as `linewidth`.

        Returns
        -------
        {plotted_display}
        """
        from matplotlib.cbook import normalize_kwargs
        from matplotlib.lines import Line2D

        line_kw = normalize_kwargs(line_kw, Line2D)
        self.axes_ = axes_on_grid(
            ax, 2, 1, 2, figsize=(9, 3.6), title=title, title_pad=16, wspace=0.35
        )
        self.figure_ = self.axes_[0].figure
        for axes, metric in zip(self.axes_, ["loss", "accuracy"], strict=True):
            for position, (stage, history) in enumerate(self.histories.items()):
                params = {"color": f"C{position}", **line_kw}
                history = history or {}
                _draw_line(axes, history.get(metric), "-", stage, params)
                _draw_line(
                    axes,
                    history.get(f"val_{metric}"),
                    "--",
                    f"{stage} (validation)",
                    params,
                )
            axes.set(xlabel="Epoch", ylabel=metric.capitalize())
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.3)
            if axes.lines:
                axes.legend()
        return self


def _draw_line(axes, values, linestyle, label, params):
    """Draw the values of a metric by epoch, if there are any."""
    if values is None:
        return
    # A single epoch between gaps is a point, which a line would not show.
    marker = "." if len(values) < 30 or np.isnan(values).any() else None
    axes.plot(
        np.arange(1, len(values) + 1),
        values,
        **{"linestyle": linestyle, "label": label, "marker": marker, **params},
    )
