"""Load thousands of damaged and hostile files, and watch what the process does.

python tests/fuzz_load.py [--files 10000] [--seed 0]

Every file has to load, or be refused with a ValueError that says so. Meanwhile nothing
may start a process, open a connection, or write outside of temporary folders, and the
peak of the memory has to stay bounded.
"""

import argparse
import collections
import io
import json
import os
import resource
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
from scikeras.wrappers import KerasClassifier
from sklearn.datasets import load_digits

import skssl

MAX_GROWTH_MB = 500
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.")
NUMBERS = [0, -1, 1, 3, 2**31, 2**63, 10**30, 1e308, "7", None, [], True, float("nan")]
TEXTS = ["", "../../evil", "/etc/passwd", "Lambda", "os", "builtins", "eval", "é" * 999]


def read_zip(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_zip(members, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def flipped(data, rng, most=8):
    data = bytearray(data)
    for _ in range(rng.integers(1, most)):
        data[rng.integers(len(data))] = rng.integers(256)
    return bytes(data)


def spots(node, found):
    """Collect every (container, key) of a tree of JSON."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in list(items):
        found.append((node, key))
        if isinstance(value, dict | list):
            spots(value, found)
    return found


def changed_json(data, rng):
    """Put something absurd somewhere in a JSON, or take something away."""
    tree = json.loads(data)
    for _ in range(rng.integers(1, 3)):
        places = spots(tree, [])
        node, key = places[rng.integers(len(places))]
        kind = rng.integers(4)
        if kind == 0:
            del node[key]
        elif kind == 1:
            other, name = places[rng.integers(len(places))]
            node[key] = json.loads(json.dumps(other[name]))
        else:
            values = NUMBERS if kind == 2 else TEXTS
            node[key] = values[rng.integers(len(values))]
    return json.dumps(tree).encode()


def whole_flipped(original, rng):
    return flipped(original, rng)


def truncated(original, rng):
    return original[: rng.integers(len(original))]


def spliced(original, rng):
    a, b = sorted(rng.integers(len(original), size=2))
    return original[:a] + original[b:] + original[a:b]


def state_changed(original, rng):
    members = read_zip(original)
    change = changed_json if rng.integers(4) else flipped
    members["estimator.json"] = change(members["estimator.json"], rng)
    return write_zip(members)


def network_changed(original, rng):
    members = read_zip(original)
    header = json.loads(members["estimator.json"])
    state = [header["state"], header["state"]["encoder_"]][rng.integers(2)]
    network, change = state["network"], changed_json if rng.integers(4) else flipped
    config = change(network["config"].encode(), rng)
    network["config"] = config.decode(errors="replace")
    members["estimator.json"] = json.dumps(header).encode()
    return write_zip(members)


def array_changed(original, rng):
    """Change the bytes of an array, or make its header declare something absurd."""
    members = read_zip(original)
    arrays = [name for name in members if name.endswith(".npy")]
    name = arrays[rng.integers(len(arrays))]
    if rng.integers(2):
        members[name] = flipped(members[name], rng)
        return write_zip(members)
    shapes = [(), (3,), (10**12,), (-1, -1), (2**62, 4), (0, 10**30), (True,), ("a",)]
    dtypes = ["|O", "<f4", "<f8", "<U0", "<U9999999", "|V0", [("a", "|O")], "M8[ns]"]
    header = {
        "descr": dtypes[rng.integers(len(dtypes))],
        "fortran_order": bool(rng.integers(2)),
        "shape": shapes[rng.integers(len(shapes))],
    }
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, header)
    members[name] = buffer.getvalue() + bytes(int(rng.integers(100)))
    return write_zip(members)


def renamed(original, rng):
    members = read_zip(original)
    name = list(members)[rng.integers(len(members))]
    evil = ["../evil", "/tmp/evil", "a/../../evil", "estimator.pkl", "C:\\evil"]
    new = evil[rng.integers(len(evil))]
    members[new] = members.pop(name) if rng.integers(2) else members[name]
    return write_zip(members)


def bomb(original, rng):
    members = read_zip(original)
    name = list(members)[rng.integers(len(members))]
    members[name] = bytes(10**7) if rng.integers(2) else members[name] + bytes(10**7)
    return write_zip(members, zipfile.ZIP_DEFLATED)


MUTATIONS = {
    whole_flipped: 3,
    truncated: 1,
    spliced: 1,
    state_changed: 3,
    network_changed: 3,
    array_changed: 2,
    renamed: 1,
    bomb: 1,
}


def watch(folder, broken):
    """Record whatever a harmless reader never does."""

    def hook(event, arguments):
        if event.startswith(FORBIDDEN):
            broken.append((event, repr(arguments)[:200]))
        elif event == "open" and isinstance(arguments[0], str | bytes):
            path, mode, flags = arguments
            writes = (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and not os.path.abspath(os.fsdecode(path)).startswith(folder):
                broken.append((event, os.fsdecode(path), mode))

    sys.addaudithook(hook)


def saved_classifier(path):
    """Return the bytes of a small classifier, whose loading has run once."""
    X, y = load_digits(return_X_y=True)
    wrapper = KerasClassifier(
        skssl.build_cnn,
        model__filters=(2,),
        model__dense_units=4,
        optimizer="adam",
        epochs=1,
    )
    clf = skssl.SelfSupervisedClassifier(wrapper, pretrain_epochs=1, random_state=0)
    clf.fit(X[:100], y[:100]).save(path)
    skssl.load(path)
    return path.read_bytes()


def main():
    """Load so many files, and fail at the first that is not met as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    kinds = [kind for kind, weight in MUTATIONS.items() for _ in range(weight)]
    outcomes, reasons, broken = collections.Counter(), collections.Counter(), []
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        path = Path(folder) / "estimator.skssl"
        original = saved_classifier(path)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        watch(folder, broken)
        for trial in range(arguments.files):
            kind = kinds[rng.integers(len(kinds))]
            path.write_bytes(kind(original, rng))
            start = time.perf_counter()
            try:
                skssl.load(path)
                outcomes[kind.__name__, "loaded"] += 1
            except ValueError as error:
                assert "cannot be loaded: " in str(error), error
                outcomes[kind.__name__, "refused"] += 1
                reasons[str(error).split("cannot be loaded: ")[1][:40]] += 1
            slowest = max(slowest, time.perf_counter() - start)
            assert not broken, broken
            left = {
                x for x in os.listdir(folder) if "autograph" not in x
            }  # TensorFlow's
            assert left == {path.name}, left
            if (trial + 1) % 1000 == 0:
                print(f"{trial + 1} files", flush=True)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    growth = (after - before) / 1024
    for key, count in sorted(outcomes.items()):
        print(*key, count)
    print(f"{len(reasons)} reasons, the slowest file took {slowest:.2f} s")
    print(f"peak memory grew by {growth:.0f} MB")
    assert growth <= MAX_GROWTH_MB


if __name__ == "__main__":
    main()
