"""What a record or a task is worth: TIVE's two values, and the scores of the methods it is compared with.

g_i is the gradient of record i's loss at the reference model, ĝ_i its unit vector, t a task with n_t records.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mmlib.errors import UserError
from mmlib.tive.datastore import refuse

if TYPE_CHECKING:
    import numpy as np


def require_gradients(norms: np.ndarray, names: list[str] | None = None) -> None:
    """Refuse NaN, infinite and zero gradients by the names of their records: they have no direction."""
    import numpy as np

    refuse(np.isfinite(norms) & (norms > 0), "is NaN, infinite or zero", names=names)


def task_value(norms: np.ndarray, tasks: np.ndarray, count: int, power: int = 1) -> np.ndarray:
    """Difficulty d_t = (1/n_t) Σ ‖g_i‖^power, float64 (count,).

    power 1 is the released code; 2 is self-influence as an inner product. For the difficulty under a summed loss give
    ‖g_i‖ times the number of answer tokens: the gradient of a sum is that multiple of the gradient of the mean.

    Raises:
        UserError: NaN or zero gradients, or a task without records.
    """
    import numpy as np

    require_gradients(norms)
    sizes = np.bincount(tasks, minlength=count)
    if (sizes == 0).any():
        raise UserError(f"task number {int(np.argmin(sizes))} has no records", "leave it out of the tasks")
    return np.bincount(tasks, norms.astype(np.float64) ** power, count) / sizes


def instance_influence(units: np.ndarray, tasks: np.ndarray, count: int) -> np.ndarray:
    """v_i = (1/n_t) Σ_{j in t} ⟨ĝ_i, ĝ_j⟩ = ⟨ĝ_i, μ_t⟩ with μ_t the mean of the task's unit vectors; float64 (n,).

    Linear in n and exact; the term j = i is included, as in the released code. In memory; `influence` streams a store.

    Args:
        units: (n, k) unit vectors, or any: they are normalised.
    """
    import numpy as np

    norms = np.linalg.norm(units.astype(np.float64), axis=1)
    require_gradients(norms)
    units = units / norms[:, None]
    means = np.zeros((count, units.shape[1]))
    np.add.at(means, tasks, units)
    means /= np.maximum(np.bincount(tasks, minlength=count), 1)[:, None]
    return np.einsum("nk,nk->n", units, means[tasks])


def standardise(values: np.ndarray, tasks: np.ndarray, count: int) -> np.ndarray:
    """Values less their task's mean, over its standard deviation: one inverse temperature then means the same for all.

    A task whose values are all equal gets zeros: they say nothing about its records.
    """
    import numpy as np

    sizes = np.maximum(np.bincount(tasks, minlength=count), 1)
    centred = values - (np.bincount(tasks, values, count) / sizes)[tasks]
    spread = np.sqrt(np.bincount(tasks, centred**2, count) / sizes)
    tiny = 1e-12 * max(1.0, float(np.abs(values).max(initial=0)))
    return np.where(spread[tasks] > tiny, centred / np.maximum(spread[tasks], tiny), 0.0)


def grand(norms: np.ndarray) -> np.ndarray:
    """GraNd (arXiv:2107.07075): ‖g_i‖ over the same LoRA weights."""
    require_gradients(norms)
    return norms


def perplexity(losses: np.ndarray) -> np.ndarray:
    """exp of the mean loss of answer tokens."""
    import numpy as np

    return np.exp(losses)


def less(train: list[np.ndarray], validation: list[dict[str, np.ndarray]], learning_rates: list[float]) -> np.ndarray:
    """LESS's score (arXiv:2402.04333), plain gradients: how well a record serves the validation task it serves best.

    max over validation tasks of Σ_c w_c · mean over the task's records z' of ⟨ĝ_c(z), ĝ_c(z')⟩, w_c the share of
    checkpoint c in the sum of learning rates. LESS itself takes Adam's direction for training records.

    Args:
        train: (n, k) per checkpoint; validation: (m, k) by task and checkpoint; both any length, projected alike.
    Raises:
        UserError: numbers of checkpoints differ, or a NaN or zero gradient.
    """
    import numpy as np

    if not len(train) == len(validation) == len(learning_rates):
        culprit = f"{len(train)}, {len(validation)} and {len(learning_rates)} checkpoints"
        raise UserError(f"LESS got {culprit}", "give gradients and a learning rate of each checkpoint")
    total = math.fsum(learning_rates)
    scores = {
        task: sum(rate / total * (_unit(g) @ _unit(v[task]).mean(0))
                  for g, v, rate in zip(train, validation, learning_rates, strict=True))
        for task in validation[0]
    }  # fmt: skip
    return np.max(list(scores.values()), axis=0)


def _unit(vectors: np.ndarray) -> np.ndarray:
    import numpy as np

    vectors = vectors.astype(np.float64)
    norms = np.linalg.norm(vectors, axis=1)
    require_gradients(norms)
    return vectors / norms[:, None]
