"""Workers of TensorFlow, as processes on this machine."""

import json
import os
import socket
import subprocess
import sys


def strategy_of_process():
    """Return the strategy that TF_CONFIG asks for; before anything else of TensorFlow.

    Without TF_CONFIG it is that of a process alone.
    """
    import tensorflow as tf

    if "TF_CONFIG" in os.environ:
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def run_workers(n_workers, *arguments):
    """Run Python in each worker, and return the numbers in the last line of each.

    Parameters
    ----------
    n_workers : int
        Number of workers, which share two threads; 1 is a process without a strategy.
    *arguments : object
        Arguments of Python.

    Returns
    -------
    rows : list of list of float
        A row for each worker.
    """
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n_workers)]
    addresses = [f"127.0.0.1:{x.getsockname()[1]}" for x in sockets]
    for x in sockets:
        x.close()
    processes = []
    for index in range(n_workers):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        if n_workers > 1:
            n_threads = str(2 // n_workers)
            environment["TF_NUM_INTRAOP_THREADS"] = n_threads
            environment["TF_NUM_INTEROP_THREADS"] = n_threads
            task = {"type": "worker", "index": index}
            config = {"cluster": {"worker": addresses}, "task": task}
            environment["TF_CONFIG"] = json.dumps(config)
        processes.append(
            subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    lines = [process.communicate()[0].splitlines()[-1] for process in processes]
    return [[float(number) for number in line.split()] for line in lines]
