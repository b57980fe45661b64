"""Time to import skssl, against sklearn.pipeline, in fresh processes.

python benchmarks/imports.py
"""

import argparse
import statistics

from _timing import in_fresh_process, spread

CODE = """
import sys, time
start = time.perf_counter()
import {module}
duration = time.perf_counter() - start
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
print(duration)
"""


def import_time(module):
    return float(in_fresh_process("-c", CODE.format(module=module)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    arguments = parser.parse_args()
    import_time("skssl"), import_time("sklearn.pipeline")  # files into memory
    pairs = [
        (import_time("skssl"), import_time("sklearn.pipeline"))
        for _ in range(arguments.pairs)
    ]
    ours, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"medians: skssl {1000 * ours:.0f} ms, sklearn.pipeline {1000 * theirs:.0f}")
    ratios = spread([a / b for a, b in pairs])
    print(f"skssl / sklearn.pipeline: {ratios} (target 1.2 or less)")
    print("TensorFlow and Keras were not imported.")


if __name__ == "__main__":
    main()
