"""A family of small language models, trained here in full precision on worked arithmetic, and rounded like the LLM.

Three purposes: a subject whose chain of thought is neither at floor nor at ceiling; sizes, to ask which width is
best at equal total bits; and a control for the packaged LLM, whose "16-bit" weights were once 4-bit (GGUF).
Models have one decoder block: on this task deeper ones learn no faster at equal steps, so the family grows in width.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from mmlib.errors import UserError
from mmlib.evidence import Evidence
from mmlib.metrics import continuations
from mmlib.models.lm import generate
from mmlib.quantization import arithmetic, equal_bits, packed, size, stored
from mmlib.quantization.model import Spec, linears, quantize_model

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FULL_BITS = 16
HEAD_WIDTH = 16
CALIBRATION_DOCUMENTS = 128
SAMPLES = 3  # answers kept for the report
METRICS = ("direct_em", "cot_strict", "cot_flexible", "direct_logprob", "cot_logprob")


@dataclass(frozen=True)
class Subject:
    """A family model with what it is measured on."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    tests: list[arithmetic.Problem]
    demonstration: arithmetic.Problem
    calibration: Tensor  # token ids (W, L)


def build_model(width: int, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """An untrained one-block Llama of hidden size `width` (a multiple of 32, the group size of the grids)."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    if width % 32:
        raise UserError(f"family width {width} is not a multiple of 32", "choose 32, 64, 128 …")
    torch.manual_seed(seed)
    heads = width // HEAD_WIDTH
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=3 * width, num_hidden_layers=1,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=256, tie_word_embeddings=True,
        initializer_range=0.06, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def train(settings: dict[str, Any], width: int, seed: int, learning_rate: float, steps: int) -> Subject:
    """One member of the family; seed decides initial weights, training texts and their order."""
    from mmlib.models.train import train_lm

    tokenizer = arithmetic.build_tokenizer(settings["largest"])
    unseen = [*test_problems_of(settings, 1), *validation_problems_of(settings)]
    texts = training_texts(settings, f"base/{seed}", steps * settings["batch"], unseen)
    arithmetic.refuse_leaks(texts, unseen)
    model = build_model(width, tokenizer, seed)
    train_lm(model, tokenizer, texts, steps=steps, batch=settings["batch"], learning_rate=learning_rate, seed=seed)
    return subject(model, tokenizer, settings, seed)


def training_texts(
    settings: dict[str, Any], seed: str, count: int, tests: list[arithmetic.Problem], worked: float = 0.5
) -> list[str]:
    """`count` documents of two problems: the first demonstrates the style of the second."""
    size = settings["largest"], settings["most_steps"]
    return arithmetic.documents(count, *size, seed, worked=worked, problems=2, leave_out=tests)


def subject(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: dict[str, Any], seed: int) -> Subject:
    """`model`, its weights rounded to 16 bits, with test problems, a demonstration that is not among them, and
    calibration text of its own."""
    import torch

    stored.at_16_bits(model)
    tests = test_problems_of(settings)
    texts = training_texts(settings, f"calibration/{seed}", CALIBRATION_DOCUMENTS, tests)
    ids = tokenizer(texts, add_special_tokens=False).input_ids
    shortest = min(len(row) for row in ids)
    spare = test_problems_of(settings, 1)[-1]
    return Subject(model, tokenizer, tests, spare, torch.tensor([row[:shortest] for row in ids]))


def scores(subject: Subject, model: PreTrainedModel | None = None) -> dict[str, list[float]]:
    """Per test problem (`METRICS`), after one solved demonstration in the style that is asked for.

    `direct_em`: the answer at once. `cot_strict`: generated work, then exactly `answer N <end>`. `cot_flexible`: the
    last number generated is right. `…_logprob`: log-probability of the right continuation in nats, which still
    moves where exact match is at its floor.
    """
    model, tokenizer, tests = model or subject.model, subject.tokenizer, subject.tests
    result = {}
    for worked, name in ((False, "direct"), (True, "cot")):
        prefix = subject.demonstration.solved(worked) + " "
        questions = [continuations.Question(p.query(worked), (f" {p.continuation(worked)}",), 0) for p in tests]
        scored = continuations.score(model, tokenizer, prefix, questions)
        result[f"{name}_logprob"] = [round(value, 5) for value in scored["logprob"]]
        if not worked:
            result["direct_em"] = scored["exact"]
    answers = say(subject, model)
    result["cot_strict"] = [float(strict(a, p)) for a, p in zip(answers, tests, strict=True)]
    result["cot_flexible"] = [float(flexible(a, p)) for a, p in zip(answers, tests, strict=True)]
    return result


def say(subject: Subject, model: PreTrainedModel, count: int | None = None) -> list[str]:
    """Greedy answers to the first `count` test problems (None: all), after one demonstration that shows its work."""
    longest = max(len(p.continuation(True).split()) for p in subject.tests) + 2
    prompts = [f"{subject.demonstration.solved(True)} {p.query(True)}" for p in subject.tests[:count]]
    return generate(model, subject.tokenizer, prompts, longest, batch=len(prompts))


def strict(answer: str, problem: arithmetic.Problem) -> bool:
    """Does the text end in `answer N` with the right N? (Whatever work stands before.)"""
    return answer.split()[-2:] == ["answer", problem.answer]


def flexible(answer: str, problem: arithmetic.Problem) -> bool:
    """Is the last number of the text the right one?"""
    numbers = [word for word in answer.split() if word.isdigit()]
    return bool(numbers) and numbers[-1] == problem.answer


def rounded(subject: Subject, bits: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Quantize the subject's model in place (GPTQ; 16: leave it); its packed size, counted and as a file."""
    if bits == FULL_BITS:
        return size.account(subject.model, "none", FULL_BITS)
    spec = Spec("gptq", bits, settings["group"])
    report = quantize_model(subject.model, spec, subject.calibration)
    for linear in linears(subject.model).values():
        linear.rounded = (bits, fingerprint(linear))
    file = packed.measured(packed.dump(subject.model, report.grids))
    return {**size.account(subject.model, "gptq", bits, spec), **file}


def fingerprint(linear: nn.Linear) -> str:
    """Identifies the weights, so that a rounded linear that was merged or trained afterwards is found out."""
    return hashlib.sha256(linear.weight.detach().numpy().tobytes()).hexdigest()


def evaluate(shard: dict[str, Any]) -> dict[str, Any]:
    """Train one model, measure it at every width; weights come back as base64 of a safetensors file."""
    import torch
    from safetensors.torch import save

    torch.set_num_threads(1)  # as in `bench`: the last bits must not depend on free cores
    settings, width, seed = shard["settings"], shard["width"], shard["seed"]
    trained = train(settings, width, seed, shard["learning_rate"], shard["steps"])
    state = {name: value.clone() for name, value in trained.model.state_dict().items() if name != "lm_head.weight"}
    weights = save({name: value.half() for name, value in state.items()})  # 16 bits hold them all (`subject`)
    checked, arms = validated(trained, settings), {}
    for bits in (FULL_BITS, *settings["widths"]):
        trained.model.load_state_dict(state, strict=False)
        stored = rounded(trained, bits, settings)
        arms[str(bits)] = {"size": stored, "scores": scores(trained), "said": say(trained, trained.model, SAMPLES)}
    return {
        "width": width, "seed": seed, "early": shard["early"], "steps": shard["steps"], "validated": checked,
        "arms": arms, "tests": arithmetic.digest(trained.tests), "weights": base64.b64encode(weights).decode(),
    }  # fmt: skip


def shards(settings: dict[str, Any], rates: dict[int, float]) -> list[dict[str, Any]]:
    """One shard per model, the longest first (`work`), so that two workers finish together.

    Args:
        rates: learning rate of each size.
    """
    members = [(*pair, False) for pair in zip(settings["sizes"], settings["steps"], strict=True)]
    members.append((settings["early_size"], settings["early_steps"], True))
    members.sort(key=lambda member: -work(*member[:2]))
    return [
        {"name": f"w{width}{'/early' if early else ''}/seed{seed}", "width": width, "seed": seed, "steps": steps,
         "early": early, "learning_rate": rates[width], "settings": settings}
        for width, steps, early in members
        for seed in settings["seeds"]
    ]  # fmt: skip


def work(width: int, steps: int) -> int:
    """About proportional to the seconds of a training: what does not grow with the width costs like 40 more of it."""
    return steps * (width + 40)


def as_evidence(results: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Per test problem, for every model, width in bits and training seed; arms: see `arm_name`.

    `cot_equal_block`, `cot_equal_total`: chain of thought read at equal stored bits (`equal_bits`), without and with
    the embedding; arms `w4-beside-w16` and `w16-beside-w4`.
    """
    arms = {
        (arm_name(result, bits), result["seed"]): arm["scores"]
        for result in results
        for bits, arm in result["arms"].items()
    }
    members = [result for result in results if not result["early"]]
    evidence = problem_evidence("quantization-family", arms, settings)
    equal_bits.add_to(evidence, members, settings["widths"])
    return {**evidence.as_dict(), "items": arithmetic.digest(test_problems_of(settings))}


def arm_name(result: dict[str, Any], bits: str) -> str:
    """`family64-w4`, `early32-w4`."""
    return f"{'early' if result['early'] else 'family'}{result['width']}-w{bits}"


def test_problems_of(settings: dict[str, Any], more: int = 0) -> list[arithmetic.Problem]:
    """The test problems of these settings, and `more` beyond them (the first of which is the demonstration)."""
    return arithmetic.test_problems(settings["items"] + more, settings["largest"], settings["most_steps"])


def validation_problems_of(settings: dict[str, Any]) -> list[arithmetic.Problem]:
    """As many problems for choices; neither tests nor the demonstration are among them, and none is trained on."""
    known = test_problems_of(settings, 1)
    return arithmetic.validation_problems(settings["items"], settings["largest"], settings["most_steps"], known)


def validated(subject: Subject, settings: dict[str, Any]) -> dict[str, float]:
    """Means over the validation problems."""
    found = scores(replace(subject, tests=validation_problems_of(settings)))
    return {name: round(fmean(found[name]), 5) for name in ("direct_em", "cot_strict", "cot_logprob")}


def problem_evidence(stage: str, arms: dict[tuple[str, int], dict[str, list[float]]], settings: dict) -> Evidence:
    """Evidence over the test problems; `arms` maps (arm, seed) to `scores`."""
    evidence = Evidence("quantization", stage)
    ids = [f"{problem.steps}-step/{problem.question}" for problem in test_problems_of(settings)]
    evidence.units("problem", ids, asked=settings["items"])
    for name in METRICS:
        floor = None if name.endswith("logprob") else 0.0
        evidence.metric(name, units="problem", higher_is_better=True, floor=floor)
        for (arm, seed), measured in arms.items():
            evidence.add(name, arm=arm, seed=seed, values=measured[name])
    return evidence
