"""Two jobs in turn, and the ratio of their times.

Jobs are compared pair by pair in one run, because the speed of a machine changes over
time. The ratio of two times measured one after the other is less affected by that.
"""

import os
import statistics
import subprocess
import sys
import time


def seconds(job):
    """Return how long a job took, and what it returned."""
    start = time.perf_counter()
    result = job()
    return time.perf_counter() - start, result


def alternate(ours, theirs, *, rival, n_pairs=5, n_warm_ups=1, target=None):
    """Run two jobs in turn and print the ratios theirs / ours.

    Parameters
    ----------
    ours, theirs : callable
        The jobs. A job may return a function, which is called outside the timing and
        returns the accuracy to print next to the time.
    rival : str
        Name of the other side.
    n_pairs, n_warm_ups : int
        Number of pairs that count, and of pairs before these.
    target : float, default=None
        The least ratio aimed at.

    Returns
    -------
    times : tuple of list of float
        Seconds of ours and of theirs, in the order of the pairs.
    """
    times, accuracies = ([], []), ([], [])
    for pair in range(-n_warm_ups, n_pairs):
        sides = list(enumerate((ours, theirs)))
        for side, job in sides[:: 1 if pair % 2 else -1]:  # neither is always first
            duration, accuracy = seconds(job)
            if pair < 0:
                continue
            times[side].append(duration)
            if accuracy is not None:
                accuracies[side].append(accuracy())
        if pair >= 0:
            print(f"  skssl {_time(times[0][-1])}, {rival} {_time(times[1][-1])}")
    ratios = [b / a for a, b in zip(*times, strict=True)]
    print(f"{rival} / skssl: {spread(ratios)}{_aim(target)}")
    if accuracies[0]:
        a, b = map(spread, accuracies)
        print(f"accuracy: skssl {a}; {rival} {b}")
    print(flush=True)
    return times


def spread(values):
    """Return the median and the range of some numbers, as text."""
    middle = statistics.median(values)
    return f"median {middle:.3g}, from {min(values):.3g} to {max(values):.3g}"


def _time(duration):
    return f"{duration:.2f} s" if duration >= 1 else f"{1000 * duration:.3g} ms"


def _aim(target):
    return "" if target is None else f" (target {target:g} or more)"


def in_fresh_process(*arguments):
    """Run Python with these arguments and return the last line it printed."""
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}
    run = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
    )
    if run.returncode:
        raise RuntimeError(f"{arguments} failed:\n{run.stderr}")
    return run.stdout.splitlines()[-1]
