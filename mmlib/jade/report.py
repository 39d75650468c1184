"""Tables and pictures of the reports: what every arm keeps, of which types, and what it looks like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from mmlib import plots, tables
from mmlib.jade import arms, detect, language, precision, study, truth
from mmlib.jade.truth import RIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy import ndarray
    from pandas import DataFrame

Row = dict[str, Any]
COLUMNS = {"kept": "kept", "precision": "right", "standardised": "right at the raw mix of types",
           "wrong_answer": "wrong answer", "false_presupposition": "false presupposition", "garbled": "garbled",
           "right_kept": "kept of the right", "errors_kept": "kept of the wrong"}  # fmt: skip


def arms_table(evidence: dict[str, Any]) -> DataFrame:
    """A row per arm that kept anything, a column per metric: percent with 95 % interval."""
    frame = tables.levels(evidence)
    frame = frame[frame["metric"].isin(COLUMNS)]
    text = [f"{row.value:.1f} [{row.low:.1f}, {row.high:.1f}]" for row in frame.itertuples()]
    wide = frame.assign(text=text).pivot(index="arm", columns="metric", values="text")
    present = [arm for arm in arms.ARMS if arm in evidence["metrics"]["precision"]["values"]]
    return wide.reindex(index=present, columns=list(COLUMNS)).rename(columns=COLUMNS).fillna("-")


def by_seed(
    evidence: dict[str, Any], metric: str = "standardised", names: Sequence[str] = arms.ARMS, scale: float = 100
) -> DataFrame:
    """A row per arm, a column per seed: mean of the metric, from its values per unit."""
    import pandas as pd

    values = evidence["metrics"][metric]["values"]
    per_arm = {arm: {seed: scale * fmean(v) for seed, v in seeds.items()} for arm, seeds in values.items()}
    return pd.DataFrame(per_arm).T.reindex([arm for arm in names if arm in per_arm])


def flat(part: dict[str, Any]) -> list[Row]:
    """All rows of a set."""
    return [row for rows in part["rows"] for row in rows]


def kept_flat(result: dict[str, Any], arm: str, name: str = "web") -> list[Row]:
    """All rows of a set that an arm keeps."""
    return [row for rows in arms.keep(arm, result["sets"][name]["rows"], result["seed"]) for row in rows]


def stages_of_a_set() -> dict[str, Callable[[dict[str, Any]], list[Row]]]:
    """Name -> what a seed's set about the web holds at that stage: raw, agreed, and each configuration."""

    def exported(configuration: str) -> Callable[[dict[str, Any]], list[Row]]:
        return lambda result: [
            row for _, rows, _ in study.choose(result, result["seed"], configuration)[0] for row in rows
        ]

    return {"raw": lambda result: flat(result["sets"]["web"]),
            "agreed": lambda result: kept_flat(result, "consistency"),
            **{f"exported, {name}": exported(name) for name in study.CONFIGURATIONS}}  # fmt: skip


def by_type(results: list[dict[str, Any]], arm: str = "consistency") -> DataFrame:
    """Per type, mean over seeds in percent: share of the raw set, right before and after, kept; nan where none is."""
    import pandas

    lines = []
    for result in results:
        raw, kept = flat(result["sets"]["web"]), kept_flat(result, arm)
        for kind in language.TYPES:
            before = [row for row in raw if row["type"] == kind]
            after = [row for row in kept if row["type"] == kind]
            lines.append({"type": kind, "share": _share(before, raw), "right before": _right(before),
                          "right after": _right(after), "kept": _share(after, before)})  # fmt: skip
    return 100 * pandas.DataFrame(lines).groupby("type", sort=False).mean()


def by_frequency(results: list[dict[str, Any]], arm: str = "consistency") -> DataFrame:
    """Per band of an answer's share in the raw set: how many, how many kept, right before and after, in percent."""
    import pandas

    lines = []
    for result in results:
        raw = flat(result["sets"]["web"])
        before, after = precision.bands(raw, raw), precision.bands(kept_flat(result, arm), raw)
        for band, rows in before.items():
            lines.append({"answer's share": band, "of the raw set": _share(rows, raw), "right before": _right(rows),
                          "right after": _right(after[band]), "kept": _share(after[band], rows)})  # fmt: skip
    return 100 * pandas.DataFrame(lines).groupby("answer's share", sort=False).mean()


def _share(part: list[Row], whole: list[Row]) -> float:
    return len(part) / len(whole) if whole else float("nan")


def _right(rows: list[Row]) -> float:
    return precision.precision(rows) if rows else float("nan")


def exams(results: list[dict[str, Any]]) -> DataFrame:
    """Share of true questions that each filter answers rightly, per set and type, in percent; mean over seeds."""
    import pandas

    lines = [{"filter": arm, "set": name,
              **{kind: fmean(row[n] for row in rows) for n, kind in enumerate(language.TYPES)}}
             for result in results for arm, sets in result["exam"].items() for name, rows in sets.items()]  # fmt: skip
    return 100 * pandas.DataFrame(lines).groupby(["filter", "set"], sort=False).mean()


def spread(results: list[dict[str, Any]], arm_names: tuple[str, ...]) -> DataFrame:
    """Bits of entropy of types and answers among what is kept: has a filter collapsed the set? Mean over seeds."""
    import pandas

    lines = []
    for arm in arm_names:
        parts = [kept_flat(result, arm) for result in results]
        lines.append({"arm": arm, **{f"entropy of {key}s": fmean(precision.entropy(row[key] for row in rows)
                                     for rows in parts) for key in ("type", "answer")}})  # fmt: skip
    return pandas.DataFrame(lines)


def first_words(questions: list[str], count: int, most: int) -> DataFrame:
    """The commonest beginnings of questions, in percent."""
    import pandas

    counted = Counter(" ".join(text.split()[:count]) for text in questions)
    lines = [{"first words": text, "share": 100 * n / len(questions)} for text, n in counted.most_common(most)]
    return pandas.DataFrame(lines)


def quality(rows: list[Row]) -> dict[str, float]:
    """Number, and percent of each verdict."""
    return {"questions": len(rows), **{name: 100 * share for name, share in precision.shares(rows).items()}}


def effects(row: dict[str, Any], evidence: dict[str, Any]) -> list[float]:
    """A claim's effect in each seed, in the unit of its ledger row."""
    treatment, control = (evidence["metrics"][side["metric"]]["values"][side["arm"]]
                          for side in (row["treatment"], row["control"]))  # fmt: skip
    scale = 100 if row["effect_unit"] == "points" else 1
    return [scale * (fmean(values) - fmean(control[seed])) for seed, values in treatment.items()]


def forest(ax: Axes, rows: list[dict[str, Any]], evidence: dict[str, Any]) -> None:
    """Claims with their intervals, and each seed's effect as a small dot above: a wide line may be one seed's."""
    plots.forest(ax, rows)
    for y, row in enumerate(reversed(rows)):
        values = effects(row, evidence)
        ax.scatter(values, [y + 0.2] * len(values), s=9, color="0.35", zorder=3)
    left, right = ax.get_xlim()
    every = [value for row in rows for value in effects(row, evidence)]
    ax.set_xlim(min([left, *every]), max([right, *every]))


def levels(ax: Axes, evidence: dict[str, Any], metric: str, arm_names: list[str], scale: float = 100) -> None:
    """A row per arm: mean with 95 % interval, and the seeds as small dots."""
    frame = tables.levels(evidence)
    frame = frame[frame["metric"] == metric].set_index("arm")
    for y, arm in enumerate(reversed(arm_names)):
        point = frame.loc[arm]
        bars = [[point["value"] - point["low"]], [point["high"] - point["value"]]]
        ax.errorbar(point["value"], y, xerr=bars, fmt="o", markersize=5, capsize=3, color="C0")
        seeds = [scale * fmean(values) for values in evidence["metrics"][metric]["values"][arm].values()]
        ax.scatter(seeds, [y + 0.22] * len(seeds), s=9, color="0.35", zorder=3)
    ax.set_yticks(range(len(arm_names)), list(reversed(arm_names)))


def unasked(results: list[dict[str, Any]]) -> dict[str, float]:
    """Percent of raw questions and of captions that name no thing, so that the check of existence asks nothing."""
    parts = [result["sets"]["web"] for result in results]
    shares = {}
    for key in ("rows", "captions"):
        rows = [row for part in parts for some in part[key] for row in some]
        shares[key] = 100 * sum(row["exists"] == "" for row in rows) / max(len(rows), 1)
    return shares


def training_table(results: list[dict[str, Any]], settings: dict[str, Any]) -> DataFrame:
    """A row per model and seed: loss after the lessons in existence (at chance: half of ln 2), and after training."""
    import pandas

    lines = []
    for result in results:
        for model, curve in result["curves"].items():
            steps = settings["generator_simple_steps" if model == "generator" else "simple_steps"]
            lessons = [row["loss"] for row in curve if row["step"] <= steps]
            lines.append({"model": model, "seed": result["seed"], "existence": lessons[-1] if lessons else float("nan"),
                          "end": curve[-1]["loss"]})  # fmt: skip
    return pandas.DataFrame(lines).pivot(index="model", columns="seed", values=["existence", "end"])


def detectors(scenes: list[Any], images: ndarray) -> dict[str, dict[str, float]]:
    """Per detector: boxes a picture, percent of things found, percent of boxes that show nothing (by `OVERLAP`)."""
    table = {}
    for name, find in (("of this set", detect.Oracle()), ("classical", detect.Plates())):
        boxes = [[box.corners for box in find(scene, image)] for scene, image in zip(scenes, images, strict=True)]
        found = [any(truth.intersection_over_union(thing.box, box) >= truth.OVERLAP for box in some)
                 for scene, some in zip(scenes, boxes, strict=True) for thing in scene.objects]  # fmt: skip
        empty = [truth.thing_in(scene, box) is None for scene, some in zip(scenes, boxes, strict=True) for box in some]
        table[name] = {"boxes a picture": len(empty) / len(scenes), "found %": 100 * fmean(found),
                       "show nothing %": 100 * fmean(empty)}  # fmt: skip
    return table


def examples(result: dict[str, Any], kept: bool, right: bool, count: int, used: set[int]) -> list[tuple[int, Row]]:
    """(number of the picture, row) of `count` pictures that the filter keeps or drops, right or wrong.

    Types in turn, so that not all examples begin with `what`; pictures in `used` are left out, those shown are added.
    """
    found: list[tuple[int, Row]] = []
    for number, rows in enumerate(result["sets"]["web"]["rows"]):
        chosen = arms.keep("consistency", [rows], result["seed"])[0]
        fits = [row for row in rows if (row in chosen) == kept and (row["verdict"] == RIGHT) == right]
        fits = [row for row in fits if row["type"] == language.TYPES[len(used) % len(language.TYPES)]]
        if number not in used and fits and len(found) < count:
            used.add(number)
            found.append((number, fits[0]))
    return found


def draw(ax: Axes, image: ndarray, row: Row) -> None:
    """A picture with the box, the question, both answers and what is true."""
    from matplotlib.patches import Rectangle

    x0, y0, x1, y1 = row["box"]
    ax.imshow(image, interpolation="nearest")
    ax.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, color="white", linewidth=2.5))
    ax.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, color="black", linewidth=1))
    ax.set_axis_off()
    answer = row["filter"]["independent"][0]
    ax.set_title(f"{row['question']}\nsaid: {row['answer']}; filter: {answer}\n{row['verdict']}", fontsize=8)


def marked(scene: Any, questions: list[Any], count: int) -> str:
    """The first questions with their answers, a line each, marked as right or not."""
    right = [truth.judge(scene, one.question, one.answer) == RIGHT for one in questions[:count]]
    return "\n".join(f"{'✓' if ok else '✗'} {one.question} {one.answer}"
                     for ok, one in zip(right, questions[:count], strict=True))  # fmt: skip


def draw_dense(ax: Axes, image: ndarray, dense: list[Any], side: int) -> None:
    """A picture with the boxes (of a square of 224) and captions of its dense captions."""
    from matplotlib.patches import Rectangle

    from mmlib.formats.cc3m import SIDE as PUBLIC

    ax.imshow(image, interpolation="nearest")
    for one in dense:
        x0, y0, x1, y1 = (value * side / PUBLIC - 0.5 for value in one.object)
        ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color="white", linewidth=1.2))
        ax.text(x0 + 0.5, y1 - 1, one.region_description, fontsize=6, color="white",
                bbox={"color": "black", "alpha": 0.6, "pad": 0.6})  # fmt: skip
    ax.set_axis_off()
