"""Distil requirements.lock into the few pins that can change a number, one small file per concern.

Stages depend on these files instead of the whole lock: adding a linter must not rerun hours of computing.
"""

from __future__ import annotations

import re
from pathlib import Path

from mmlib import store
from mmlib.errors import UserError

GROUPS = {
    "core": ["accelerate", "gguf", "numpy", "safetensors", "scipy", "tokenizers", "torch", "transformers"],
    "quantization": ["bitsandbytes", "datasets", "if-verifiable", "langdetect", "peft"],
    "world": ["pillow", "pyarrow", "resvg-py"],
    "tive": ["peft"],
}


def pins(root: Path) -> dict[str, str]:
    """Package -> version of requirements.lock; a line that is not an exact pin is an error."""
    found = {}
    for line in (root / "requirements.lock").read_text().splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==(\S+)", line)
        if not match:
            raise UserError(f"requirements.lock: `{line}` is not an exact pin", "write name==version")
        found[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2]
    return found


def distil(root: Path) -> None:
    """Write results/env/<group>.txt for every group of packages."""
    known = pins(root)
    for group, names in GROUPS.items():
        missing = [name for name in names if name not in known]
        if missing:
            raise UserError(f"requirements.lock lacks {', '.join(missing)}", "add the exact pin")
        lines = [f"{name}=={known[name]}" for name in names]
        store.atomic_write(root / "results/env" / f"{group}.txt", "\n".join(lines) + "\n")
