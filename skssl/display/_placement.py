"""Where a display draws when the user hands over axes."""


def axes_in_place_of(ax, n_axes, n_rows, n_columns, *, title, title_pad, **spacing):
    """Return new axes on a grid where `ax` is, which keeps only its title.

    Parameters
    ----------
    ax : matplotlib Axes
        Axes of a subplot grid, or placed freely by `Figure.add_axes`.
    n_axes : int
        How many cells of the grid to fill, row by row.
    n_rows, n_columns : int
        Shape of the grid.
    title : str or None
        Title of `ax`.
    title_pad : float
        Points between title and grid, for what stands above the new axes.
    **spacing : dict
        `wspace` and `hspace` of the grid. Constrained layout needs neither these nor
        the pad.

    Returns
    -------
    axes : list of matplotlib Axes
        The new axes.
    """
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
        # Free axes, too: a layout engine would move subplots over the whole figure.
        return [figure.add_axes(grid[i].get_position(figure)) for i in range(n_axes)]
    if constrained:
        spacing = {}
        if title:  # which gets room only as part of a row
            title_row, place = place.subgridspec(2, 1, height_ratios=[1e-3, 1])
            ax.set_subplotspec(title_row)
    grid = place.subgridspec(n_rows, n_columns, **spacing)
    return [figure.add_subplot(grid[i]) for i in range(n_axes)]


def narrow(ax, width):
    """Take room from the right of `ax`, where the figure has no layout engine to.

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
