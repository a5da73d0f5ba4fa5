"""Headline sentences: quality kept, speed-up over the best dense engines, size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sparsekit.report.facts import DENSE, OURS, EngineTime, Facts, ModelSize, Quality, Score
from sparsekit.report.quality import with_ends
from sparsekit.report.times import best_of, by_input, input_text, ours_of
from sparsekit.wording import size_text

#: Metrics for which lower is better.
_COSTS = ("perplexity",)


def _score(scores: Iterable[Score], metric: str, model: str) -> Score | None:
    return next((one for one in scores if (one.metric, one.model) == (metric, model)), None)


def quality_sentence(quality: Quality) -> str:
    """Sentence on the first metric."""
    metric = quality.scores[0].metric
    ours, dense = (_score(quality.scores, metric, model) for model in (OURS, DENSE))
    if ours is None:
        return ""
    told = with_ends(ours.value, ours.interval)
    if dense is None:
        return f"Its {metric} is {told}."
    change = quality.differences.get(metric)
    paired = "" if change is None else f", a paired difference of {with_ends(*change, sign='+')}"
    beside = f"{told}, against {with_ends(dense.value, dense.interval)} dense{paired}."
    if metric in _COSTS or dense.value <= 0 or ours.value < 0:
        return f"Its {metric} is {beside}"
    return f"It keeps {ours.value / dense.value:.1%} of the dense model's {metric}: {beside}"


def _factor(values: Sequence[float]) -> str:
    low, high = (f"{value:.1f}" for value in (min(values), max(values)))
    return f"{low} times" if low == high else f"{low} to {high} times"


def _over(groups: Iterable[Sequence[EngineTime]], kind: str) -> str:
    """Range of speed-ups over the best engine of a kind, over all inputs; empty if there is none."""
    found: dict[str, list[float]] = {"all": []}
    names: dict[str, None] = {}
    for group in groups:
        ours, best = ours_of(group), best_of(group, kind)
        if ours is not None and best is not None:
            found["all"].append(best.ms / ours.ms)
            names[best.engine] = None
    if not found["all"]:
        return ""
    return f"{_factor(found['all'])} as fast as the best dense {kind} engine here ({', '.join(names)})"


def _speed(times: Sequence[EngineTime]) -> str:
    groups = by_input(times)
    told = [text for kind in ("float32", "int8") if (text := _over(groups.values(), kind))]
    noisy = " (noisy times: the machine was busy)" if any(time.noisy for time in times) else ""
    if told:
        return f"it is {' and '.join(told)}{noisy}"
    given, ours = next(((given, ours_of(group)) for given, group in groups.items()), (None, None))
    return f"it takes {ours.ms:.3g} ms for {input_text(given)}{noisy}" if given is not None and ours is not None else ""


def _size(sizes: Sequence[ModelSize]) -> str:
    ours = next((one for one in sizes if one.model.startswith(OURS)), None)
    dense = next((one for one in sizes if one.model == DENSE), None)
    if ours is None:
        return ""

    def told(size: ModelSize) -> str:
        parts = {"on disk": size.disk, "in memory": size.memory}
        return " and ".join(f"{size_text(count)} {where}" for where, count in parts.items() if count is not None)

    return f"it takes {told(ours)}" + ("" if dense is None else f" (dense: {told(dense)})")


def headline(facts: Facts) -> list[str]:
    """Sentences on quality and on cost, without what is unknown."""
    kept = "" if facts.quality is None else quality_sentence(facts.quality)
    speed, size = _speed(facts.times), _size(facts.sizes)
    cost = ", and ".join(filter(None, (speed, size)))
    return [text for text in (kept, f"{cost[:1].upper()}{cost[1:]}." if cost else "") if text]
