"""One video file, three tasks: a caption, answers, and the best of some captions, from a checkpoint of stage 1.

    python -m mmlib.vlab.infer clip.gif --question "where does it go ?" --caption "a dog moves left on grass" …

A GIF, WebP or APNG, or a folder of frames; eight frames of it are looked at, each cut to its middle square. The model
is the study's own small one: it knows the world's things, grounds and motions, and says so of words it never met.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmlib import config, store
from mmlib.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from mmlib.vlab.batches import Sequences
    from mmlib.vlab.model import Vlab

FRAMES = 8


@dataclass(frozen=True)
class Checkpoint:
    """A stage-1 model and its words."""

    model: Vlab
    sequences: Sequences


def open_checkpoint(arm: str, seed: int) -> Checkpoint:
    """The stored stage-1 model of an arm and seed, with the settings of params.yaml.

    Raises:
        UserError: the stages that make it have not run.
    """
    from mmlib.vlab import base, study
    from mmlib.vlab.batches import Sequences
    from mmlib.vlab.model import Vlab

    settings = config.load().vlab
    shared, words = asdict(settings.clip), base.tokenizer(settings.clip.nouns)
    kind, _ = study.parse_arm(arm, settings.adapting.blocks, settings.adapting.hidden)
    model = Vlab(base.open_base(shared), kind, words.pad_token_id, seed)
    base.load_weights(model, store.project_root() / f"results/vlab/adapting/{arm}-seed{seed}.safetensors")
    return Checkpoint(model, Sequences(words, settings.adapting.answer_share))


def read_clip(path: Path) -> np.ndarray:
    """Sampled frames of a file, uint8 (8, 72, 72, 3).

    Raises:
        UserError: the file cannot be used; says why.
    """
    from mmlib.formats.reading import Skips
    from mmlib.vlab.frames import fit_square, read_videos
    from mmlib.world.scenes import SIDE

    skips = Skips()
    for video in read_videos({path.name: path}, FRAMES, skips):
        return fit_square(video.frames, SIDE)
    raise UserError(f"{path} cannot be read: {', '.join(skips.counts)}", "give a GIF, WebP, APNG or a folder of frames")


def see(checkpoint: Checkpoint, clip: np.ndarray) -> dict[str, Tensor]:
    """Tokens of the video encoder, (1, T, N + 1, D)."""
    import torch

    from mmlib.models.clip import pixels

    with torch.inference_mode():
        encoder = checkpoint.model.video
        return {"video": encoder(encoder.embed(pixels(clip)[None]))}


def unknown_words(checkpoint: Checkpoint, text: str) -> list[str]:
    """Words that the model never met; they count as padding."""
    known = checkpoint.sequences.tokenizer.get_vocab()
    return [word for word in text.split() if word not in known]


def say(checkpoint: Checkpoint, seen: dict[str, Tensor], prompt: str, longest: int) -> str:
    """Greedy words about the clip after a prompt."""
    from mmlib.vlab import tasks

    return tasks.generate(checkpoint.model, checkpoint.sequences, seen, [prompt], longest)[0]


def rank(checkpoint: Checkpoint, seen: dict[str, Tensor], captions: list[str]) -> list[tuple[str, float]]:
    """Captions with their cosine to the clip, best first."""
    import torch

    from mmlib.models.clip import encode_texts
    from mmlib.vlab.clip_base import LENGTH

    said = encode_texts(checkpoint.sequences.tokenizer, captions, LENGTH)
    with torch.inference_mode():
        scores = checkpoint.model.similarity(seen, said["input_ids"], said["attention_mask"])[:, 0].tolist()
    return sorted(zip(captions, scores, strict=True), key=lambda row: -row[1])


def report(checkpoint: Checkpoint, path: Path, questions: list[str], captions: list[str]) -> list[str]:
    """What is printed about a file, line by line."""
    from mmlib.vlab import language, tasks

    seen = see(checkpoint, read_clip(path))
    lines = [f"caption: {say(checkpoint, seen, language.PROMPTS['caption'], tasks.CAPTION_TOKENS)}"]
    lines += [f"{text} {say(checkpoint, seen, text, tasks.ANSWER_TOKENS)}" for text in questions]
    lines += [f"{score:+.3f} {text}" for text, score in (rank(checkpoint, seen, captions) if captions else [])]
    strange = sorted({word for text in [*questions, *captions] for word in unknown_words(checkpoint, text)})
    return lines + ([f"words that the model never met: {', '.join(strange)}"] if strange else [])


def main(argv: list[str] | None = None) -> int:
    """Command line; the exit status is 2 for what a user can mend."""
    parser = argparse.ArgumentParser(prog="python -m mmlib.vlab.infer", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("--question", action="append", default=[], help="may be given several times")
    parser.add_argument("--caption", action="append", default=[], help="to rank; may be given several times")
    parser.add_argument("--arm", default="st3d")
    parser.add_argument("--seed", type=int, default=10)
    asked = parser.parse_args(argv)
    try:
        checkpoint = open_checkpoint(asked.arm, asked.seed)
        print("\n".join(report(checkpoint, asked.video, asked.question, asked.caption)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
