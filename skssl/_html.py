"""The training of a fitted estimator as a table, for notebooks."""

from html import escape


def training_table(histories, seconds):
    """Return epochs, final loss and time of each stage as HTML.

    Parameters
    ----------
    histories : dict of str to (dict of list, or None)
        Loss and metrics of each epoch of each stage, None where it was not run.
    seconds : sequence of float
        How long each stage took; empty where that is not known.

    Returns
    -------
    html : str
        The table. It has no colours, so it suits dark and light pages.
    """
    names = ["stage", "epochs", "final loss", *(["seconds"] if len(seconds) else [])]
    rows = [f"<th>{name}</th>" for name in names], *_rows(histories, seconds)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<table class="skssl-training">{body}</table>'


def _rows(histories, seconds):
    """Yield the cells of each stage that was run."""
    for position, (name, history) in enumerate(histories.items()):
        if history:
            losses = history["loss"]
            cells = [escape(name), len(losses), f"{losses[-1]:.4g}"]
            cells += [f"{x:.1f}" for x in seconds[position : position + 1]]
            yield [f"<td>{cell}</td>" for cell in cells]
