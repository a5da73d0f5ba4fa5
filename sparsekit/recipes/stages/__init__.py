"""The stages of a recipe: one file each, with its settings and its function, and an entry in `STAGES`."""

from sparsekit.recipes.stages import (
    convert,
    distill,
    drop_layers,
    evaluate,
    finetune,
    prune,
    prune_heads,
    prune_neurons,
)
from sparsekit.recipes.stages.stage import StageKind

#: Stages by their names in recipes.
STAGES: dict[str, StageKind] = {
    "finetune": finetune.STAGE,
    "drop_layers": drop_layers.STAGE,
    "prune_neurons": prune_neurons.STAGE,
    "prune_heads": prune_heads.STAGE,
    "prune": prune.STAGE,
    "distill": distill.STAGE,
    "convert": convert.STAGE,
    "evaluate": evaluate.STAGE,
}
