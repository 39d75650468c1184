"""What work costs: the memory and processor time of children count, too."""

from __future__ import annotations

import subprocess
import sys

from mmlib.usage import Usage, resident

SHARING = """
import mmap, sys, time
file = open(sys.argv[1], "r+b")
held = mmap.mmap(file.fileno(), 0)
sum(held[::4096])
print("ready", flush=True)
time.sleep(60)
"""

HUNGRY = """
import time
held = bytearray(200 << 20)
end = time.process_time() + 0.5
while time.process_time() < end:
    pass
time.sleep(1)
"""


def test_a_child_s_memory_and_processor_time_are_counted():
    before = resident() / 2**20
    with Usage() as usage:
        subprocess.run([sys.executable, "-c", HUNGRY], check=True)
    used = usage.record()
    assert used["peak_mib"] > before + 190
    assert used["cpu_seconds"] >= 0.5 and used["seconds"] >= 1.5


def test_idle_work_costs_nothing():
    with Usage() as usage:
        pass
    assert usage.record()["cpu_seconds"] < 0.5 and usage.record()["seconds"] < 1


def test_shared_memory_counts_once(tmp_path):
    path = tmp_path / "shared"
    path.write_bytes(b"x" * (200 << 20))
    before = resident() / 2**20
    running = [subprocess.Popen([sys.executable, "-c", SHARING, path], stdout=subprocess.PIPE) for _ in range(3)]
    try:
        for process in running:
            process.stdout.readline()
        assert 190 < resident() / 2**20 - before < 300, "not 600: the pages are the same"
    finally:
        for process in running:
            process.kill()
