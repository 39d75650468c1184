"""What a piece of work costs: wall-clock and processor seconds, and the memory of this process and all below it."""

from __future__ import annotations

import resource
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

INTERVAL = 0.5  # seconds between looks at the memory; a shorter peak can be missed


class Usage:
    """`with Usage() as usage: …`, then `usage.record()`. Linux and macOS."""

    def __enter__(self) -> Usage:
        self._started, self._spent = time.monotonic(), _processor_seconds()
        self._peak, self._over = resident(), threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._watcher.join()
        self._seconds, self._spent = time.monotonic() - self._started, _processor_seconds() - self._spent

    def _watch(self) -> None:
        while not self._over.wait(INTERVAL):
            self._peak = max(self._peak, resident())

    def record(self) -> dict[str, float]:
        """`seconds`, `cpu_seconds` (user and system; children that ended) and `peak_mib`."""
        numbers = {"seconds": self._seconds, "cpu_seconds": self._spent, "peak_mib": self._peak / 2**20}
        return {name: round(value, 1) for name, value in numbers.items()}


def resident() -> int:
    """Bytes of physical memory of this process and all its descendants.

    What processes share (the code of torch, above all) counts once where the system tells the share of each (Linux);
    elsewhere once for each process, so rather too much than too little.
    """
    import psutil

    own, total = psutil.Process(), 0
    for process in (own, *own.children(recursive=True)):
        try:
            total += _share(process)
        except psutil.Error:  # it ended meanwhile
            continue
    return total


def _share(process: psutil.Process) -> int:
    import psutil

    try:
        return process.memory_full_info().pss
    except (AttributeError, psutil.AccessDenied):
        return process.memory_info().rss


def _processor_seconds() -> float:
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)
