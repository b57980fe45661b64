"""Kill a fit at random moments, again and again, until it ends as it would unkilled.

python tests/stress.py [--kills 25] [--seed 0] [--workers]
    --workers: one of two workers that train together is killed, then the other, as
    launchers do, and both are started again.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from test_distribution import assert_same_result, results, start_workers

SCRIPT = Path(__file__).with_name("killed_fit.py")


def start(folder, name):
    """Start the fit in a process of its own."""
    return subprocess.Popen(
        [sys.executable, SCRIPT, folder / "checkpoints", folder / name],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )


def checkpoints(folder):
    """Return the names of all files that the fit keeps."""
    path = folder / "checkpoints"
    return sorted(x.name for x in path.iterdir()) if path.exists() else []


def killed_run(folder, rng, mean_life):
    """Kill fits at random moments until one ends; return where they were killed."""
    kills = []
    while True:
        process = start(folder, "killed.npz")
        began, life = time.monotonic(), rng.exponential(mean_life)
        while process.poll() is None and time.monotonic() - began < life:
            time.sleep(0.001)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills.append(checkpoints(folder))
            continue
        _, errors = process.communicate()
        assert process.returncode == 0, errors
        assert "Warning:" not in errors, errors
        return kills


def killed_workers(folder, settings, rng, mean_life):
    """Kill workers at random moments until their fit ends; return the files found."""
    kills = []
    while True:
        workers = start_workers(folder, *settings)
        began, life = time.monotonic(), rng.uniform(0.3, 1.0) * mean_life
        while all(x.poll() is None for x in workers):
            if time.monotonic() - began > life:
                break
            time.sleep(0.01)
        else:
            return kills, results(folder, *workers)
        for index in rng.permutation(2):
            workers[index].kill()
            workers[index].communicate()
            time.sleep(rng.uniform(0, 2))
        kills.append(checkpoints(folder))


def kill_workers(n_all, rng, folder):
    """Kill workers so often, and compare every finished fit with an unkilled one."""
    settings = ["self_training='both'", "augmentation='auto'"]
    whole = folder / "whole"
    whole.mkdir()
    began = time.monotonic()
    expected = results(whole, *start_workers(whole, *settings))[0]
    duration = time.monotonic() - began
    n_kills = n_fits = 0
    while n_kills < n_all:
        own = folder / f"fit-{n_fits}"
        own.mkdir()
        kept = [*settings, f"checkpoint_dir={str(own / 'checkpoints')!r}"]
        kills, ended = killed_workers(own, kept, rng, duration)
        n_kills, n_fits = n_kills + len(kills), n_fits + 1
        for result in ended:
            assert_same_result(result, expected)
        assert checkpoints(own) == []
        print(
            f"{n_kills} kills, {n_fits} fits ended, all bits equal: {kills}", flush=True
        )


def main():
    """Kill as often as asked, and compare every finished fit with an unkilled one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", action="store_true")
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    if arguments.workers:
        with tempfile.TemporaryDirectory() as folder:
            kill_workers(arguments.kills, rng, Path(folder))
        return
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        began = time.monotonic()
        process = start(folder, "whole.npz")
        _, errors = process.communicate()
        assert process.returncode == 0, errors
        duration = time.monotonic() - began
        with np.load(folder / "whole.npz") as file:
            expected = dict(file)
        n_kills = n_fits = 0
        stages = {"none": 0, "pretraining": 0, "fine-tuning": 0, "half-written": 0}
        while n_kills < arguments.kills:
            kills = killed_run(folder, rng, duration)
            n_kills, n_fits = n_kills + len(kills), n_fits + 1
            for names in kills:
                last = names[0].split("-", 1)[0] if names else "none"
                stages["fine-tuning" if last == "fine" else last] += 1
                stages["half-written"] += any(x.endswith(".tmp") for x in names)
            with np.load(folder / "killed.npz") as file:
                assert sorted(file) == sorted(expected)
                for name, values in expected.items():
                    np.testing.assert_array_equal(file[name], values)
            assert checkpoints(folder) == []
            print(f"{n_kills} kills, {n_fits} fits ended, all bits equal", flush=True)
    print(f"checkpoints found after the kills: {stages}")


if __name__ == "__main__":
    main()
