"""EmbeddingDisplay: embeddings as points in the plane, coloured by class."""

import math

import numpy as np
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.multiclass import check_classification_targets

from .._data.labels import known_labels
from .._docs import fill_docstrings
from ._placement import narrow

# Unlabelled points have a grey near the background: so much of the colour of text is in
# it, and the rest is the background.
UNLABELLED = 0.17


@fill_docstrings
class EmbeddingDisplay:
    """Embeddings in two dimensions, coloured by class.

    Use :meth:`from_estimator` or :meth:`from_embeddings`; they draw at once.

    Parameters
    ----------
    points : ndarray of shape (n_samples, 2)
        The embeddings in two dimensions.
    {y_of_points}
    transformer : transformer, default=None
        The fitted transformer that made the points; it names the axes.
    {unlabeled_label}

    Attributes
    ----------
    axes_ : matplotlib Axes
        The axes with the points.
    {figure}

    See Also
    --------
    PredictionDisplay : Images with their true and predicted class.
    SelfSupervisedEncoder : Learns embeddings of images without labels.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn.datasets import load_digits
    >>> from skssl import EmbeddingDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> display = EmbeddingDisplay.from_embeddings(X, y)
    >>> display.points.shape
    (1797, 2)
    >>> display.axes_.get_xlabel()
    'PCA 1 (15% of variance)'
    >>> plt.close()
    """

    def __init__(self, points, y=None, *, transformer=None, unlabeled_label=-1):
        self.points = points
        self.y = y
        self.transformer = transformer
        self.unlabeled_label = unlabeled_label

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y=None,
        *,
        transformer=None,
        unlabeled_label=-1,
        ax=None,
        **plot_params,
    ):
        """Embed samples and draw the embeddings.

        Parameters
        ----------
        estimator : transformer
            Fitted, such as SelfSupervisedEncoder, SelfSupervisedClassifier or a
            Pipeline that ends in one; its `transform` gives the embeddings.
        X : array-like of shape (n_samples, ...)
            Samples as the estimator takes them.
        {y_of_points}
        {embedding_transformer}
        {unlabeled_label}
        {ax}
        {plot_params}

        Returns
        -------
        {drawn_display}

        Raises
        ------
        TypeError
            If the estimator has no `transform`.
        ValueError
            As `from_embeddings` does.
        """
        if not hasattr(estimator, "transform"):
            raise TypeError(
                "estimator must have a transform method that gives embeddings, as "
                f"SelfSupervisedEncoder has, got {estimator!r}."
            )
        return cls.from_embeddings(
            estimator.transform(X),
            y,
            transformer=transformer,
            unlabeled_label=unlabeled_label,
            ax=ax,
            **plot_params,
        )

    @classmethod
    def from_embeddings(
        cls,
        embeddings,
        y=None,
        *,
        transformer=None,
        unlabeled_label=-1,
        ax=None,
        **plot_params,
    ):
        """Draw given embeddings.

        Parameters
        ----------
        embeddings : array-like of shape (n_samples, n_features)
            Embeddings, as `SelfSupervisedEncoder.transform` returns them.
        {y_of_points}
        {embedding_transformer}
        {unlabeled_label}
        {ax}
        {plot_params}

        Returns
        -------
        {drawn_display}

        Raises
        ------
        ValueError
            If the embeddings are no rows of numbers, if they differ from y in length,
            or if `transformer` brings them to another number of dimensions than two.
        """
        embeddings = check_array(embeddings, input_name="embeddings")
        check_consistent_length(embeddings, y)
        if transformer is None:
            transformer = PCA(n_components=2, random_state=0)
        transformer = clone(transformer)
        if hasattr(transformer, "fit_transform"):  # t-SNE has no transform
            points = transformer.fit_transform(embeddings)
        else:  # FrozenEstimator has no fit_transform
            points = transformer.fit(embeddings, None).transform(embeddings)
        points = np.asarray(points)
        if points.shape[1:] != (2,):
            raise ValueError(
                "transformer must bring embeddings to shape (n_samples, 2), got "
                f"{points.shape} from {transformer!r}. Most take n_components=2."
            )
        return cls(
            points, y, transformer=transformer, unlabeled_label=unlabeled_label
        ).plot(ax=ax, **plot_params)

    def plot(self, ax=None, *, cmap=None, title=None, **scatter_kw):
        """Draw the points, unlabelled ones in light grey beneath the others.

        Parameters
        ----------
        {ax}
            The legend is drawn to their right. Where the figure has no layout engine,
            the axes are made narrower for it.
        cmap : str or matplotlib Colormap, default=None
            Colours of the classes: in turn those of a qualitative colormap, evenly
            spaced ones of any other. None is "tab10" for up to 10 classes, "tab20" for
            up to 20 (both with darker greys) and "turbo" for more.
        title : str, default=None
            Title of the axes.
        **scatter_kw : dict
            Further arguments of `matplotlib.axes.Axes.scatter`, such as `s`, `alpha` or
            `marker`.

        Returns
        -------
        {plotted_display}
        """
        import matplotlib.pyplot as plt

        classes, rows, targets = self._labelled()
        in_new_figure = ax is None
        if in_new_figure:
            _, ax = plt.subplots(layout="constrained")
        self.figure_, self.axes_ = ax.figure, ax
        style = {"s": 14, "alpha": 0.8, **scatter_kw}
        handles = []
        if self.y is None:
            ax.scatter(*self.points.T, **style)
        elif len(rows) < len(self.points):
            others = np.delete(self.points, rows, axis=0)
            handles.append(
                ax.scatter(
                    *others.T, **style, color=_grey(ax, UNLABELLED), label="unlabelled"
                )
            )
        if len(rows):
            colors = _class_colors(cmap, len(classes), ax)
            # One call for all classes, so that the last does not cover the others.
            ax.scatter(*self.points[rows].T, c=colors[targets], **style)
            of_classes = [
                ax.scatter([], [], color=color, label=label, **style)
                for label, color in zip(classes, colors, strict=True)
            ]
            handles = of_classes + handles
        xlabel, ylabel = _axis_names(self.transformer)
        ax.set(xlabel=xlabel, ylabel=ylabel)
        if title is not None:
            ax.set_title(title)
        if handles:
            legend_width = _draw_legend(ax, handles)
            if in_new_figure:
                width = self.figure_.get_figwidth() + legend_width / self.figure_.dpi
                self.figure_.set_figwidth(width)
            else:
                narrow(ax, legend_width)
        return self

    def _labelled(self):
        """Return the classes, the labelled rows and the class index of these."""
        if self.y is None:
            return [], [], []
        rows, labels = known_labels(self.y, self.unlabeled_label)
        if len(rows):
            check_classification_targets(labels)
        classes, targets = np.unique(labels, return_inverse=True)
        return classes, rows, targets


def _draw_legend(ax, handles):
    """Draw the legend to the right of `ax` and return its width in pixels."""
    params = {
        "handles": handles,
        "loc": "upper left",
        "bbox_to_anchor": (1.02, 1.0),
        "borderaxespad": 0,
        "fontsize": "small",
        "frameon": False,
        "handletextpad": 0.2,
        "columnspacing": 1.0,
    }
    height = ax.legend(**params).get_window_extent().height
    legend = ax.legend(**params, ncols=math.ceil(height / ax.bbox.height))
    for handle in legend.legend_handles:
        handle.set(alpha=1, sizes=[30])
    return legend.get_window_extent().x1 - ax.bbox.x1


def _grey(ax, share):
    """Return a mixture of the colours of text and background, of shape (3,)."""
    import matplotlib as mpl

    text, background = (
        np.array(mpl.colors.to_rgb(x))
        for x in (mpl.rcParams["text.color"], ax.get_facecolor())
    )
    return share * text + (1 - share) * background


def _class_colors(cmap, n_classes, ax):
    """Return the colour of each class, of shape (n_classes, 4)."""
    import matplotlib as mpl

    name = "tab10" if n_classes <= 10 else "tab20" if n_classes <= 20 else "turbo"
    colormap = mpl.colormaps.get_cmap(name if cmap is None else cmap)
    if colormap.N > 20:  # not qualitative: neighbours look alike
        return colormap(np.linspace(0, 1, n_classes))
    colors = colormap(np.arange(n_classes) % colormap.N)
    if cmap is None:  # make greys unlike that of unlabelled points
        for row in np.flatnonzero(np.ptp(colors[:, :3], axis=1) == 0):
            colors[row, :3] = _grey(ax, 1 - 0.4 * colors[row, 0])
    return colors


def _axis_names(transformer):
    """Return the labels of the two axes, with the share of variance where known."""
    if transformer is None:
        return "", ""
    if isinstance(transformer, FrozenEstimator):
        transformer = transformer.estimator
    if isinstance(transformer, Pipeline):
        transformer = transformer[-1]
    names = [f"{type(transformer).__name__} {i}" for i in (1, 2)]
    shares = getattr(transformer, "explained_variance_ratio_", None)
    if shares is None:
        return names
    return [
        f"{name} ({share:.0%} of variance)"
        for name, share in zip(names, shares, strict=False)
    ]
