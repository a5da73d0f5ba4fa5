"""The table of pruning methods agrees with functions, recipes and the command line."""

import copy
import inspect
from typing import get_args

import pytest
import torch
from tiny_networks import batches, cross_entropy, network
from torch import nn

from sparsekit import cli, prune
from sparsekit.pruning import METHODS, Schedule, prune_obert, prune_sparsegpt
from sparsekit.pruning.methods import weight_methods
from sparsekit.recipes.stages.prune import Prune
from sparsekit.recipes.stages.prune_heads import PruneHeads
from sparsekit.recipes.stages.prune_neurons import PruneNeurons
from sparsekit.recipes.stages.pruning_while_training import Gradual
from sparsekit.training import GradualPruning

#: Arguments that all functions of the table have.
_COMMON = ("model", "sparsity", "batches", "targets", "ignore", "mask_structure")


def names_in(model: type, field: str) -> set[str]:
    annotation = model.model_fields[field].annotation
    options = [annotation, *get_args(annotation)]
    return {name for one in options for name in get_args(one) if isinstance(name, str)} | {
        one for one in options if isinstance(one, str)
    }


def test_recipes_take_the_methods_of_the_table():
    assert names_in(Prune, "criterion") == set(weight_methods())
    units = {name for name, method in METHODS.items() if method.unit_score is not None}
    for stage in (PruneNeurons, PruneHeads):
        assert names_in(stage, "criterion") == units
    scopes = {scope for method in METHODS.values() for scope in method.scopes}
    assert names_in(Prune, "scope") == names_in(Gradual, "scope") == scopes


def test_the_command_line_names_the_methods_of_the_table():
    hints = inspect.signature(cli.prune, eval_str=True).parameters["criterion"].annotation
    assert all(name in hints.__metadata__[0].help for name in weight_methods())


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_rows_say_what_functions_take(method):
    assert (method.score or method.unit_score) or method.function, "something must prune by it"
    assert bool(method.scopes) == bool(method.score)
    if method.function is not None:
        assert set(inspect.signature(method.function).parameters) - set(_COMMON) == set(method.takes)
    if method.statistics is not None:
        assert ("loss" in inspect.signature(method.statistics).parameters) == method.needs_loss
    assert METHODS[method.scored_by or "magnitude"].score is not None


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def test_prune_by_sparsegpt_and_obert_is_what_their_functions_do():
    data = [{"x": torch.randn(16, 8, generator=torch.Generator().manual_seed(0))}]
    pairs = [(Blocks(), {"criterion": "sparsegpt"}, data, prune_sparsegpt, {})]
    loss = {"loss": cross_entropy}
    pairs.append((network(), {"criterion": "obert", **loss}, batches(), prune_obert, loss))
    for model, named, given, function, arguments in pairs:
        other = copy.deepcopy(model)
        assert prune(model, 0.5, given, **named) == function(other, 0.5, given, **arguments)
        for mine, its in zip(model.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(mine, its)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scope": "global", "floor": 0.1}, "criterion 'obert' prunes layer by layer; leave out scope, floor"),
        ({"sparsity": None, "threshold": 0.1}, "leave out threshold"),
        ({"batches": []}, "criterion 'obert' needs calibration batches"),
        ({"criterion": "movement"}, "criterion must be one of sparsegpt, obert, wanda, magnitude, taylor, fisher, got"),
        ({"criterion": "sparsegpt"}, "criterion 'sparsegpt' takes no loss"),
    ],
)
def test_arguments_that_a_method_does_not_take_are_refused(arguments, message):
    given = {"sparsity": 0.5, "batches": batches(), "criterion": "obert", "loss": cross_entropy, **arguments}
    with pytest.raises(ValueError, match=message):
        prune(network(), **given)


def test_obert_prunes_gradually():
    model = network()
    schedule = Schedule(0.6, 0.3, end=2, frequency=1, rise="linear")
    pruning = GradualPruning(model, schedule, batches(), criterion="obert", loss=cross_entropy)
    reached = []
    for step in range(3):
        assert pruning(step)
        reached.append(float((model[0].weight == 0).double().mean()))
    assert reached == pytest.approx([0.3, 0.45, 0.6], abs=0.02)
    with pytest.raises(ValueError, match="needs calibration batches"):
        GradualPruning(model, schedule, criterion="wanda")
