"""Decoding with a key-value cache: prompts once, pictures once per box, two tokens per step.

A model trained on masks predicts at a [MASK] behind what it has said (released code). The cache keeps keys and values
of committed tokens only; a step runs the last token, which is kept, and a [MASK], which is not. Prompts see no target,
so theirs never change. `mmlib.jade.plain` is the same without a cache, through the model's training path.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mmlib.jade.model import Jade
from mmlib.jade.tokens import Words
from mmlib.models.cross_attention import Attention, Layer

TOP_QUESTION, TOP_CAPTION = 10, 3  # candidates of a sampled token
MOST = 12  # tokens of a question, caption or answer: no text of this world is longer


def heads(attention: Attention, x: Tensor) -> Tensor:
    """(R, n, D) -> (R, heads, n, D / heads)."""
    return x.view(*x.shape[:2], attention.heads, -1).transpose(1, 2)


def keys_values(attention: Attention, x: Tensor) -> tuple[Tensor, Tensor]:
    """Of tokens (R, n, D): two of (R, heads, n, D / heads)."""
    return heads(attention, attention.key(x)), heads(attention, attention.value(x))


def look_up(attention: Attention, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention of tokens (R, n, D) to stored keys and values."""
    mixed = functional.scaled_dot_product_attention(heads(attention, attention.query(x)), keys, values, attn_mask=mask)
    return attention.out(mixed.transpose(1, 2).flatten(2))


@dataclass
class Cache:
    """Stored keys and values per layer, (R, heads, slots, D / heads); which slots may be looked at, bool (R, slots).

    `seen`: keys and values of the pictures per layer, (B, heads, s, D / heads); R = B x Q rows, Q about each of B.
    """

    keys: list[Tensor]
    values: list[Tensor]
    valid: Tensor
    seen: list[tuple[Tensor, Tensor]]
    used: int = 0


@torch.inference_mode()
def picture_keys(model: Jade, seen: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Cross-attention's keys and values of pictures (B, s, D), per layer: made once per box."""
    return [keys_values(layer.cross["shared"], seen) for layer in model.layers]


def new_cache(model: Jade, seen: list[tuple[Tensor, Tensor]], prompt: Tensor, slots: int) -> Cache:
    """A cache that holds the prompts (R, m), with room for `slots` target tokens."""
    rows, length = prompt.shape
    width = model.shape.width // model.shape.heads
    store = [torch.zeros(rows, model.shape.heads, length + slots, width) for _ in range(2 * len(model.layers))]
    valid = torch.zeros(rows, length + slots, dtype=torch.bool)
    cache = Cache(store[::2], store[1::2], valid, seen)
    ok = prompt != model.pad
    mask = (ok[:, None, :] | torch.eye(length, dtype=torch.bool)).unsqueeze(1)  # padding looks at itself
    _run(model, cache, model.embed(prompt, 1), mask, keep=length)
    cache.valid[:, :length] = ok
    return cache


def _run(model: Jade, cache: Cache, h: Tensor, mask: Tensor, keep: int) -> Tensor:
    """Layers over new tokens (R, n, D); the first `keep` of them are stored, the others only look.

    Args:
        mask: bool (R, 1, n, used + n), True where a new token may look.
    """
    start, total = cache.used, cache.used + h.shape[1]
    for number, layer in enumerate(model.layers):
        keys, values = keys_values(layer.attend, h)
        stored_keys, stored_values = cache.keys[number], cache.values[number]
        stored_keys[:, :, start:total], stored_values[:, :, start:total] = keys, values
        mixed = look_up(layer.attend, h, stored_keys[:, :, :total], stored_values[:, :, :total], mask)
        h = _rest(layer, layer.norm(h + mixed), cache.seen[number])
    cache.used = start + keep  # what was not kept is overwritten by the next tokens
    return h


def _rest(layer: Layer, h: Tensor, seen: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-attention and feed-forward; rows of one picture look at its keys together."""
    rows, length, width = h.shape
    grouped = h.reshape(len(seen[0]), -1, width)  # (B, Q n, D)
    grouped = layer.cross_norm["shared"](grouped + look_up(layer.cross["shared"], grouped, *seen))
    grouped = layer.last_norm(grouped + layer.shrink(functional.gelu(layer.grow(grouped))))
    return grouped.view(rows, length, width)


def extend(model: Jade, cache: Cache, target: Tensor) -> None:
    """Commit given target tokens (R, n), padded on the right, at places 0 … n - 1."""
    length = target.shape[1]
    ok = target != model.pad
    earlier = cache.valid[:, None, : cache.used].expand(-1, length, -1)
    own = torch.ones(length, length, dtype=torch.bool).tril() & (ok[:, None, :] | torch.eye(length, dtype=torch.bool))
    start = cache.used
    _run(model, cache, model.embed(target, 0), torch.cat([earlier, own], -1).unsqueeze(1), keep=length)
    cache.valid[:, start : start + length] = ok


def step(model: Jade, cache: Cache, last: Tensor, places: Tensor, mask_id: int) -> Tensor:
    """Commit the tokens `last` (R,) at `places` (R,) and score what follows: (R, vocabulary)."""
    pair = torch.stack([last, torch.full_like(last, mask_id)], 1)
    h = model.embed(pair, 0, torch.stack([places, places + 1], 1))
    earlier = cache.valid[:, None, : cache.used].expand(-1, 2, -1)
    own = torch.tensor([[True, False], [True, True]]).expand(len(last), 2, 2)
    start = cache.used
    h = _run(model, cache, h, torch.cat([earlier, own], -1).unsqueeze(1), keep=1)
    cache.valid[:, start] = True
    return model.logits(h[:, 1])


def choose(logits: Tensor, top: int, uniform: Tensor | None, ends: list[int], allow_end: bool) -> Tensor:
    """The next token of each row (R,): greedy without random numbers, else drawn from the `top` best.

    Args:
        uniform: one number in 0 … 1 per row, or None.
        ends: tokens that are not drawn; with `allow_end` False only the arg-max may be one of them (questions: the
            mark that closes a question is taken when it is best, and never drawn).
    """
    best = logits.argmax(-1)
    if uniform is None:
        return best
    open_logits = logits if allow_end else logits.index_fill(1, torch.tensor(ends), float("-inf"))
    values, tokens = open_logits.topk(top, -1)
    cumulative = values.softmax(-1).cumsum(-1)
    place = (cumulative < uniform[:, None] * cumulative[:, -1:]).sum(-1).clamp(max=top - 1)
    drawn = tokens.gather(1, place[:, None])[:, 0]
    return drawn if allow_end else torch.where(torch.isin(best, torch.tensor(ends)), best, drawn)


@dataclass(frozen=True)
class Decoded:
    """Tokens of each row without start and end, probability of each, and whether the row ended by itself."""

    ids: list[list[int]]
    probabilities: list[list[float]]
    ended: list[bool]


def decode(
    model: Jade,
    words: Words,
    seen: list[tuple[Tensor, Tensor]],
    prompts: Tensor,
    *,
    prefix: Tensor | None = None,
    end: int,
    top: int = 1,
    uniforms: Tensor | None = None,
    allow_end: bool = True,
    most: int = MOST,
    forbidden: list[int] | None = None,
) -> Decoded:
    """Texts of R rows behind `[CLS]` (or behind longer prefixes) up to `end`, at most `most` tokens.

    Args:
        seen: from `picture_keys`; prompts: (R, m); prefix: (R, n), padded on the right.
        end: the token that ends a row; top, uniforms (R, MOST): sampling; None: greedy.
    """
    rows = len(prompts)
    prefix = torch.full((rows, 1), words.cls) if prefix is None else prefix
    lengths = (prefix != words.pad).sum(1)
    with torch.inference_mode():
        cache = new_cache(model, seen, prompts, prefix.shape[1] + most + 2)
        # All but the last token of each prefix: that one goes in with the first step.
        last = prefix.gather(1, lengths[:, None] - 1)[:, 0]
        if prefix.shape[1] > 1:
            extend(model, cache, prefix.scatter(1, lengths[:, None] - 1, words.pad)[:, :-1])
        return _loop(model, words, cache, last, lengths - 1, end, top, uniforms, allow_end, most, forbidden)


def _loop(
    model: Jade, words: Words, cache: Cache, last: Tensor, places: Tensor, end: int, top: int,
    uniforms: Tensor | None, allow_end: bool, most: int, forbidden: list[int] | None,
) -> Decoded:  # fmt: skip
    alive = torch.ones(len(last), dtype=torch.bool)
    tokens, chances, running = [], [], []
    for turn in range(most):
        scores = step(model, cache, last, places + turn, words.mask)
        if forbidden:
            scores[:, forbidden] = float("-inf")
        uniform = None if uniforms is None else uniforms[:, turn]
        last = choose(scores, top, uniform, [words.sep, words.answer], allow_end)
        alive = alive & (last != end)
        tokens.append(last)
        chances.append(scores.softmax(-1).gather(1, last[:, None])[:, 0])
        running.append(alive)
        if not alive.any():
            break
    table, said, on = torch.stack(tokens, 1), torch.stack(chances, 1), torch.stack(running, 1).sum(1).tolist()
    ids = [row[:length] for row, length in zip(table.tolist(), on, strict=True)]
    probabilities = [row[:length] for row, length in zip(said.tolist(), on, strict=True)]
    return Decoded(ids, probabilities, (~alive).tolist())
