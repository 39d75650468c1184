"""Keys and values of a batch that is continued token by token, with room for what comes.

The cache of `transformers` grows by concatenation: at every token it copies all keys and values that there are, which
for 50 answers costs about as much as the layers themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers.cache_utils import Cache, DynamicLayer

if TYPE_CHECKING:
    from torch import Tensor

ROOM = 32  # tokens


class RoomyLayer(DynamicLayer):
    """`keys` and `values` (N, heads, tokens, d) are the beginnings of buffers with room for `ROOM` tokens more."""

    buffers: tuple[Tensor, ...] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """Write the new keys and values (N, heads, new, d) behind the others; all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        after = before + key_states.shape[-2]
        if self.buffers is None or self.buffers[0].shape[-2] < after:
            old = (self.keys, self.values) if before else (None, None)
            self.buffers = tuple(
                _moved(*pair, after + ROOM) for pair in zip(old, (key_states, value_states), strict=True)
            )
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[..., before:after, :] = new
        self._show(after)
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every row `repeats` times."""
        super().batch_repeat_interleave(repeats)
        self.buffers = None

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows; the room stays."""
        if self.buffers is None:
            super().batch_select_indices(indices)
            return
        length = self.get_seq_length()
        self.buffers = tuple(buffer[indices] for buffer in self.buffers)
        self._show(length)

    def _show(self, length: int) -> None:
        self.keys, self.values = (buffer[..., :length, :] for buffer in self.buffers)


def _moved(old: Tensor | None, new: Tensor, capacity: int) -> Tensor:
    """A buffer (N, heads, capacity, d) that begins with `old`."""
    buffer = new.new_empty(*new.shape[:2], capacity, new.shape[-1])
    if old is not None:
        buffer[..., : old.shape[-2], :] = old
    return buffer


def roomy_cache() -> Cache:
    """An empty cache for any number of layers."""
    return Cache(layer_class_to_replicate=RoomyLayer)
