"""V3, pre-training tasks one by one; V4, what to tokenise (sections 2 and 4); runs V5 as well."""

from __future__ import annotations

import copy
import functools
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmlib.models.fusion_encoder import Encoder, Shape, contrast, parameters, train
from mmlib.survey_vlp import questions, scenes
from mmlib.survey_vlp.masks import IMAGE_MASKS, TEXT_MASKS, run_masks
from mmlib.survey_vlp.questions import HELD_OUT, LENGTH
from mmlib.survey_vlp.records import as_evidence

REPEATS = 10  # of what is timed
# Of V4, for all kinds of token alike: the spread of initial position embeddings, and the rate. In pilots on another
# seed patches reached 87 % of colors in 600 steps with these; with a third kind of question (places) 38 % in 450.
PLACES, TOKEN_RATE = 0.5, 2.0
TASKS = {
    "scratch": (), "MLM": ("mlm",), "MLM+ITM": ("mlm", "itm"), "MLM+ITM+MRC": ("mlm", "itm", "mrc"),
    "MLM+ITM+MRFR": ("mlm", "itm", "mrfr"), "MLM+ITM+CMCL": ("mlm", "itm", "cmcl"),
    "all five": ("mlm", "itm", "mrc", "mrfr", "cmcl"), "PrefixLM": ("prefix",),
}  # fmt: skip
LONGER = "scratch, equal passes"  # color questions in all of its passes: what pre-training has to beat
PERMUTED = ("MLM", "PrefixLM")  # also on captions that say nothing about which color belongs to which thing
MISSED = {"region": 0.0, "region, 20% missed": 0.2, "region, 50% missed": 0.5}
COPIED = {f"picture, {mask}": f"copied neighbours, {mask}" for mask in IMAGE_MASKS if mask != "attended"}
ARMS: dict[str, dict[str, Any]] = {
    **{arm: {"study": "tasks", "tasks": list(tasks)} for arm, tasks in TASKS.items()},
    LONGER: {"study": "tasks", "tasks": [], "longer": True},
    **{f"{arm}, permuted captions": {"study": "tasks", "tasks": list(TASKS[arm]), "unbound": True} for arm in PERMUTED},
    **{arm: {"study": "tokens"} for arm in (*MISSED, "grid", "patch")},
    **{f"text, {mask}": {"study": "masks", "mask": mask} for mask in TEXT_MASKS},
    **{f"picture, {mask}": {"study": "masks", "mask": mask} for mask in IMAGE_MASKS},
}  # fmt: skip
METRICS = {
    "tasks": {
        "color": ("question", True, 1 / 6),
        "color_nats": ("question", False, None),
        "r1": ("pair", True, 0.0),
        "r1_nats": ("pair", False, None),
        "statement": ("statement", True, 0.5),
        "statement_nats": ("statement", False, None),
    },
    "tokens": {
        **{kind: ("question", True, 0.0) for kind in scenes.KINDS},
        # Asked the next scene's question; and how often that is right less than the scene's own question is.
        **{f"{kind}_{name}": ("question", True, None) for kind in scenes.KINDS for name in ("other", "read")},
        "log10_embed_seconds": ("model", False, None),
        **{f"{kind}_nats": ("question", False, None) for kind in scenes.KINDS},
    },
    "masks": {name: ("scene", False, None)
              for name in ("loss", "use", "content_use", "error", "copy", "text_use", "thing_use")},
}  # fmt: skip


# ---- V3 --------------------------------------------------------------------------------------------------------------


def task_loss(model: Encoder, task: str, ids: Tensor, image: Tensor, nouns: Tensor, draw: torch.Generator) -> Tensor:
    """One of the survey's objectives on captions (B, T) and cells (B, 4, 432) that show `nouns` (B, 4)."""
    if task == "cmcl":
        return contrast(*model.vectors(*model.alone(ids, image)), model.scale())
    if task == "prefix":
        logits = model.head("words", model(ids[:, :-1], image, causal=True)[0])
        return functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], ignore_index=scenes.PAD)
    if task == "itm":  # half of the pictures belong to another caption
        order, half = torch.arange(len(ids)), len(ids) // 2
        order[:half] = order[:half].roll(1)
        logits = model.head("match", model(ids[order], image)[0][:, 0])
        return functional.cross_entropy(logits, (order == torch.arange(len(ids))).long())
    if task == "mlm":
        hit = (ids > scenes.END) & (torch.rand(ids.shape, generator=draw) < 0.3)
        hidden, _ = model(ids.masked_fill(hit, scenes.MASK), image)
        return functional.cross_entropy(model.head("words", hidden[hit]), ids[hit])
    hit = torch.rand(image.shape[:2], generator=draw) < 0.3
    _, hidden = model(ids, torch.where(hit[..., None], model.embed_masked, image))
    if task == "mrc":
        return functional.cross_entropy(model.head("nouns", hidden[hit]), nouns[hit])
    return functional.mse_loss(model.head("pixels", hidden[hit]), image[hit])


def turn(items: Tensor, tasks: list[str], count: int) -> str:
    """The task of a batch of numbered items: in turn, and one further in every epoch of `count` scenes, so that no
    task sees the same part of the scenes only."""
    step = int(items[0]) // len(items)
    return tasks[(step + step // (count // len(items))) % len(tasks)]


def permuted(things: np.ndarray, seed: int) -> np.ndarray:
    """Scenes whose colors were moved on by 0, 1 or 2 things, each a third of them: no caption tells what binds."""
    by = np.random.default_rng(seed).integers(3, size=len(things))
    return np.concatenate([questions.moved(row[None], k) for row, k in zip(things, by, strict=True)])


def run_tasks(arm: str, tasks: list[str], settings: dict[str, Any], seed: int, longer: bool = False,
              unbound: bool = False) -> dict[str, Any]:  # fmt: skip
    """Pre-train with the arm's tasks in turn (a pass each, equal steps); then few steps of color questions, and, from
    the same start, of matching texts and pictures that are read apart.

    Args:
        longer: no tasks, but as many passes in all, of color questions; without matching.
        unbound: captions of `permuted` scenes.
    """
    data = questions.pool(settings["scenes"], seed + 1)
    image, count, text = questions.tiles(data), len(data["text"]), data["text"]
    if unbound:
        said = scenes.captions(permuted(data["things"].numpy(), seed), seed + 1)
        text = torch.from_numpy(scenes.encode(said, LENGTH))
    nouns = torch.where(data["things"][..., 0] < 0, len(scenes.NAMES), data["things"][..., 0])
    size = image.shape[1:]
    heads = {"words": scenes.SIZE, "match": 2, "nouns": len(scenes.NAMES) + 1, "pixels": size[1]}
    shape = Shape(scenes.SIZE, joint=2, length=LENGTH, tokens=size[0], values=size[1],
                  heads=heads | {"to_text": 64, "to_image": 64})  # fmt: skip
    model, draw = Encoder(shape, seed), torch.Generator().manual_seed(seed)

    def pretrain(items: Tensor) -> Tensor:
        task, items = turn(items, tasks, count), items % count
        return task_loss(model, task, text[items], image[items], nouns[items], draw)

    def tune(items: Tensor) -> Tensor:
        items = items % count
        return functional.cross_entropy(
            questions.answer(model, data["ids"][0, items], image[items]), data["answers"][0, items]
        )

    def match(items: Tensor) -> Tensor:
        return task_loss(finder, "cmcl", data["text"][items % count], image[items % count], None, draw)

    if tasks:
        train(model, pretrain, settings["task_steps"], settings["batch"], seed)
    finder, before = copy.deepcopy(model), settings["task_steps"] if tasks or longer else 0
    train(model, tune, settings["tune_steps"] + before * longer, settings["batch"], seed)
    test = questions.pool(settings["test_scenes"], HELD_OUT, part="test")
    with torch.inference_mode():
        logits = questions.answer(model, test["ids"][0], questions.tiles(test))
    scores = questions.judged(logits, test["answers"][0], "color")
    if not longer:
        train(finder, match, settings["match_steps"], settings["batch"], seed)
        scores |= found(finder, test)
    scores |= questions.compare(functools.partial(questions.color_logits, model), settings)
    passes = before + settings["tune_steps"]
    return {"scores": scores, "cost": {"parameters": parameters(model), "passes": passes}}


def found(model: Encoder, test: dict[str, Tensor]) -> dict[str, list[float]]:
    """R@1 of pictures for captions, read apart, and nats of the right picture."""
    with torch.inference_mode():
        said, shown = model.vectors(*model.alone(test["text"], questions.tiles(test)))
        logits = model.scale() * said @ shown.T
    return questions.judged(logits, torch.arange(len(said)), "r1")


# ---- V4 --------------------------------------------------------------------------------------------------------------


class Grid(nn.Module):
    """Two convolutions: a picture (B, 24, 24, 3) becomes sixteen cells of a feature map (B, 16, d)."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 4, 2, 1), nn.Conv2d(32, d, 3, 3)

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 24, 24, 3) -> (B, 16, d)."""
        return self.second(functional.gelu(self.first(pictures.permute(0, 3, 1, 2)))).flatten(2).transpose(1, 2)


def tokens(arm: str, data: dict[str, Tensor], seed: int) -> tuple[Tensor, Tensor | None]:
    """Visual tokens of every scene, and which are seen: boxes of things less those that a detector misses, or all."""
    if arm not in MISSED:
        return (data["pixels"] if arm == "grid" else questions.tiles(data, 6)), None
    full = data["things"][..., 0] >= 0
    return questions.tiles(data), full & (
        torch.rand(full.shape, generator=torch.Generator().manual_seed(seed)) >= MISSED[arm]
    )


def asked(arm: str, count: int, seed: int, draw: int, part: str = "train") -> tuple[Tensor, Tensor, Tensor, Any]:
    """Questions of all kinds: ids (K, N, 3), answers (K, N), visual tokens (K, N, ...), which are seen (K, N, 4).

    Colors are asked of three things that all differ, so that the picture alone does not say which of them is meant;
    counts of one to four things, of which several may be alike.
    """
    pools = [questions.pool(count, seed, repeat=kind == "count", part=part) for kind in scenes.KINDS]
    image, seen = zip(*(tokens(arm, data, draw) for data in pools), strict=True)
    ids, answers = (torch.stack([data[name][k] for k, data in enumerate(pools)]) for name in ("ids", "answers"))
    return ids, answers, torch.stack(image), None if seen[0] is None else torch.stack(seen)


def token_model(arm: str, seed: int) -> Encoder:
    """A single stream for one kind of visual token."""
    size = {"patch": (16, 108), "grid": (16, 1)}.get(arm, (4, 432))
    shape = Shape(scenes.SIZE, joint=2, tokens=size[0], values=size[1], length=LENGTH, places=PLACES,
                  heads={"words": scenes.SIZE})  # fmt: skip
    return Encoder(shape, seed, Grid(shape.width) if arm == "grid" else None)


def run_tokens(arm: str, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """A single stream over one kind of visual token, questions of all kinds; and, as control, the next scene's
    questions: who answers those as well as its own does not read them."""
    model, (ids, answers, image, seen) = token_model(arm, seed), asked(arm, settings["scenes"], seed + 1, seed)

    def loss(items: Tensor) -> Tensor:
        kind, scene = items % len(scenes.KINDS), items // len(scenes.KINDS) % ids.shape[1]
        part = None if seen is None else seen[kind, scene]
        logits = questions.answer(model, ids[kind, scene], image[kind, scene], part)
        return functional.cross_entropy(logits, answers[kind, scene])

    train(model, loss, settings["token_steps"], settings["batch"], seed, TOKEN_RATE)
    test, scores, started = asked(arm, settings["test_scenes"], HELD_OUT, 1, "test"), {}, time.process_time()
    for k, kind in enumerate(scenes.KINDS):
        scores |= judge_tokens(model, kind, *(None if part is None else part[k] for part in test))
    asked_twice = 2 * len(scenes.KINDS) * settings["test_scenes"]
    answer = (time.process_time() - started) / asked_twice
    embed = embed_seconds(model, test[2][0])
    scores["log10_embed_seconds"] = [float(np.log10(embed))]
    cost = {"parameters": parameters(model), "passes": settings["token_steps"], "tokens": model.shape.tokens,
            "embed_ms": 1000 * embed, "answer_ms": 1e6 * answer}  # fmt: skip
    return {"scores": scores, "cost": cost}


def judge_tokens(model: Encoder, kind: str, ids: Tensor, answers: Tensor, image: Tensor, seen: Tensor | None) -> dict:
    """Scores of a kind of question; how often another scene's question gets the right answer, and the difference."""
    with torch.inference_mode():
        scores = questions.judged(questions.answer(model, ids, image, seen), answers, kind)
        other = questions.judged(questions.answer(model, ids.roll(1, 0), image, seen), answers, kind)[kind]
    read = [own - without for own, without in zip(scores[kind], other, strict=True)]
    return scores | {f"{kind}_other": other, f"{kind}_read": read}


def embed_seconds(model: Encoder, image: Tensor) -> float:
    """Processor seconds for the embedding of 1,000 pictures."""
    with torch.inference_mode():
        model.embed_pixels(image)
        started = time.process_time()
        for _ in range(REPEATS):
            model.embed_pixels(image)
    return 1000 * (time.process_time() - started) / REPEATS / len(image)


def run(shard: dict[str, Any]) -> dict[str, Any]:
    """One model of V3, V4 or V5."""
    torch.set_num_threads(1)
    plan, started = dict(shard["plan"]), time.process_time()
    study = plan.pop("study")
    work = {"tasks": run_tasks, "tokens": run_tokens, "masks": run_masks}[study]
    found = work(shard["arm"], **plan, settings=shard["settings"], seed=shard["seed"])
    found["cost"]["cpu_seconds"] = round(time.process_time() - started, 1)
    return {"study": study, "arm": shard["arm"], "seed": shard["seed"], **found}


def evidence(results: list[dict[str, Any]], study: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Per question (V3, V4) or scene (V5); copies of neighbours do not depend on seeds."""
    mine = [r for r in results if r["study"] == study]
    first = [r for r in mine if r["arm"] in COPIED and r["seed"] == settings["seeds"][0]]
    mine += [{"arm": COPIED[r["arm"]], "seed": None, "scores": {"error": r["scores"]["copy"]}} for r in first]
    asked = {each: settings["test_scenes"] for each, _, _ in METRICS[study].values()} | {"model": 1}
    return as_evidence("survey_vlp-tasks", mine, METRICS[study], asked)
