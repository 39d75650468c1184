"""Tables and pictures of the video study's reports: arms with the share of seeds past the transition, film strips."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmlib import tables

if TYPE_CHECKING:
    import numpy as np
    from pandas import DataFrame

PAST = 0.6  # mean MOTION above this cannot be had without order: the ceiling of the blind is one half
COLUMNS = {
    "static": "STATIC %", "what": "names %", "motion": "MOTION %", "joint": "JOINT %",
    "motion_reversed": "MOTION, frames reversed %", "motion_shuffled": "shuffled %",
    "motion_reworded": "in new wordings %", "reversal_r1": "R@1 with reversals %", "static_r1": "R@1 without %",
}  # fmt: skip


def past_transition(evidence: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Arm -> (seeds whose mean MOTION is above `PAST`, seeds). Order is learned late and suddenly or not at all."""
    from statistics import fmean

    return {
        arm: (sum(fmean(values) > PAST for values in seeds.values()), len(seeds))
        for arm, seeds in evidence["metrics"]["motion"]["values"].items()
    }


def arms_table(evidence: dict[str, Any], order: list[str]) -> DataFrame:
    """A row per arm in `order`: means over seeds, CIDEr in its own unit, and seeds past the transition."""
    frame = tables.levels(evidence)
    wide = frame.pivot(index="arm", columns="metric", values="value")
    wide = wide.loc[[arm for arm in order if arm in wide.index], [name for name in COLUMNS if name in wide]]
    table = wide.rename(columns=COLUMNS).reset_index()
    cider = frame[frame["metric"] == "cider"].set_index("arm")["value"] / 100
    table["CIDEr"] = [cider.get(arm) for arm in table["arm"]]
    past = past_transition(evidence)
    table["seeds past the transition"] = [f"{past[arm][0]} of {past[arm][1]}" for arm in table["arm"]]
    return table


def by_kind(evidence: dict[str, Any], metric: str = "motion") -> DataFrame:
    """`arm, kind, value` (percent): a metric by kind of motion, mean over seeds."""
    import numpy
    import pandas

    declared = evidence["metrics"][metric]
    kinds = numpy.array([unit.split("/")[0] for unit in evidence["units"][declared["units"]]])
    rows = [
        {"arm": arm, "kind": kind, "value": 100 * float(numpy.array(list(seeds.values()))[:, kinds == kind].mean())}
        for arm, seeds in declared["values"].items()
        for kind in sorted(set(kinds))
    ]
    return pandas.DataFrame(rows)


def search_table(tuning: dict[str, Any]) -> DataFrame:
    """A row per try of results/vlab/tuning.json: score, what it lost and learned (percent), whether it was taken."""
    import pandas

    rows = []
    for row in tuning["tried"]:
        taken = all(tuning["chosen"][row["arm"]][key] == row[key] for key in ("learning_rate", "pace"))
        rows.append({
            "arm": row["arm"], "rate": f"{row['learning_rate']:g}", "pace": f"{row['pace']:g}",
            "score %": 100 * row["score"], **{name: 100 * share for name, share in row["shares"].items()},
            "taken": "yes" if taken else "",
        })  # fmt: skip
    return pandas.DataFrame(rows).sort_values(["arm", "rate", "pace"])


def cost_of_order(tuning: dict[str, Any], arm: str) -> str:
    """A sentence on the names that an arm loses at the settings of the search, beside those of the plain CLIP."""
    tries = [row for row in tuning["tried"] if row["arm"] == arm]
    names = [100 * row["shares"]["static/what"] for row in tries]
    motion = [100 * sum(v for k, v in row["shares"].items() if k.startswith("motion/")) / 4 for row in tries]
    best = max(100 * row["shares"]["static/what"] for row in tuning["tried"] if row["arm"].startswith("b2"))
    spread = ", ".join(f"{n:.0f} at MOTION {m:.0f}" for n, m in sorted(zip(names, motion, strict=True)))
    return (
        f"Names that `{arm}` gets right, in %, try by try: {spread}. Late fusion, whose CLIP is as it was: {best:.0f}."
    )


def mean(evidence: dict[str, Any], metric: str, arm: str) -> float:
    """Percent, over units and seeds."""
    import numpy

    return 100 * float(numpy.mean(list(evidence["metrics"][metric]["values"][arm].values())))


def adds_or_restores(evidence: dict[str, Any], form: str, image: str, video: str) -> str:
    """A form against the better branch of each family, in a sentence: what it restores and what it adds."""
    found = []
    for metric, branch in (("static", image), ("what", image), ("motion", video), ("motion_reworded", video)):
        gain = mean(evidence, metric, form) - mean(evidence, metric, branch)
        other = mean(evidence, metric, video if branch == image else image)
        found.append(f"{COLUMNS[metric].removesuffix(' %')}: {gain:+.1f} to `{branch}`, which is the better branch "
                     f"({mean(evidence, metric, branch):.1f} against {other:.1f})")  # fmt: skip
    return f"`{form}`, in points. " + "; ".join(found) + "."


def parts_table(evidence: dict[str, Any], arms: list[str]) -> DataFrame:
    """Names, grounds, MOTION, JOINT, and JOINT where the same clip's MOTION question was answered rightly (percent)."""
    import numpy
    import pandas

    units, metrics = evidence["units"], evidence["metrics"]
    place = {unit: number for number, unit in enumerate(units["motion question"])}
    asked = [place[unit] for unit in units["joint question"]]
    rows = []
    for arm in arms:
        motion, joint = (metrics[name]["values"][arm] for name in ("motion", "joint"))
        pairs = numpy.concatenate([numpy.stack([numpy.array(motion[s])[asked], joint[s]], 1) for s in motion])
        known = pairs[pairs[:, 0] == 1, 1]
        levels = {COLUMNS[name]: mean(evidence, name, arm) for name in ("what", "static", "motion", "joint")}
        given = 100 * float(known.mean()) if len(known) else None
        rows.append({"arm": arm, **levels, "JOINT where MOTION is right %": given})
    return pandas.DataFrame(rows)


def per_seed(evidence: dict[str, Any], metric: str = "motion") -> DataFrame:
    """`arm, seed, value` (percent): what a mean would hide."""
    import pandas

    values = evidence["metrics"][metric]["values"]
    return pandas.DataFrame(
        {"arm": arm, "seed": seed, "value": 100 * sum(row) / len(row)}
        for arm, seeds in values.items()
        for seed, row in seeds.items()
    )


def strip(clip: np.ndarray) -> np.ndarray:
    """Frames side by side with a white line between them: uint8 (T, H, W, 3) -> (H, T (W + 2) - 2, 3)."""
    import numpy as np

    framed = np.pad(clip, ((0, 0), (0, 0), (0, 2), (0, 0)), constant_values=255)
    return np.concatenate(list(framed), 1)[:, :-2]


def beside(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Two clips (T, H, W, 3) side by side, a white line between them."""
    import numpy as np

    return np.concatenate([np.pad(left, ((0, 0), (0, 0), (0, 4), (0, 0)), constant_values=255), right], 2)


def animation(clip: np.ndarray, scale: int = 2, milliseconds: int = 180, form: str = "GIF") -> bytes:
    """A looping animation of uint8 (T, H, W, 3); `form` GIF, or PNG: an APNG, which notebooks show as any picture."""
    import io

    from PIL import Image

    size = (clip.shape[2] * scale, clip.shape[1] * scale)
    images = [Image.fromarray(frame).resize(size, Image.Resampling.NEAREST) for frame in clip]
    stream = io.BytesIO()
    images[0].save(stream, form, save_all=True, append_images=images[1:], duration=milliseconds, loop=0)
    return stream.getvalue()
