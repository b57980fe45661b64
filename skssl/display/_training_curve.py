"""TrainingCurveDisplay: loss and accuracy by epoch."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ._placement import axes_in_place_of

STAGES = {"pretraining": "tab:blue", "fine-tuning": "tab:orange"}


class TrainingCurveDisplay:
    """Loss and accuracy by epoch, of pretraining and of fine-tuning.

    Use :meth:`from_estimator`; it draws at once.

    Parameters
    ----------
    histories : dict of {str: dict of list}
        For each stage, in the order of training, the values of each epoch, NaN where
        there is none: the line has a gap there. Keys starting with "val_" are measured
        on held-out rows and drawn dashed.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (2,)
        Loss and accuracy.
    figure_ : matplotlib Figure
        The figure they are in.

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
        ax : matplotlib Axes, default=None
            Axes in whose place to draw; None makes a new figure.
        **plot_params : dict
            Further arguments of `plot`.

        Returns
        -------
        display : TrainingCurveDisplay
            The display, drawn.
        """
        check_is_fitted(estimator)
        histories = [
            getattr(
                estimator, "pretrain_history_", getattr(estimator, "history_", None)
            ),
            getattr(estimator, "finetune_history_", None),
        ]
        stages = zip(STAGES, histories, strict=True)
        return cls({name: values for name, values in stages if values}).plot(
            ax=ax, **plot_params
        )

    def plot(self, ax=None, *, title=None, line_kw=None):
        """Draw loss and accuracy side by side.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes in whose place to draw both; None makes a new figure.
        title : str, default=None
            Title of both.
        line_kw : dict, default=None
            Further arguments of `matplotlib.axes.Axes.plot`, such as `linewidth`.

        Returns
        -------
        display : TrainingCurveDisplay
            The display itself, with `axes_` and `figure_`.
        """
        import matplotlib.pyplot as plt

        if ax is None:
            self.figure_, axes = plt.subplots(
                1, 2, figsize=(9, 3.6), layout="constrained"
            )
            if title:
                self.figure_.suptitle(title)
        else:
            self.figure_ = ax.figure
            axes = axes_in_place_of(ax, 2, 1, 2, title=title, title_pad=16, wspace=0.35)
        self.axes_ = np.asarray(axes)
        for axes, metric in zip(self.axes_, ["loss", "accuracy"], strict=True):
            self._draw(axes, metric, line_kw or {})
        return self

    def _draw(self, axes, metric, line_kw):
        for stage, history in self.histories.items():
            color = STAGES.get(stage)
            for key, style, suffix in [
                (metric, "-", ""),
                (f"val_{metric}", "--", " (validation)"),
            ]:
                if key in history:
                    epochs = np.arange(1, len(history[key]) + 1)
                    # A single epoch is a point, which a line would not show.
                    gaps = np.isnan(history[key]).any()
                    marker = "." if len(epochs) < 30 or gaps else None
                    axes.plot(
                        epochs,
                        history[key],
                        style,
                        **{
                            "color": color,
                            "marker": marker,
                            "label": stage + suffix,
                            **line_kw,
                        },
                    )
        axes.set(xlabel="Epoch", ylabel=metric.capitalize())
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
