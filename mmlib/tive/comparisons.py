"""Runs side by side: the primary score of each, and tests of all arms against one, corrected for their number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

    from mmlib.tive.outcomes import Results


def frame(results: Results, chance: dict[str, float]) -> DataFrame:
    """A row per run: `label, arm, seed`, `above` (the primary score), every benchmark in points, what it saw."""
    import numpy
    import pandas

    rows = []
    for result in results:
        points = {name: 100 * float(numpy.mean(values)) for name, values in result["scores"].items()}
        above = float(numpy.mean([value - 100 * chance[name] for name, value in points.items()]))
        facts = {"label": result["label"], "arm": result["arm"], "seed": result["seed"], "above": above}
        rows.append({**facts, **points, **{f"seen {key}": value for key, value in result["seen"].items()}})
    return pandas.DataFrame(rows)


def against(table: DataFrame, control: str, column: str = "above") -> DataFrame:
    """Every other arm minus `control`, paired by seed: `effect`, its standard error, `seeds`, `p`, `holm`.

    p of a paired t-test over seeds, two-sided; `holm` corrects for all arms of the table that have two seeds or more.
    """
    import pandas
    from scipy.stats import ttest_rel

    wide = table.pivot(index="seed", columns="label", values=column)
    rows = []
    for name in wide.columns.drop(control):
        pair = wide[[name, control]].dropna()
        difference = pair[name] - pair[control]
        sure = len(pair) > 1 and difference.std() > 0
        rows.append(
            {
                "label": name,
                "effect": difference.mean(),
                "se": difference.std() / len(pair) ** 0.5,
                "seeds": len(pair),
                "p": float(ttest_rel(pair[name], pair[control]).pvalue) if sure else None,
            }
        )
    made = pandas.DataFrame(rows).set_index("label")
    made["holm"] = holm(made["p"].dropna()).reindex(made.index)
    return made.sort_values("effect", ascending=False)


def holm(p: Any) -> Any:
    """Holm's step-down adjustment of a pandas Series of p-values (Scandinavian Journal of Statistics 6:65, 1979)."""
    import numpy

    order = p.sort_values()
    scaled = order.to_numpy() * numpy.arange(len(order), 0, -1)
    order[:] = numpy.minimum(1.0, numpy.maximum.accumulate(scaled)) if len(order) else scaled
    return order.reindex(p.index)
