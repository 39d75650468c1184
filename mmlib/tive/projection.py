"""A random projection of LoRA gradients that never makes the projection matrix of the whole gradient.

φ(g) = Σ_t vec(Q_t G_t P_t) over the matrices t (∇A and ∇Bᵀ of every layer, r x d_t), P_t random signs over √w
(d_t x w), Q_t random orthogonal (r x r). The w columns replace d_t ones, so that k = r w. Compared with a dense matrix
(k x D) it costs 1/r of the multiplications and needs D w / r instead of D k random numbers; compared with giving every
matrix its own part of φ, unequal norms of the matrices do no harm. E⟨φ(g), φ(h)⟩ = ⟨g, h⟩: P_t P_tᵀ is the identity on
average and terms of different matrices vanish on average. Q_t makes these cross terms r times smaller in variance; the
standard deviation of a cosine is between that of a dense projection, 1/√k, and √(1/k + 2/(w m)) for m matrices of equal
norm. Idea of projecting factors: LoGra (arXiv:2405.13954).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmlib.errors import UserError
from mmlib.tive.lora import Layer

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True)
class Projection:
    """Matrices of a seeded projection to k = rank x width numbers, by layer: (of ∇A, of ∇Bᵀ)."""

    rank: int
    width: int
    columns: list[tuple[Tensor, Tensor]]  # P: (d_in, w), (d_out, w)
    rotations: list[tuple[Tensor, Tensor]]  # Q: (rank, r) each

    @property
    def size(self) -> int:
        """k."""
        return self.rank * self.width


def draw_projection(layers: list[Layer], size: int, seed: int) -> Projection:
    """A projection to `size` numbers; the same for the same layer names, shapes, size and seed, on every machine.

    Raises:
        UserError: `size` is not a multiple of the largest rank.
    """
    import torch

    rank = max(layer.rank for layer in layers)
    if size < rank or size % rank:
        raise UserError(f"a projection to {size} numbers for LoRA of rank {rank}", f"choose a multiple of {rank}")
    width, columns, rotations = size // rank, [], []
    for layer in layers:
        draws = [_generator(seed, layer.name, side) for side in "ab"]
        columns.append(tuple(torch.from_numpy(_signs(draw, d, width)).to(layer.a.device)
                             for draw, d in zip(draws, layer.widths, strict=True)))  # fmt: skip
        rotations.append(tuple(torch.from_numpy(_orthogonal(draw, rank)[:, : layer.rank]).float().to(layer.a.device)
                               for draw in draws))  # fmt: skip
    return Projection(rank, width, columns, rotations)


def _generator(seed: int, name: str, side: str) -> np.random.Generator:
    import numpy as np

    digest = hashlib.sha256(f"{seed}/{name}/{side}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def _signs(draw: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    import numpy as np

    return ((2 * draw.integers(0, 2, (rows, columns)) - 1) / math.sqrt(columns)).astype(np.float32)


def _orthogonal(draw: np.random.Generator, size: int) -> np.ndarray:
    """Uniform over orthogonal matrices: QR of a normal matrix, signs by R's diagonal (Mezzadri, 2007)."""
    import numpy as np

    q, r = np.linalg.qr(draw.standard_normal((size, size)))
    return q * np.sign(np.diag(r))


def explicit(projection: Projection, layers: list[Layer]) -> Tensor:
    """The (k, D) matrix that the projection is equal to; only for tests on tiny models."""
    import torch

    blocks = []
    for columns, rotations in zip(projection.columns, projection.rotations, strict=True):
        # vec (row by row) of Q G P is (Q ⊗ Pᵀ) vec(G).
        blocks += [torch.kron(q.double(), p.double().T.contiguous()) for p, q in zip(columns, rotations, strict=True)]
    assert sum(block.shape[1] for block in blocks) == sum(layer.rank * sum(layer.widths) for layer in layers)
    return torch.cat(blocks, 1)
