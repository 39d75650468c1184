"""Values: the linear-time forms equal their definitions, closed forms, bad gradients are named."""

from __future__ import annotations

import numpy as np
import pytest

from mmlib.errors import UserError
from mmlib.tive import values

DRAW = np.random.default_rng(0)
TASKS = DRAW.integers(0, 4, 60)
VECTORS = DRAW.normal(size=(60, 17)) * DRAW.uniform(0.1, 9, (60, 1)) + 0.3


def influence_by_pairs(vectors, tasks):
    """The definition: mean cosine to every record of the task, itself included."""
    wanted = []
    for i in range(len(vectors)):
        others = [j for j in range(len(vectors)) if tasks[j] == tasks[i]]
        cosines = [vectors[i] @ vectors[j] / (np.linalg.norm(vectors[i]) * np.linalg.norm(vectors[j])) for j in others]
        wanted.append(sum(cosines) / len(others))
    return np.array(wanted)


def test_linear_influence_is_the_mean_over_all_pairs():
    wanted = influence_by_pairs(VECTORS, TASKS)
    assert np.allclose(values.instance_influence(VECTORS, TASKS, 4), wanted, rtol=0, atol=1e-12)
    # Planted faults: another task's mean, and vectors that are not normalised.
    assert not np.allclose(values.instance_influence(VECTORS, np.roll(TASKS, 1), 4), wanted, atol=1e-3)
    means = np.stack([VECTORS[t == TASKS].mean(0) for t in range(4)])
    assert not np.allclose((VECTORS * means[TASKS]).sum(1), wanted, atol=1e-3)


def test_influence_closed_forms():
    same, opposite = np.tile([[3.0, 4.0]], (5, 1)), np.array([[1.0, 0], [-2.0, 0]])
    assert np.allclose(values.instance_influence(same, np.zeros(5, int), 1), 1)
    assert np.allclose(values.instance_influence(opposite, np.zeros(2, int), 1), 0)
    assert np.allclose(values.instance_influence(np.eye(8), np.zeros(8, int), 1), 1 / 8)  # the term of itself


def test_copies_raise_their_own_value():
    """The blindness of influence to duplicates, as a fact to be measured by a control arm."""
    copied = np.concatenate([VECTORS[:20], np.tile(VECTORS[:1], (10, 1))])
    tasks = np.zeros(len(copied), int)
    assert values.instance_influence(copied, tasks, 1)[0] > values.instance_influence(VECTORS[:20], tasks[:20], 1)[0]


def test_task_value_and_its_variants():
    norms, tasks = np.array([1.0, 3.0, 2.0, 2.0]), np.array([0, 0, 1, 1])
    assert values.task_value(norms, tasks, 2).tolist() == [2, 2]
    assert values.task_value(norms, tasks, 2, power=2).tolist() == [5, 4]  # the square favours heavy tails
    with pytest.raises(UserError, match="task number 2 has no records"):
        values.task_value(norms, tasks, 3)


def test_task_value_does_not_depend_on_size():
    norms, tasks = DRAW.uniform(1, 2, 10), np.zeros(10, int)
    assert np.allclose(values.task_value(np.tile(norms, 3), np.tile(tasks, 3), 1), values.task_value(norms, tasks, 1))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_bad_gradients_are_named(bad):
    norms = np.array([1.0, bad, 2.0])
    with pytest.raises(UserError, match="gradient of 1 records is NaN, infinite or zero: b;"):
        values.require_gradients(norms, ["a", "b", "c"])
    for refuses in (lambda: values.task_value(norms, np.zeros(3, int), 1), lambda: values.grand(norms),
                    lambda: values.instance_influence(norms[:, None], np.zeros(3, int), 1)):  # fmt: skip
        with pytest.raises(UserError, match="row 1"):
            refuses()


def test_standardised_values_mean_the_same_in_every_task():
    made = values.standardise(np.concatenate([DRAW.normal(size=50), 100 + 30 * DRAW.normal(size=50), [7, 7, 7]]),
                              np.repeat([0, 1, 2], [50, 50, 3]), 3)  # fmt: skip
    for part in (made[:50], made[50:100]):
        assert abs(part.mean()) < 1e-12 and abs(part.std() - 1) < 1e-12
    assert made[100:].tolist() == [0, 0, 0]


def test_less_takes_the_best_task_and_weighs_checkpoints():
    train = [np.array([[2.0, 0], [0, 5.0], [1.0, 1.0]])] * 2
    validation = [{"x": np.array([[1.0, 0]]), "y": np.array([[0, 3.0], [0, 1.0]])}, {"x": np.array([[-1.0, 0]]),
                   "y": np.array([[0, 1.0]])}]  # fmt: skip
    # x: 0.75 * 1 - 0.25 * 1 for record 0; y: 1 for record 1; record 2 is at 45 degrees to y at both checkpoints.
    assert np.allclose(values.less(train, validation, [3.0, 1.0]), [0.5, 1, np.sqrt(0.5)])
    with pytest.raises(UserError, match="2, 2 and 1 checkpoints"):
        values.less(train, validation, [1.0])


def test_perplexity():
    assert np.allclose(values.perplexity(np.log([2.0, 10.0])), [2, 10])
