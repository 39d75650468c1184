"""What variants of a model answered to the same prompts, as a Markdown table for each prompt."""

from __future__ import annotations

NOTHING = "(nothing)"


def tables(prompts: list[str], said: dict[str, list[str]]) -> list[str]:
    """A table per prompt, one line per variant. `said`: variant -> its answers, in the order of the prompts."""
    return [
        "\n".join([f"**{prompt}**", "", "| variant | answer |", "|---|---|",
                   *(f"| {name} | {_cell(answers[number])} |" for name, answers in said.items())])
        for number, prompt in enumerate(prompts)
    ]  # fmt: skip


def _cell(answer: str) -> str:
    """One line of text that cannot break the table, its words as they are."""
    return " ".join(answer.replace("|", " ").split()) or NOTHING
