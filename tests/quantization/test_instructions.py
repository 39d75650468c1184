"""Instructions checked by rules: the checkers work on our prompts, nonsense is found out, bad prompts are refused."""

from __future__ import annotations

import dataclasses

import pytest

from mmlib.errors import UserError
from mmlib.quantization import instructions

GOOD = {
    "keywords:existence": "The storm took the ship. The sailor swam home.",
    "keywords:frequency": "A flower is red. Another flower is blue.",
    "detectable_format:number_bullet_lists": "* apple\n* pear\n* plum",
    "detectable_format:json_format": '{"name": "Ana", "age": 7}',
    "startend:quotation": '"The sea is wide."',
    "change_case:english_capital": "THE SEA IS WIDE AND DEEP AND BLUE.",
    "punctuation:no_comma": "The sea is wide.",
}


@pytest.fixture(scope="module")
def prompts():
    return instructions.prompts(4)


@pytest.fixture(scope="module")
def words(root):
    return instructions.vocabulary(root)


def test_kinds_are_balanced_and_ids_unique(prompts):
    kinds = [p.kind for p in prompts]
    assert len(set(kinds)) == 15 and all(kinds.count(kind) == 4 for kind in kinds)
    assert len({p.id for p in prompts}) == 60


def test_most_prompts_are_of_live_kinds_which_no_null_answer_passes(words):
    chosen = instructions.prompts(2, 8)
    kinds = [p.kind for p in chosen]
    assert {kinds.count(kind) for kind in instructions.LIVE} == {8} and len(kinds) == 4 * 8 + 11 * 2
    nulls = [instructions.measure(chosen, rows, words) for rows in instructions.null_answers(chosen, words).values()]
    assert set(instructions.LIVE) <= {chosen[i].kind for i in instructions.floorless(chosen, nulls)}


@pytest.mark.parametrize("kind", GOOD)
def test_a_good_answer_passes_and_an_empty_one_fails(prompts, kind):
    prompt = next(p for p in prompts if p.kind == kind)
    assert instructions.follow(prompt, GOOD[kind]) == {"strict": 1.0, "loose": 1.0}
    assert instructions.follow(prompt, "")["strict"] == 0.0


def test_loose_forgives_a_first_line(prompts):
    prompt = next(p for p in prompts if p.kind == "startend:quotation")
    got = instructions.follow(prompt, 'Here it is:\n"The sea is wide."')
    assert got == {"strict": 0.0, "loose": 1.0}


def test_kinds_that_nonsense_passes_do_not_count(prompts, words):
    nulls = [instructions.measure(prompts, rows, words) for rows in instructions.null_answers(prompts, words).values()]
    hard = {prompts[i].kind for i in instructions.floorless(prompts, nulls)}
    assert "punctuation:no_comma" not in hard and "detectable_format:number_bullet_lists" in hard
    planted = [{"strict": [1.0] * len(prompts)}]
    assert instructions.floorless(prompts, planted) == []


def test_degeneration_sees_repetition_and_non_words(words):
    fine = instructions.degeneration("The storm was loud and the sailor was afraid of it.", words)
    loop = instructions.degeneration("storm sailor " * 20, words)
    noise = instructions.degeneration("xqzt vrrk pllo mnbt", words)
    assert fine["distinct"] > 0.9 > 0.2 > loop["distinct"] and fine["known"] > 0.9 > 0.1 > noise["known"]
    assert instructions.degeneration("", words) == {"distinct": 0.0, "known": 0.0}


def test_a_duplicate_and_an_unknown_kind_are_refused(prompts):
    with pytest.raises(UserError, match="appears twice"):
        instructions.refuse_bad_prompts([*prompts, prompts[3]])
    with pytest.raises(UserError, match="unknown kind of instruction `startend:rhyme`"):
        instructions.refuse_bad_prompts([dataclasses.replace(prompts[0], kind="startend:rhyme")])
    with pytest.raises(UserError, match="has 4 prompts, 9 asked for"):
        instructions.prompts(9)
    with pytest.raises(UserError, match="has 10 prompts, 11 asked for"):
        instructions.prompts(2, 11)


def test_the_digest_covers_rules(prompts):
    changed = [dataclasses.replace(prompts[0], arguments='{"keywords": ["x"]}'), *prompts[1:]]
    assert instructions.digest(changed) != instructions.digest(prompts)
