"""Where a display draws: in a new figure, or where the user's axes are."""

import numpy as np


def axes_on_grid(
    ax, n_axes, n_rows, n_columns, *, figsize, title, title_pad, **spacing
):
    """Return new axes on a grid, in a new figure or in place of given axes.

    Parameters
    ----------
    ax : matplotlib Axes or None
        Axes of a subplot grid, or placed freely by `Figure.add_axes`. They keep only
        their title. None makes a new figure.
    n_axes : int
        How many cells of the grid to fill, row by row.
    n_rows, n_columns : int
        Shape of the grid.
    figsize : tuple of float
        Width and height of a new figure, in inches.
    title : str or None
        Title of the new figure, or of `ax`.
    title_pad : float
        Points between the title of `ax` and the grid, for what is written above the new
        axes.
    **spacing : dict
        `wspace` and `hspace` of the grid in place of `ax`. Constrained layout needs
        neither these nor the pad.

    Returns
    -------
    axes : ndarray of matplotlib Axes, shape (n_axes,)
        The new axes.
    """
    if ax is not None:
        axes = _axes_in_place_of(
            ax, n_axes, n_rows, n_columns, title, title_pad, spacing
        )
        return np.array(axes)
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=figsize, layout="constrained")
    if title:
        figure.suptitle(title)
    return np.array(
        [figure.add_subplot(n_rows, n_columns, i + 1) for i in range(n_axes)]
    )


def _axes_in_place_of(ax, n_axes, n_rows, n_columns, title, title_pad, spacing):
    from matplotlib.gridspec import GridSpec
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    ax.set_axis_off()
    figure, place = ax.figure, ax.get_subplotspec()
    constrained = isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine)
    if title:
        ax.set_title(title, pad=None if constrained else title_pad)
    if place is None:
        box = ax.get_position(original=True)
        sides = {"left": box.x0, "right": box.x1, "bottom": box.y0, "top": box.y1}
        grid = GridSpec(n_rows, n_columns, **sides, **spacing)
        # Not subplots: a layout engine would move these over the whole figure.
        return [figure.add_axes(grid[i].get_position(figure)) for i in range(n_axes)]
    if constrained:
        spacing = {}
        if title:  # constrained layout makes room for it only in a row of the grid
            title_row, place = place.subgridspec(2, 1, height_ratios=[1e-3, 1])
            ax.set_subplotspec(title_row)
    grid = place.subgridspec(n_rows, n_columns, **spacing)
    return [figure.add_subplot(grid[i]) for i in range(n_axes)]


def narrow(ax, width):
    """Make `ax` narrower from the right, unless a layout engine makes the room.

    Parameters
    ----------
    ax : matplotlib Axes
        Axes of a subplot grid, or placed freely by `Figure.add_axes`.
    width : float
        Pixels to free, at most half of the axes.
    """
    if ax.figure.get_layout_engine() is not None:
        return
    share = min(width / ax.bbox.width, 0.5)
    place = ax.get_subplotspec()
    if place is not None:
        grid = place.subgridspec(1, 2, width_ratios=[1 - share, share], wspace=0)
        ax.set_subplotspec(grid[0])
    else:
        x0, y0, full, height = ax.get_position(original=True).bounds
        ax.set_position([x0, y0, full * (1 - share), height])
