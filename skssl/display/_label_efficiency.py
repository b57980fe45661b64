"""LabelEfficiencyDisplay: scores by number of labels."""

from .._docs import fill_docstrings
from .._model_selection import label_efficiency_curve

# So many numbers of labels have a tick each; more would run into each other.
MAX_TICKS = 8


@fill_docstrings
class LabelEfficiencyDisplay:
    """Scores by number of labels, one line for each estimator.

    Use :meth:`from_estimators`; it draws at once.

    Parameters
    ----------
    n_labels : array-like of shape (n_ticks,)
        Numbers of labels.
    test_scores : dict of {str: ndarray of shape (n_ticks, n_splits)}
        Scores of each estimator, as `label_efficiency_curve` returns them.
    score_name : str, default="Score"
        What the scores are; it names the axis.

    Attributes
    ----------
    axes_ : matplotlib Axes
        The axes with the lines.
    {figure}

    See Also
    --------
    label_efficiency_curve : Measures the scores.
    sklearn.model_selection.LearningCurveDisplay : Scores by number of samples.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from skssl import LabelEfficiencyDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> display = LabelEfficiencyDisplay.from_estimators(
    ...     [("neighbour", KNeighborsClassifier(1)), ("Bayes", GaussianNB())],
    ...     X,
    ...     y,
    ...     random_state=0,
    ... )
    >>> [text.get_text() for text in display.axes_.get_legend().texts]
    ['neighbour', 'Bayes']
    >>> plt.close()
    """

    def __init__(self, n_labels, test_scores, *, score_name="Score"):
        self.n_labels = n_labels
        self.test_scores = test_scores
        self.score_name = score_name

    @classmethod
    def from_estimators(
        cls,
        estimators,
        X,
        y,
        *,
        n_labels=(10, 20, 50, 100),
        unlabeled_label=-1,
        cv=None,
        scoring=None,
        n_jobs=None,
        random_state=None,
        ax=None,
        **plot_params,
    ):
        """Measure the scores by `label_efficiency_curve` and draw them.

        Parameters
        ----------
        {estimators_to_compare}
        {X_to_split}
        {y_to_hide}
        {n_labels}
        {unlabeled_label}
        {cv_of_labelled}
        {scoring}
        {n_jobs}
        {random_labels}
        {ax}
        {plot_params}

        Returns
        -------
        {drawn_display}
        """
        curve = label_efficiency_curve(
            estimators,
            X,
            y,
            n_labels=n_labels,
            unlabeled_label=unlabeled_label,
            cv=cv,
            scoring=scoring,
            n_jobs=n_jobs,
            random_state=random_state,
        )
        score_name = "Score" if callable(scoring) else scoring or "accuracy"
        score_name = score_name.replace("_", " ")
        return cls(
            curve.n_labels,
            curve.test_scores,
            score_name=score_name[0].upper() + score_name[1:],
        ).plot(ax=ax, **plot_params)

    def plot(self, ax=None, *, title=None, line_kw=None):
        """Draw the mean over the splits, and one standard deviation as a shade.

        Parameters
        ----------
        {ax}
        title : str, default=None
            Title of the axes.
        line_kw : dict, default=None
            Further arguments of `matplotlib.axes.Axes.plot`, such as `linewidth`.

        Returns
        -------
        {plotted_display}
        """
        import matplotlib.pyplot as plt
        from matplotlib.cbook import normalize_kwargs
        from matplotlib.lines import Line2D
        from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

        if ax is None:
            _, ax = plt.subplots(layout="constrained")
        self.figure_, self.axes_ = ax.figure, ax
        line_kw = normalize_kwargs(line_kw, Line2D)
        for position, (name, scores) in enumerate(self.test_scores.items()):
            mean, spread = scores.mean(axis=1), scores.std(axis=1)
            params = {"color": f"C{position}", "marker": "o", "label": name, **line_kw}
            (line,) = ax.plot(self.n_labels, mean, **params)
            ax.fill_between(
                self.n_labels,
                mean - spread,
                mean + spread,
                color=line.get_color(),
                alpha=0.15,
                linewidth=0,
            )
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_minor_locator(NullLocator())
        if len(self.n_labels) <= MAX_TICKS:
            ax.set_xticks(self.n_labels)
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        ax.set(xlabel="Number of labels", ylabel=self.score_name)
        if title is not None:
            ax.set_title(title)
        ax.grid(alpha=0.3)
        ax.legend()
        return self
