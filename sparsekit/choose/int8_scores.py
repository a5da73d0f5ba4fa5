"""Score dense int8 engines on the texts to select by."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from sparsekit.bench.affinity import limited_to
from sparsekit.bench.models.hidden_outputs import PaddedStates, hidden_states_of
from sparsekit.bench.models.problem import BoundCall
from sparsekit.bench.summary import in_int8
from sparsekit.choose.engines import BATCH, Race, attempted
from sparsekit.choose.finishing import main_score
from sparsekit.progress import tell
from sparsekit.recipes.job import Job


def int8_scores(race: Race, job: Job, engines: Iterable[str]) -> dict[str, float]:
    """Main score of the dense model in int8 engines: their hidden states through its own pooling and head.

    Texts are padded to one size, in batches of `BATCH`, since engines are compiled for one.

    Args:
        race: of the engines.
        job: the dense model with the texts to select by.
        engines: of `MODEL_PEERS`; those in float32 are passed over, whose score is the dense model's.

    Returns:
        Engine -> score, without engines that fail, and of none where texts have token types, which engines do not get.
    """
    chosen = [name for name in engines if in_int8(name)]
    batches = getattr(job.test, "batches", job.test)
    if chosen and any(batch["token_type_ids"].any() for batch in batches if "token_type_ids" in batch):
        tell("dense int8 engines are not scored: they do not tell the two texts of a pair apart")
        return {}
    tokens = max(batch["input_ids"].shape[1] for batch in batches)
    found = {}
    with limited_to(race.threads):
        for name in chosen:
            score = attempted(name, partial(_score, race, job, name, tokens), None)
            if score is not None:
                found[name] = score
    return found


def _score(race: Race, job: Job, engine: str, tokens: int) -> float | None:
    """None where the engine's outputs are wrong on this machine."""
    call = next((run.call for run in race.runs(engine, BATCH, tokens) if run.engine == engine), None)
    if not isinstance(call, BoundCall):
        return None
    tell(f"score {engine}")
    with hidden_states_of(job.model, PaddedStates(call, BATCH, tokens)):
        predictions = job.predictions()
    return None if predictions is None else main_score(job.task.scores_of(predictions))
