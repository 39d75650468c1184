"""LLaVA's two stages on the emoji world. Stage 1 aligns projector and language model; stage 2 follows instructions.

Stage 1 has two steps. First the projector alone: the vector of a cell shall point to the word embeddings of what is
in the cell (seconds, and everything after it learns several times faster). Then the language model, the projector kept
as it is (trained along, it forgot colors and sizes while names were learned): dense look-ups first, then plain
questions, then captions too (`lookups` says why).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlib.formats.llava import IMAGE_MARK, Record, Turn
from mmlib.models import lookups
from mmlib.models.clip import epochs, pixels
from mmlib.models.fit import fit
from mmlib.models.llava import IGNORED, encode_turns, pad_batch, patches
from mmlib.models.optimizer import build_muon
from mmlib.world import language
from mmlib.world.nouns import BACKGROUNDS, CELLS, COLOURS, SIGNS, SIZES, by_name
from mmlib.world.render import Renderer
from mmlib.world.scenes import Scene

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerBase

SIMPLE_UNTIL, CAPTIONS_FROM = 0.22, 0.36  # shares of the steps: simple look-ups, all look-ups and questions, captions
CAPTIONS, DIALOGUES = 0.5, 0.3  # shares of the steps from then on; the rest are look-ups
SHARPNESS = 16  # of the softmax over cosines
# Words of which a cell has one.
GROUPS = (CELLS, (*by_name(), "sign", "none"), (*COLOURS, *SIGNS), tuple(SIZES), BACKGROUNDS)
Known = tuple[tuple[list[int], list[int]], "np.ndarray"]  # ids and labels; the picture
CAPTION_QUESTIONS = ("describe the picture .", "what is to be seen ?")


def cell_words(scene: Scene, cell: int) -> list[str]:
    """Words for what is in a cell: its place and ground; name, color and size, or the sign and its word, or `none`."""
    found = next((o for o in scene.objects if o.cell == cell), None)
    words = [found.noun, found.colour, found.size] if found else ["none"]
    if scene.sign and scene.sign.cell == cell:
        words = ["sign", scene.sign.word]
    return [CELLS[cell], scene.background, *words]


def align_projector(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    scenes: list[Scene],
    images: np.ndarray,
    settings: dict[str, Any],
    seed: int,
) -> float:
    """Train the projector to point at the embeddings of a cell's words, one of every group; the mean loss at the end.

    Among the words of a group alone: with the whole vocabulary as alternatives, names were learned last and least.
    """
    import torch

    projector, words = model.model.multi_modal_projector, model.get_input_embeddings().weight.detach()
    length = words.norm(dim=1).mean()
    groups = [words[tokenizer.convert_tokens_to_ids(list(group))] for group in GROUPS]  # (W, D) each
    seen, targets = patches(model, images), _targets(scenes)  # (N, 9, D), (N, 9, 5)
    steps, batch = settings["align_steps"], settings["align_batch"]
    optimizer = build_muon(projector, settings["align_learning_rate"], settings["align_muon_learning_rate"], 0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order, losses = epochs(len(scenes), steps * batch, seed), []
    for step in range(steps):
        part = order[step * batch : (step + 1) * batch]
        loss = _pointing_loss(projector(seen[part]), groups, targets[part], length)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    last = losses[-max(1, steps // 10) :]
    return sum(last) / len(last)


def _pointing_loss(made: Tensor, groups: list[Tensor], targets: Tensor, length: Tensor) -> Tensor:
    """Cross-entropy of cosines within each group, and a penalty that keeps vectors as long as word embeddings.

    A vector ten times as long would drown the words beside it.
    """
    from torch.nn.functional import cross_entropy, normalize

    unit = SHARPNESS * normalize(made, dim=-1)  # (B, 9, D)
    losses = [
        cross_entropy(
            (unit @ normalize(words, dim=-1).T).flatten(0, 1), targets[..., g].flatten(), ignore_index=IGNORED
        )
        for g, words in enumerate(groups)
    ]
    return sum(losses) + (made.norm(dim=-1) / length - 1).square().mean()


def _targets(scenes: list[Scene]) -> Tensor:
    """(N, 9, 5): number of a cell's word within every group, `IGNORED` where it has none."""
    import torch

    places = [{word: number for number, word in enumerate(group)} for group in GROUPS]
    targets = torch.full((len(scenes), len(CELLS), len(GROUPS)), IGNORED)
    for i, scene in enumerate(scenes):
        for cell in range(len(CELLS)):
            for word in cell_words(scene, cell):
                for g, numbers in enumerate(places):
                    if word in numbers:
                        targets[i, cell, g] = numbers[word]
    return targets


def train_stage1(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    scenes: list[Scene],
    images: np.ndarray,
    settings: dict[str, Any],
    seed: int,
    scratch: Path | None = None,
) -> list[dict[str, float]]:
    """Look-ups, then captions too; the language model alone; the learning curve."""
    order, batch = epochs(len(scenes), settings["steps"] * settings["batch"], seed), settings["batch"]
    count = model.config.image_seq_length

    def kind_of(step: int) -> str:
        done, draw = step / settings["steps"], random.Random(f"stage1/{seed}/step {step}")
        if done < SIMPLE_UNTIL:
            return "simple"
        captions = CAPTIONS if done >= CAPTIONS_FROM else 0.0
        weights = (captions, DIALOGUES, 1 - CAPTIONS - DIALOGUES)
        return draw.choices(("caption", "dialogue", "dense"), weights)[0]

    def row(item: int, kind: str) -> tuple[list[int], list[int]]:
        draw, scene = random.Random(f"stage1/{seed}/{item}"), scenes[order[item]]
        if kind == "dialogue":
            return lookups.dialogue_row(tokenizer, scene, draw, count)
        if kind != "caption":
            return lookups.dense_row(tokenizer, scene, draw, count, kind == "simple")
        turns = (Turn("human", f"{IMAGE_MARK}\n{draw.choice(CAPTION_QUESTIONS)}"),
                 Turn("gpt", language.caption(scene, draw)))  # fmt: skip
        return encode_turns(tokenizer, turns, count)

    def collate(items: list[int]) -> dict[str, Tensor]:
        # A batch is all of one kind: look-ups are half as long as captions, and padding would cost a third of the time.
        made = pad_batch([row(item, kind_of(items[0] // batch)) for item in items], tokenizer.pad_token_id)
        return {**made, "pixel_values": pixels(images[[order[item] for item in items]])}

    model.model.multi_modal_projector.requires_grad_(False)
    curve = _train(model, collate, settings, "llava stage 1", seed, scratch)
    model.model.multi_modal_projector.requires_grad_(True)
    return curve


def train_stage2(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    records: list[Record],
    images: Mapping[str, np.ndarray],
    settings: dict[str, Any],
    seed: int,
    known: Sequence[Known] = (),
) -> list[dict[str, float]]:
    """Instruction tuning on records; text-only ones get a blank picture that no token refers to.

    Args:
        images: `image` of a record -> uint8 (72, 72, 3).
        known: rows of stage 1 to rehearse, in batches of their own spread over the run (beside long answers in one
            batch their few words would hardly count). A language model of this size forgets within an epoch what the
            records do not ask for.
    """
    size, steps = settings["batch"], settings["steps"]
    again = [known[i : i + size] for i in range(0, len(known), size)]
    rows = [encode_turns(tokenizer, record.turns, model.config.image_seq_length) for record in records]
    order = epochs(len(records), (steps - len(again)) * size, seed)
    order = by_length(order, [len(ids) for ids, _ in rows], size, seed)

    def collate(items: list[int]) -> dict[str, Tensor]:
        step = items[0] // size
        before = step * len(again) // steps  # rehearsals so far
        if (step + 1) * len(again) // steps > before:
            return _batch([row for row, _ in again[before]], [picture for _, picture in again[before]], tokenizer)
        part = [order[item - before * size] for item in items]
        pictures = [images[records[i].image] for i in part if records[i].image]
        return _batch([rows[i] for i in part], pictures, tokenizer)

    return _train(model, collate, settings, "llava stage 2", seed, None)


def _batch(
    rows: list[tuple[list[int], list[int]]], pictures: list[np.ndarray], tokenizer: PreTrainedTokenizerBase
) -> dict[str, Tensor]:
    import numpy as np

    batch = pad_batch(rows, tokenizer.pad_token_id)
    return {**batch, "pixel_values": pixels(np.stack(pictures))} if pictures else batch


def by_length(order: list[int], lengths: list[int], batch: int, seed: int, window: int = 16) -> list[int]:
    """The same order, but within every `window` batches rows of like length share a batch, and batches are shuffled.

    Saves padding, as LLaVA's own `group_by_modality_length` does; which rows are seen how often does not change.
    """
    draw, made = random.Random(f"length/{seed}"), []
    for start in range(0, len(order), window * batch):
        part = sorted(order[start : start + window * batch], key=lambda i: lengths[i])
        batches = [part[i : i + batch] for i in range(0, len(part), batch)]
        draw.shuffle(batches)
        made += [row for rows in batches for row in rows]
    return made


def _train(
    model: LlavaForConditionalGeneration, collate: Callable, settings: dict[str, Any], name: str, seed: int,
    scratch: Path | None,
) -> list[dict[str, float]]:  # fmt: skip
    model.train()
    return fit(model, collate, name=name, steps=settings["steps"], batch=settings["batch"],
               learning_rate=settings["learning_rate"], muon_learning_rate=settings["muon_learning_rate"], seed=seed,
               scratch=scratch)  # fmt: skip


def images_of(records: list[Record], scenes: list[Scene], renderer: Renderer) -> dict[str, np.ndarray]:
    """Pictures of the records by their `image`, drawn from the scenes."""
    by_id = {scene.id: scene for scene in scenes}
    names = {record.image for record in records if record.image}
    return {name: renderer.render(by_id[Path(name).stem]) for name in sorted(names)}
