"""A bit map: which linear gets how many bits, by patterns of module names.

    {"*.mlp.*": 3, "*.down_proj": 8, "model.layers.0.*": 16}

A linear takes the bits of the last pattern that matches it, and the default where none does; 16 leaves it as it is.
"""

from __future__ import annotations

from difflib import get_close_matches
from fnmatch import fnmatchcase

from mmlib.errors import UserError

KEPT = 16
BITS = (2, 3, 4, 5, 6, 7, 8, KEPT)


def resolve(bit_map: dict[str, int], names: list[str], default: int = KEPT) -> dict[str, int]:
    """Name of every linear -> its bits.

    Args:
        bit_map: pattern (shell style: `*`, `?`, `[…]`; a full name is one, too) -> bits.
        names: of the linears that can be quantized.

    Raises:
        UserError: a pattern that matches none of them (similar names are told), or bits that are not supported.
    """
    for pattern, bits in {**bit_map, "the default": default}.items():
        if bits not in BITS or isinstance(bits, bool):
            raise UserError(f"bit map: `{pattern}` asks for {bits} bits", f"choose from {', '.join(map(str, BITS))}")
    found = dict.fromkeys(names, default)
    for pattern, bits in bit_map.items():
        matched = [name for name in names if fnmatchcase(name, pattern)]
        if not matched:
            raise UserError(f"bit map: no linear is named like `{pattern}`", f"did you mean {_near(pattern, names)}?")
        found |= dict.fromkeys(matched, bits)
    return found


def parse(texts: list[str]) -> dict[str, int]:
    """`["*.down_proj=8"]` -> bit map.

    Raises:
        UserError: a text of another form.
    """
    found = {}
    for text in texts:
        pattern, _, bits = text.rpartition("=")
        if not pattern or not bits.isdigit():
            raise UserError(f"bit map: `{text}` is not PATTERN=BITS", "write for example '*.down_proj=8'")
        found[pattern] = int(bits)
    return found


def _near(pattern: str, names: list[str]) -> str:
    """The names most like the pattern; where it has wildcards, its plain end among the ends of the names."""
    near = get_close_matches(pattern, names, n=3, cutoff=0.6)
    if not near:
        kinds = list(dict.fromkeys(name.rpartition(".")[2] for name in names))
        word = pattern.rpartition(".")[2].strip("*?")
        near = [f"*.{kind}" for kind in get_close_matches(word, kinds, n=3, cutoff=0.4)]
    return " or ".join(f"`{name}`" for name in near or names[:1])
