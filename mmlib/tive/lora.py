"""Gradients of every sample of a batch, made inside the LoRA layers during one backward pass.

A LoRA layer is y = W x + s B A x. With δ the gradient at y, u = s Bᵀδ and h = s A x (sums over a sample's tokens τ):
∇A = Σ u_τ x_τᵀ and ∇Bᵀ = Σ h_τ δ_τᵀ. Backpropagation needs u anyway (∇x = Wᵀδ + Aᵀu), so the only work beyond a plain
backward pass of the batch is that the two products are summed per sample and not over the batch; their cost is equal.
No gradient of a weight, frozen or not, is ever made.

For a projection (see `projection`) the rank side of both gradients is rotated by orthogonal matrices Q. That costs
nothing, because s B A = s (B Qᵀ)(Q A): the forward pass uses the rotation of B's gradient, the backward that of A's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from mmlib.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

WITHIN, OUTSIDE = "self_attn", ("vision", "projector")
# Called once per layer and batch with (index of the layer, ∇A, ∇Bᵀ): (N, r, d_in), (N, r, d_out).
Sink = Callable[[int, "Tensor", "Tensor"], None]


@dataclass(frozen=True)
class Layer:
    """A LoRA layer that gets gradients."""

    name: str
    module: Module
    a: Tensor  # (r, d_in)
    b: Tensor  # (d_out, r)
    scale: float

    @property
    def rank(self) -> int:
        """r."""
        return self.a.shape[0]

    @property
    def widths(self) -> tuple[int, int]:
        """(d_in, d_out): columns of ∇A and of ∇Bᵀ."""
        return self.a.shape[1], self.b.shape[0]


def find_layers(model: Module, within: str = WITHIN, outside: tuple[str, ...] = OUTSIDE) -> list[Layer]:
    """LoRA layers with `within` and none of `outside` in their names; by default attention of the language model.

    Raises:
        UserError: none there, or a layer that is not plain LoRA (merged, switched off, DoRA, several adapters,
            dropout in training mode, float16).
    """
    named = [(name, m) for name, m in model.named_modules() if hasattr(m, "lora_A") and hasattr(m, "base_layer")]
    kept = [(name, m) for name, m in named if within in name and not any(word in name for word in outside)]
    if not kept:
        raise UserError(f"no LoRA layer has `{within}` in its name ({len(named)} layers are there)", "name others")
    return [_layer(name, module) for name, module in kept]


def _layer(name: str, module: Any) -> Layer:
    active = [adapter for adapter in module.active_adapters if adapter in module.lora_A]
    for wrong, what in (
        (module.merged, "is merged"),
        (module.disable_adapters, "is switched off"),
        (len(active) != 1, f"has {len(active)} active adapters"),
    ):
        if wrong:
            raise UserError(f"LoRA layer {name} {what}", "open the model with one adapter, not merged")
    adapter = active[0]
    a, b = module.lora_A[adapter], module.lora_B[adapter]
    dropout = getattr(module.lora_dropout[adapter], "p", 0.0)
    types = {str(a.weight.dtype), str(getattr(module.base_layer, "weight", a.weight).dtype)}
    for wrong, what in (
        (adapter in getattr(module, "lora_variant", {}), "is a variant of LoRA (such as DoRA)"),
        (getattr(b, "bias", None) is not None or a.weight.ndim != 2, "is not made of two plain matrices"),
        (dropout > 0 and module.training, "drops out at random"),
        ("torch.float16" in types, "is float16, in which gradients underflow"),
    ):
        if wrong:
            raise UserError(f"LoRA layer {name} {what}", "use plain LoRA in eval mode, in float32 or bfloat16")
    return Layer(name, module, a.weight.detach(), b.weight.detach(), float(module.scaling[adapter]))


@contextlib.contextmanager
def capture(
    model: Module, layers: list[Layer], sink: Sink, rotations: list[tuple[Tensor, Tensor]] | None = None
) -> Iterator[None]:
    """While inside, a backward pass through `model` hands per-sample gradients of `layers` to `sink`.

    No parameter has `requires_grad` inside; everything is as before afterwards.

    Args:
        rotations: (Q of A, Q of B) per layer, (q, r) with orthonormal columns; the gradients come out as Q∇A, Q∇Bᵀ.
    """
    wanted = [(p, p.requires_grad) for p in model.parameters()]
    try:
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        for number, layer in enumerate(layers):
            layer.module.forward = _forward(number, layer, sink, rotations[number] if rotations else None)
        yield
    finally:
        for layer in layers:
            layer.module.__dict__.pop("forward", None)
        for parameter, required in wanted:
            parameter.requires_grad_(required)


def _forward(number: int, layer: Layer, sink: Sink, rotation: tuple[Tensor, Tensor] | None) -> Callable[..., Tensor]:
    import torch

    base, function = layer.module.base_layer, _function()
    fused = type(base) is torch.nn.Linear and base.weight.dtype == layer.a.dtype
    weight, bias = (base.weight, base.bias) if fused else (None, None)
    # A leaf that wants a gradient, so that a layer whose input wants none is still part of the backward pass.
    anchor = torch.zeros((), device=layer.a.device, requires_grad=True)
    factors = _rotated(layer, rotation)

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if x.ndim != 3:
            raise UserError(f"LoRA layer {layer.name} reads no rows of tokens but {tuple(x.shape)}", "leave it out")
        if fused:
            return function.apply(x, anchor, factors, weight, bias, number, sink)
        y = base(x, *args, **kwargs)
        return y + function.apply(x.to(layer.a.dtype), anchor, factors, None, None, number, sink).to(y.dtype)

    return forward


def _rotated(layer: Layer, rotation: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(A, B) of the forward and (A, B) of the backward pass; s stands where it makes h and u of the equations."""
    if rotation is None:
        return layer.scale * layer.a, layer.b, layer.a, layer.scale * layer.b
    of_a, of_b = (q.to(layer.a) for q in rotation)
    return layer.scale * of_b @ layer.a, layer.b @ of_b.T, of_a @ layer.a, layer.scale * layer.b @ of_a.T


@cache
def _function() -> type:
    import torch
    from torch.nn.functional import linear

    class PerSampleLora(torch.autograd.Function):
        """W x + s B A x; the backward pass gives ∇x, and ∇A and ∇Bᵀ of each sample to the sink."""

        @staticmethod
        def forward(ctx: Any, x: Tensor, anchor: Tensor, factors: Any, weight: Any, bias: Any, number: int, sink: Any):
            a, b, *_ = factors
            hidden = linear(x, a)  # (N, T, r), with s
            y = linear(hidden, b) if weight is None else linear(x, weight, bias)  # (N, T, d_out)
            if weight is not None:
                y.view(-1, y.shape[-1]).addmm_(hidden.view(-1, hidden.shape[-1]), b.T)
            ctx.save_for_backward(x, hidden)
            ctx.rest = (factors, weight, number, sink)
            return y

        @staticmethod
        def backward(ctx: Any, delta: Tensor):
            (x, hidden), (factors, weight, number, sink) = ctx.saved_tensors, ctx.rest
            _, _, a, b = factors
            u = delta @ b  # (N, T, r), with s
            # Sums in float32 whatever the model's type: a bfloat16 sum would cost the norms two digits.
            grad_a = torch.bmm(u.transpose(1, 2).float(), x.float())  # (N, r, d_in)
            grad_b = torch.bmm(hidden.transpose(1, 2).float(), delta.float())  # (N, r, d_out)
            sink(number, grad_a, grad_b)
            grad_x = None
            if ctx.needs_input_grad[0]:
                grad_x = u @ a if weight is None else delta @ weight
                if weight is not None:
                    grad_x.view(-1, grad_x.shape[-1]).addmm_(u.view(-1, u.shape[-1]), a)
            return grad_x, None, None, None, None, None, None

    return PerSampleLora


def names_of(layers: list[Layer]) -> Iterator[str]:
    """Names of the matrices in the order of a gradient vector: A and then Bᵀ of each layer."""
    for layer in layers:
        yield from (f"{layer.name}.lora_A", f"{layer.name}.lora_B")
