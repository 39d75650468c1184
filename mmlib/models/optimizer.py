"""Muon for the matrices inside a network, AdamW for all else, as one optimizer that Trainer can schedule and save.

Muon orthogonalises the update of a matrix (Jordan et al. 2024, as torch.optim has it). It is here because small
models learn to look things up some five times sooner with it: with AdamW alone, at any rate we tried, a language
model of this size is still at chance when one under Muon answers two look-ups of three.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.nn import Module, Parameter
    from torch.optim import Optimizer

BETAS = (0.9, 0.98)
OUTSIDE = ("embed", "lm_head", "logit_scale")  # embeddings, heads and scalars are AdamW's


def split_parameters(model: Module) -> tuple[list[Parameter], list[Parameter]]:
    """Trainable weights: (matrices of hidden layers, all others)."""
    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    hidden = {name for name, weight in trained if weight.ndim == 2 and not any(word in name for word in OUTSIDE)}
    return [w for name, w in trained if name in hidden], [w for name, w in trained if name not in hidden]


def build_muon(model: Module, learning_rate: float, muon_learning_rate: float, weight_decay: float) -> Optimizer:
    """Muon for the matrices of hidden layers, AdamW for the rest of what is trained."""
    return _joint_class()(*split_parameters(model), learning_rate, muon_learning_rate, weight_decay)


def _joint_class() -> type:
    from torch.optim import AdamW, Muon, Optimizer

    class MuonAndAdamW(Optimizer):
        """Two optimizers that share their parameter groups with this one, so that a scheduler reaches both."""

        def __init__(self, hidden: list, others: list, learning_rate: float, muon: float, decay: float) -> None:
            # `match_rms_adamw`: steps as large as AdamW's, whatever the shape of the matrix (Liu et al. 2025).
            self.parts = (Muon(hidden, muon, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
                          AdamW(others, learning_rate, betas=BETAS, weight_decay=decay))  # fmt: skip
            super().__init__([group for part in self.parts for group in part.param_groups], {})

        def step(self, closure: Any = None) -> None:
            for part in self.parts:
                part.step()

        def state_dict(self) -> dict[str, Any]:
            return {"parts": [part.state_dict() for part in self.parts]}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            for part, state in zip(self.parts, state_dict["parts"], strict=True):
                part.load_state_dict(state)
            self.param_groups = [group for part in self.parts for group in part.param_groups]

    return MuonAndAdamW
