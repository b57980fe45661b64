"""The lock that keeps processes from the same training, and the cache behind it."""

import os
import subprocess
import sys
import threading
import time

import pytest

from skssl._storage import lock
from skssl._storage.cache import cached
from skssl._storage.lock import shared_lock


@pytest.fixture(autouse=True)
def short_patience(monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.05)
    monkeypatch.setattr(lock, "PATIENCE", 2.0)


# A process that trains for a while, and writes a line for each training.
WORKER = """
import sys, time
from skssl._storage import lock
lock.BEAT, lock.PATIENCE = 0.05, 2.0
from skssl._storage.cache import cached

def train():
    with open(sys.argv[2], "a") as file:
        file.write(sys.argv[3] + "\\n")
    time.sleep(float(sys.argv[4]))
    return sys.argv[3]

print(cached(sys.argv[1], "k" * 64, train))
"""


def start(folder, name, seconds):
    arguments = [folder / "cache", folder / "trainings", name, str(seconds)]
    command = [sys.executable, "-W", "error", "-c", WORKER, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_at_a_time_holds_a_lock(tmp_path):
    path, inside, seen = str(tmp_path / "locks" / "lock"), [], []

    def work():
        with shared_lock(path) as held:
            inside.append(held)
            seen.append(len(inside))
            time.sleep(0.1)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1, 1, 1, 1]
    assert os.listdir(tmp_path / "locks") == []


def test_a_held_lock_is_not_taken_over_however_long_it_is_held(tmp_path):
    path, order = str(tmp_path / "lock"), []

    def work():
        with shared_lock(path):
            order.append("second")

    with shared_lock(path):
        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(3)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_who_waits_goes_on_once_others_have_done_it(tmp_path):
    path, done = str(tmp_path / "lock"), threading.Event()
    with shared_lock(path):
        threading.Timer(0.2, done.set).start()
        with shared_lock(path, is_done=done.is_set) as held:
            assert not held
        assert os.path.exists(path)
    assert not os.path.exists(path)


def test_an_error_lets_go_of_the_lock(tmp_path):
    path = str(tmp_path / "lock")
    with pytest.raises(KeyError), shared_lock(path):
        raise KeyError
    assert not os.path.exists(path)


def test_a_lock_that_was_left_behind_is_taken_over(tmp_path):
    path = tmp_path / "lock"
    path.write_text("of a process that is gone")
    with shared_lock(str(path)) as held:
        assert held and path.read_text() != "of a process that is gone"
    assert os.listdir(tmp_path) == []


def test_what_has_been_taken_over_is_not_removed_by_the_former_owner(tmp_path):
    path = tmp_path / "lock"
    with shared_lock(str(path)):
        path.write_text("of another")
    assert path.read_text() == "of another"


def test_processes_that_want_the_same_training_make_it_once(tmp_path):
    running = [start(tmp_path, f"worker {k}", 1) for k in range(4)]
    results = {process.communicate(timeout=120)[0] for process in running}
    trainings = (tmp_path / "trainings").read_text().splitlines()
    assert len(trainings) == 1 and results == {f"{trainings[0]}\n"}


def test_a_killed_process_holds_no_lock(tmp_path):
    killed = start(tmp_path, "killed", 600)
    wait_for(tmp_path / "trainings")
    waiting = start(tmp_path, "waiting", 0)
    killed.kill()
    assert killed.communicate(timeout=60)[0] == ""
    assert waiting.communicate(timeout=60)[0] == "waiting\n"


def test_threads_that_want_the_same_training_make_it_once(tmp_path):
    calls, results = [], []

    def train():
        calls.append(True)
        time.sleep(0.5)
        return 7

    def work():
        results.append(cached(tmp_path, "key", train))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [True] and results == [7, 7, 7]
