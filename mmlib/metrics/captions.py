"""Caption metrics through pycocoevalcap: BLEU-1…4, ROUGE-L, CIDEr. METEOR and SPICE need Java and are left out.

The reference implementation tokenises with a Java program; ours splits lower-cased text into words and drops
punctuation, which gives the same tokens for the world's plain English (not for every text of the web).
"""

from __future__ import annotations

import contextlib
import io
import re

from mmlib.errors import UserError

NAMES = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider")


def tokenise(text: str) -> str:
    """Lower-cased words, numbers and contractions, separated by single spaces."""
    return " ".join(re.findall(r"[a-z0-9]+(?:[.'-][a-z0-9]+)*", text.lower()))


def score(captions: list[str], references: list[list[str]]) -> dict[str, list[float]]:
    """Per caption BLEU-1 … 4, ROUGE-L (0 … 1) and CIDEr (0 … 10); document frequencies come from `references`.

    Raises:
        UserError: lengths differ, or a caption has no reference.
    """
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    if len(captions) != len(references):
        raise UserError(f"{len(captions)} captions and {len(references)} lists of references", "pass one list for each")
    if (empty := next((i for i, texts in enumerate(references) if not texts), None)) is not None:
        raise UserError(f"caption {empty} has no reference", "leave it out of both lists")
    made = {i: [tokenise(text)] for i, text in enumerate(captions)}
    given = {i: [tokenise(text) for text in texts] for i, texts in enumerate(references)}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints lengths
        _, bleu = Bleu(4).compute_score(given, made)
        _, rouge = Rouge().compute_score(given, made)
        _, cider = Cider().compute_score(given, made)
    columns = [*bleu, rouge, cider]
    return {name: [float(value) for value in values] for name, values in zip(NAMES, columns, strict=True)}


def corpus(captions: list[str], references: list[list[str]]) -> dict[str, float]:
    """Corpus BLEU-1 … 4 (pooled n-gram counts), and mean ROUGE-L and CIDEr."""
    from pycocoevalcap.bleu.bleu import Bleu

    single = score(captions, references)
    with contextlib.redirect_stdout(io.StringIO()):
        pooled, _ = Bleu(4).compute_score(
            {i: [tokenise(text) for text in texts] for i, texts in enumerate(references)},
            {i: [tokenise(text)] for i, text in enumerate(captions)},
        )
    means = {name: sum(single[name]) / len(captions) for name in ("rouge_l", "cider")}
    return {**dict(zip(NAMES[:4], map(float, pooled), strict=True)), **means}
