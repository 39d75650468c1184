"""Per-sample gradients against autograd one by one, torch.func, Gram norms and the explicit projection matrix."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from mmlib.errors import UserError
from mmlib.tive import answers, gradients, lora, projection
from mmlib.tive.gradients import gradient_pass
from mmlib.tive.samples import IGNORED, Sample, buckets, collate, computed_features
from tests.tive import models

TEXT, MIXED = models.samples(9), models.samples(9, pictures=True)


def one_by_one(model, samples, loss="mean", within="self_attn"):
    """Autograd through PEFT's own layers, batch of one, no padding, pictures through the tower; and the losses."""
    layers, rows, losses = lora.find_layers(model, within), [], []
    weights = [w.weight for layer in layers for w in (layer.module.lora_A["default"], layer.module.lora_B["default"])]
    for weight in weights:
        weight.requires_grad_(True)
    for sample in samples:
        seen = {"pixel_values": models.pictures()[sample.image][None]} if sample.image else {}
        logits = model(input_ids=torch.tensor([sample.ids]), **seen).logits[0, :-1]
        labels = torch.tensor(sample.labels[1:])
        value = cross_entropy(logits, labels, ignore_index=IGNORED, reduction=loss)
        found = torch.autograd.grad(value, weights)
        rows.append(torch.cat([(g if i % 2 == 0 else g.T).flatten() for i, g in enumerate(found)]))
        losses.append(value.item())
    return torch.stack(rows).double().numpy(), np.array(losses)


def kit(kind):
    if kind == "llama":
        return models.with_lora(models.llama()), TEXT, None
    model = models.with_lora(models.llava15())
    table = models.pictures()
    load = lambda names: torch.stack([table[n] for n in names])  # noqa: E731
    return model, MIXED, computed_features(model.get_base_model(), load)


def error(found, wanted):
    return (np.linalg.norm(found - wanted, axis=1) / np.linalg.norm(wanted, axis=1)).max()


@pytest.mark.parametrize("kind", ["llama", "llava"])
def test_equal_to_autograd_one_by_one(kind):
    model, samples, features = kit(kind)
    wanted, losses = one_by_one(model, samples)
    assert (wanted != 0).all(0).mean() > 0.9
    for tokens in (1, 40, 10_000):  # alone, in small batches, all in one
        made = gradient_pass(model, samples, features=features, tokens=tokens)
        assert error(made.vectors, wanted) < 1e-4
        assert np.allclose(made.columns["norm"], np.linalg.norm(wanted, axis=1), rtol=1e-4)
        assert np.allclose(made.columns["loss"], losses, rtol=1e-5)
    assert made.columns["tokens"].tolist() == [len(s.ids) for s in samples]
    assert made.columns["answers"].tolist() == [sum(label >= 0 for label in s.labels) for s in samples]


def test_the_comparison_trips_on_planted_faults(monkeypatch):
    model, samples, _ = kit("llama")
    wanted, _ = one_by_one(model, samples)

    def found():
        return error(gradient_pass(model, samples, tokens=10_000).vectors, wanted)

    assert found() < 1e-4
    with monkeypatch.context() as patch:  # the mean over the batch's tokens in place of each sample's own
        patch.setattr(torch, "bincount", lambda owners, minlength: torch.full((minlength,), len(owners)))
        assert found() > 0.1
    with monkeypatch.context() as patch:  # loss on questions too
        patch.setattr(answers, "IGNORED", -7)
        patch.setattr(gradients, "collate", lambda s, r, p: _all_labelled(collate(s, r, p)))
        assert found() > 0.1
    rotated = lora._rotated
    with monkeypatch.context() as patch:  # the scale alpha/r forgotten on one side
        patch.setattr(lora, "_rotated", lambda layer, q: (*rotated(layer, q)[:3], rotated(layer, q)[3] / layer.scale))
        assert found() > 0.1


def _all_labelled(batch):
    return dataclasses.replace(batch, labels=torch.where(batch.mask == 1, batch.ids, -7))


def test_equal_to_vmap_of_grad():
    """torch.func on the functional model: another way to per-sample gradients, with padding and a mask."""
    from torch.func import functional_call, grad, vmap

    model = models.with_lora(models.llama("eager"))
    core, layers = model.get_base_model(), lora.find_layers(model)
    names = [f"{layer.name.removeprefix('base_model.model.')}.lora_{side}.default.weight"
             for layer in layers for side in "AB"]  # fmt: skip
    everything = dict(core.named_parameters())
    chosen = {name: everything[name].detach() for name in names}
    batch = collate(TEXT, list(range(len(TEXT))), 0)

    def loss(weights, ids, mask, labels):
        width = len(ids)
        seen = torch.tril(torch.ones(width, width, dtype=torch.bool)) & mask.bool()[None]
        full = torch.where(seen, 0.0, -1e9)[None, None]
        logits = functional_call(core, weights, (), {"input_ids": ids[None], "attention_mask": full}).logits[0, :-1]
        at = labels[1:] != IGNORED
        losses = cross_entropy(logits, torch.where(at, labels[1:], 0), reduction="none")
        return (losses * at).sum() / at.sum()

    made = vmap(grad(loss), (None, 0, 0, 0))(chosen, batch.ids, batch.mask, batch.labels)
    wanted = torch.cat([(made[n] if i % 2 == 0 else made[n].mT).flatten(1) for i, n in enumerate(names)], 1).numpy()
    assert error(gradient_pass(model, TEXT).vectors, wanted) < 1e-4


def gram_norms(model, samples):
    """‖g_i‖ from inner products of tokens alone (no gradient is formed), PEFT's layers watched by plain hooks."""
    layers, norms = lora.find_layers(model), []
    for sample in samples:
        kept = {}

        def keep(name, gradient, kept=kept):
            kept[name, "out"] = gradient[0].detach()

        def watch(name, kept=kept, keep=keep):
            def hook(module, inputs, output):
                kept[name, "in"] = inputs[0][0].detach()
                output.register_hook(partial(keep, name))

            return hook

        handles = [m.register_forward_hook(watch((layer.name, side))) for layer in layers for side, m in
                 (("A", layer.module.lora_A["default"]), ("B", layer.module.lora_B["default"]))]  # fmt: skip
        logits = model(input_ids=torch.tensor([sample.ids])).logits[0, :-1]
        cross_entropy(logits, torch.tensor(sample.labels[1:]), ignore_index=IGNORED).backward()
        for handle in handles:
            handle.remove()
        model.zero_grad()
        square = 0.0
        for layer in layers:
            for side in "AB":  # Σ over token pairs of (in · in)(out · out); PEFT's scale is already in `out`
                x, g = kept[(layer.name, side), "in"].double(), kept[(layer.name, side), "out"].double()
                square += ((x @ x.T) * (g @ g.T)).sum().item()
        norms.append(square**0.5)
    return np.array(norms)


def test_norms_are_those_of_the_gram_matrices():
    model, samples, _ = kit("llama")
    made = gradient_pass(model, samples, size=8)
    assert np.allclose(made.columns["norm"], gram_norms(model, samples), rtol=1e-4)
    # The norm of the projection is another number: the planted fault of measuring after projecting.
    assert not np.allclose(np.linalg.norm(made.vectors, axis=1), made.columns["norm"], rtol=0.05)


@pytest.mark.parametrize("kind", ["llama", "llava"])
def test_the_projection_is_that_of_the_explicit_matrix(kind):
    model, samples, features = kit(kind)
    layers = lora.find_layers(model)
    matrix = projection.explicit(projection.draw_projection(layers, 24, 5), layers).numpy()  # (k, D)
    wanted, _ = one_by_one(model, samples)
    made = gradient_pass(model, samples, features=features, size=24, seed=5)
    assert error(made.vectors, wanted @ matrix.T) < 1e-4
    assert np.allclose(made.columns["norm"], np.linalg.norm(wanted, axis=1), rtol=1e-4), "norms must be unprojected"
    assert error(gradient_pass(model, samples, features=features, size=24, seed=6).vectors, wanted @ matrix.T) > 0.5


def test_inner_products_survive_within_theory():
    """Unbiased over seeds; the spread of a cosine is between 1/√k and √(1/k + 2/(w m))."""
    layers = lora.find_layers(kit("llama")[0])
    wanted, _ = one_by_one(kit("llama")[0], TEXT)
    units, k, errors = wanted / np.linalg.norm(wanted, axis=1)[:, None], 64, []
    for seed in range(30):
        matrix = projection.explicit(projection.draw_projection(layers, k, seed), layers).numpy()
        errors.append((units @ matrix.T @ matrix @ units.T - units @ units.T)[np.triu_indices(len(units), 1)])
    errors, matrices = np.array(errors), 2 * len(layers)
    bound = np.sqrt(1 / k + 2 / (k / 4 * matrices))
    assert np.abs(errors.mean(0)).max() < 4 * bound / np.sqrt(30)
    assert 0.5 / np.sqrt(k) < errors.std() < 1.3 * bound


def test_a_summed_loss_is_the_mean_times_the_answer_s_length():
    model, samples, _ = kit("llama")
    mean, total = gradient_pass(model, samples), gradient_pass(model, samples, loss="sum")
    assert error(total.vectors, one_by_one(model, samples, "sum")[0]) < 1e-4
    assert np.allclose(total.columns["norm"], mean.columns["norm"] * mean.columns["answers"], rtol=1e-4)
    assert np.allclose(total.columns["loss"], mean.columns["loss"])


def test_el2n_is_the_mean_error_norm_of_answer_tokens():
    model, samples, _ = kit("llama")
    made = gradient_pass(model, samples).columns["el2n"]
    for sample, found in zip(samples, made, strict=True):
        with torch.no_grad():
            p = model(input_ids=torch.tensor([sample.ids])).logits[0, :-1].softmax(-1)
        at = [i for i, label in enumerate(sample.labels[1:]) if label != IGNORED]
        hot = torch.nn.functional.one_hot(torch.tensor([sample.labels[i + 1] for i in at]), models.VOCABULARY)
        assert found == pytest.approx((p[at] - hot).norm(dim=1).mean().item(), rel=1e-4)


def test_other_layers_by_name():
    model = models.with_lora(models.llama(), models.MLP)
    wanted, _ = one_by_one(model, TEXT, within="layers")
    assert error(gradient_pass(model, TEXT, within="layers").vectors, wanted) < 1e-4
    assert gradient_pass(model, TEXT).vectors.shape[1] < wanted.shape[1]


def test_the_tower_gets_no_gradient():
    """LoRA on every `q_proj` is also on the tower's, whose name holds `self_attn` too."""
    model = models.with_lora(models.llava15(), ["q_proj"])
    assert all("language_model" in layer.name for layer in lora.find_layers(model))
    with pytest.raises(UserError, match="vision"):
        features = computed_features(model.get_base_model(), lambda n: torch.stack([models.pictures()[i] for i in n]))
        gradient_pass(model, MIXED, features=features, outside=("projector",))


def flops(run):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def plain(model, samples, trained):
    """A batched forward and backward; `trained`: words in the names of parameters that get gradients."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(word in name for word in trained))
    batch = collate(samples, list(range(len(samples))), 0)
    model(input_ids=batch.ids, attention_mask=batch.mask, labels=batch.labels).loss.backward()
    model.zero_grad()


def test_no_gradient_of_a_weight_is_computed():
    model, samples, _ = kit("llama")
    adapters, everything = (flops(lambda w=w: plain(model, samples, w)) for w in (["lora"], ["lora", "weight"]))
    own = flops(lambda: gradient_pass(model, samples, tokens=10_000))
    check = flops(lambda: _forward_only(model, samples))
    assert own - check < 1.02 * adapters < 0.9 * everything
    assert all(parameter.grad is None for parameter in model.parameters())


def _forward_only(model, samples):
    answers.short_is_exact(gradients.core_of(model), samples, None, 0, None)


def test_the_model_is_left_as_it_was():
    model, samples, _ = kit("llama")
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 2 == 0)
    gradient_pass(model, samples)
    assert [p.requires_grad for p in model.parameters()] == [n % 2 == 0 for n in range(len(list(model.parameters())))]
    with pytest.raises(UserError, match="s0"):
        gradient_pass(model, [Sample("s0", [1, 2], [IGNORED, IGNORED])])
    assert all("forward" not in layer.module.__dict__ for layer in lora.find_layers(model))


def test_the_same_bits_twice_and_in_any_company():
    model, samples, _ = kit("llama")
    first, second = gradient_pass(model, samples, size=16), gradient_pass(model, samples, size=16)
    assert np.array_equal(first.vectors, second.vectors)
    backwards = gradient_pass(model, samples[::-1], size=16)
    assert error(backwards.vectors[::-1], first.vectors) < 1e-4
    assert gradient_pass(model, [], size=16).vectors.shape == (0, 16)


def test_where_the_short_pass_is_not_exact_the_whole_one_is_taken(monkeypatch):
    model, samples, _ = kit("llama")
    core = model.get_base_model()
    wanted, _ = one_by_one(model, samples)
    assert answers.short_is_exact(core, samples, None, 0, None)
    # Logits beyond the output layer (soft caps, scales) are what the short pass would miss.
    whole = type(core).forward
    monkeypatch.setattr(type(core), "forward", lambda self, *a, **k: _halved(whole(self, *a, **k)))
    assert not answers.short_is_exact(core, samples, None, 0, None)
    capped, _ = one_by_one(model, samples)
    assert error(gradient_pass(model, samples).vectors, capped) < 1e-4 < error(capped, wanted)


def test_the_last_mlp_works_where_answers_are_predicted(monkeypatch):
    model, samples, _ = kit("llama")
    core, rows = model.get_base_model(), []
    gate = core.model.layers[-1].mlp.gate_proj
    gate.register_forward_hook(lambda module, inputs, output: rows.append(output[..., 0].numel()))
    gradient_pass(model, samples, tokens=10_000)
    assert rows[-1] == sum(label >= 0 for s in samples for label in s.labels)
    assert "forward" not in core.model.layers[-1].mlp.__dict__
    wanted, _ = one_by_one(model, samples)
    # Planted fault: one position too late, which the comparison of losses sees, and then does without.
    real = answers.Positions
    monkeypatch.setattr(answers, "Positions", lambda: _late(real()))
    assert error(gradient_pass(model, samples, tokens=10_000).vectors, wanted) < 1e-4
    monkeypatch.setattr(gradients, "short_is_exact", lambda *_: True)
    assert error(gradient_pass(model, samples, tokens=10_000).vectors, wanted) > 0.01


def _late(positions):
    class Late(type(positions)):
        rows = property(
            lambda self: self.kept, lambda self, rows: setattr(self, "kept", rows if rows is None else rows + 1)
        )

    positions.__class__ = Late
    positions.__dict__.pop("rows", None)
    positions.kept = None
    return positions


def _halved(out):
    out.logits = out.logits / 2
    return out


def test_layers_that_are_not_plain_lora_are_refused():
    model = models.with_lora(models.llama())
    model.merge_adapter()
    with pytest.raises(UserError, match="is merged"):
        lora.find_layers(model)
    model.unmerge_adapter()
    with pytest.raises(UserError, match="no LoRA layer has `mlp` in its name"):
        lora.find_layers(model, "mlp")
    model.add_adapter("second", model.peft_config["default"])
    model.base_model.set_adapter(["default", "second"])
    with pytest.raises(UserError, match="has 2 active adapters"):
        lora.find_layers(model)
    with pytest.raises(UserError, match="DoRA"):
        lora.find_layers(models.with_lora(models.llama(), use_dora=True))
    dropping = models.with_lora(models.llama(), lora_dropout=0.1)
    assert lora.find_layers(dropping)
    with pytest.raises(UserError, match="drops out"):
        lora.find_layers(dropping.train())
    for half in (models.with_lora(models.llama()).half(), models.with_lora(models.llama().half())):
        with pytest.raises(UserError, match="float16"):
            lora.find_layers(half)


def test_bfloat16_base_with_float32_adapters():
    model = models.with_lora(models.llama().bfloat16())
    assert {layer.a.dtype for layer in lora.find_layers(model)} == {torch.float32}
    assert error(gradient_pass(model, TEXT).vectors, one_by_one(model, TEXT)[0]) < 0.1


def test_ranks_may_differ_between_layers():
    model = models.with_lora(models.llama(), rank_pattern={"q_proj": 2}, rank=4)
    layers = lora.find_layers(model)
    assert {layer.rank for layer in layers} == {2, 4}
    matrix = projection.explicit(projection.draw_projection(layers, 16, 0), layers).numpy()
    wanted, _ = one_by_one(model, TEXT)
    assert error(gradient_pass(model, TEXT, size=16).vectors, wanted @ matrix.T) < 1e-4
    with pytest.raises(UserError, match="to 18 numbers for LoRA of rank 4"):
        projection.draw_projection(layers, 18, 0)


def test_mismatched_pictures_are_named():
    model, _, features = kit("llava")
    bad = [Sample("x", [1, models.IMAGE, 7, 8], [IGNORED, IGNORED, IGNORED, 8], "p0")]
    with pytest.raises(UserError, match="1 picture tokens in a batch whose pictures have 4 features"):
        gradient_pass(model, bad, features=features)


def test_pool_records_through_the_world_s_own_model():
    """Encoding, cached features and gradients together, against autograd with pictures through the tower."""
    from mmlib.models import clip, llava
    from mmlib.tive.samples import cached_features, encode_records
    from mmlib.world import pool, vocabulary
    from mmlib.world.scenes import draw_scenes

    tokenizer = vocabulary.build_tokenizer()
    core = llava.build_llava(clip.build_clip(tokenizer, 16, 2, 32, 0), tokenizer, {"width": 32, "layers": 2}, 0)
    model = models.with_lora(core.eval(), rank=2)
    records = pool.build(draw_scenes("train", 120, 0), 16, 0)
    draw = np.random.default_rng(0)
    images = {r.image: draw.integers(0, 256, (72, 72, 3), np.uint8) for r in records if r.image}
    samples = encode_records(tokenizer, records, core.config.image_seq_length)
    made = gradient_pass(model, samples, features=cached_features(core, images, batch=7), pad=tokenizer.pad_token_id)
    weights = [w.weight.requires_grad_() for layer in lora.find_layers(model)
               for w in (layer.module.lora_A["default"], layer.module.lora_B["default"])]  # fmt: skip
    assert {r.dataset for r in records} == pool.LABELS and any(s.image is None for s in samples)
    for sample, found in zip(samples, made.vectors, strict=True):
        seen = {"pixel_values": clip.pixels(images[sample.image][None])} if sample.image else {}
        labels = torch.tensor([sample.labels])
        gradients_ = torch.autograd.grad(
            model(input_ids=torch.tensor([sample.ids]), labels=labels, **seen).loss, weights
        )
        wanted = torch.cat([(g if i % 2 == 0 else g.T).flatten() for i, g in enumerate(gradients_)]).numpy()
        assert error(found[None], wanted[None]) < 1e-4, sample.id


def test_buckets_hold_everything_once_within_the_budget():
    for tokens in (1, 30, 200):
        parts = list(buckets(TEXT, tokens))
        assert sorted(i for part in parts for i in part) == list(range(len(TEXT)))
        assert all(len(p) == 1 or len(p) * max(len(TEXT[i].ids) for i in p) <= tokens for p in parts)
        firsts = [len(TEXT[p[0]].ids) for p in parts]
        assert firsts == sorted(firsts, reverse=True)
