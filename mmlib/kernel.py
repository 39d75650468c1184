"""The kernel that the runner starts: an ordinary IPython kernel that ends when its runner is gone.

After `kill -9` of the runner nobody tells the kernel, and ipykernel's own check waits for adoption by process 1, which
never comes under a supervisor (ipykernel#517): it would hold its memory for ever.
"""

from __future__ import annotations

import os
import sys
import threading
import time


def watch(parent: int, seconds: float = 0.5) -> None:
    """End this process as soon as `parent` is not its parent any more."""
    while os.getppid() == parent:
        time.sleep(seconds)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=watch, args=(os.getppid(),), daemon=True).start()
    # `python -m` puts the working folder first on the path; the project root is there by PYTHONPATH already.
    sys.path = [path for path in sys.path if path != ""]
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance()
