"""Three kinds of model under PEFT LoRA: the tiny LLaVA, a small Llama, and LLaVA-1.5's shape at random."""

from __future__ import annotations

import random

import torch

from mmlib.tive.samples import IGNORED, Sample

ATTENTION = r".*(model\.layers|language_model).*\.(q_proj|k_proj|v_proj|o_proj)"
MLP = r".*(model\.layers|language_model).*\.(q_proj|down_proj)"
VOCABULARY = 60
IMAGE = 5


def with_lora(model, targets=ATTENTION, rank=4, **options):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, **options)).eval()
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # PEFT starts B at zero, where every gradient of A vanishes
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def text_settings(**more):
    return {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64} | more  # fmt: skip


def llama(attention="sdpa", **more):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(**text_settings(tie_word_embeddings=True), **more)
    config._attn_implementation = attention
    return LlamaForCausalLM(config).eval()


def llava15():
    """The classes and layout of LLaVA-1.5 (CLIP tower with CLS, two-layer projector, untied output), 4 patches."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(0)
    vision = CLIPVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
                              image_size=16, patch_size=8)  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=LlamaConfig(**text_settings(num_key_value_heads=4)), image_token_index=IMAGE,
        image_token_id=IMAGE, vision_feature_layer=-2, vision_feature_select_strategy="default", image_seq_length=4,
        projector_hidden_act="gelu", tie_word_embeddings=False,
    )  # fmt: skip
    return LlavaForConditionalGeneration(config).eval()


def samples(count, pictures=False, seed=0):
    """Random dialogues of very different lengths; every third is text only, answers stand at several places."""
    draw, made = random.Random(seed), []
    for i in range(count):
        seen = pictures and i % 3 != 2
        ids = [1] + [IMAGE] * (4 if seen else 0)
        labels = [IGNORED] * len(ids)
        for _ in range(draw.randint(1, 3)):
            asked = [draw.randrange(6, VOCABULARY) for _ in range(draw.randint(1, 6))]
            said = [draw.randrange(6, VOCABULARY) for _ in range(draw.randint(1, 4))]
            ids, labels = ids + asked + said, labels + [IGNORED] * len(asked) + said
        made.append(Sample(f"s{i}", ids, labels, f"p{i % 4}" if seen else None))
    return made


def pictures():
    torch.manual_seed(3)
    return {f"p{i}": torch.randn(3, 16, 16) for i in range(4)}
