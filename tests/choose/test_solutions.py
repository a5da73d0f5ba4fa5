"""The database of solutions: against SparseGPT of one layer alone, in a model and back, on disk."""

import copy
import itertools
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sparsekit import finalize, prune
from sparsekit.choose.assignments.levels import SPARSITIES
from sparsekit.choose.solutions.finding import find_solutions, relative_error
from sparsekit.choose.solutions.stitched import Stitched
from sparsekit.pruning import prune_sparsegpt, prune_weight

LEVELS = range(1, len(SPARSITIES))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.down = nn.Linear(16, 24), nn.Linear(16, 24), nn.Linear(24, 16)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden + 0.5 * self.down(torch.tanh(self.left(hidden)) * torch.sigmoid(self.right(hidden)))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.head = nn.Linear(16, 4)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        hidden = self.embedding(input_ids)
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden)


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model()


def batches(count: int = 3, seed: int = 1) -> list[dict[str, torch.Tensor]]:
    torch.manual_seed(seed)
    mask = torch.ones(8, 12, dtype=torch.int64)
    mask[:4, 9:] = 0
    return [{"input_ids": torch.randint(0, 50, (8, 12)), "attention_mask": mask} for _ in range(count)]


def inputs_of(model: nn.Module, layer: str) -> torch.Tensor:
    """A layer's inputs without padding, [tokens, in_features]."""
    rows = []
    for batch in batches():
        mask = batch["attention_mask"].bool()
        hook = model.get_submodule(layer).register_forward_pre_hook(lambda _, args: rows.append(args[0]))
        with torch.no_grad():
            model(**batch)
        hook.remove()
        rows[-1] = rows[-1][mask]
    return torch.cat(rows)


@pytest.mark.parametrize("structure", ["unstructured", "4x1"])
def test_solutions_are_those_of_sparsegpt_for_the_layer_alone(model, structure, tmp_path):
    solutions = find_solutions(model, tmp_path, batches(), mask_structure=structure)
    assert list(solutions.shapes) == [f"blocks.{i}.{name}" for i in range(3) for name in ("left", "right", "down")]
    for layer in ("blocks.0.left", "blocks.1.right", "blocks.2.down"):
        for level in LEVELS:
            alone = copy.deepcopy(model)
            prune_sparsegpt(alone, SPARSITIES[level], batches(), targets=[layer], mask_structure=structure)
            wanted = finalize(alone).get_submodule(layer).weight.detach()
            found = solutions.weight(layer, level)
            assert torch.equal(found != 0, wanted != 0)
            torch.testing.assert_close(found, wanted, rtol=2e-3, atol=1e-4)  # float16, and inputs in another order


def test_solutions_and_errors_are_those_of_the_solver(model, tmp_path):
    solutions = find_solutions(model, tmp_path, batches())
    for layer in solutions.shapes:
        x, weight = inputs_of(model, layer), model.get_submodule(layer).weight.detach()
        errors = solutions.errors()[layer]
        assert errors[0] == 0.0
        assert all(before < after for before, after in itertools.pairwise(errors))
        for level in LEVELS:
            wanted, mask = prune_weight(weight, x.T @ x, SPARSITIES[level])
            found = solutions.weight(layer, level)
            assert torch.equal(found != 0, mask)
            torch.testing.assert_close(found, wanted, rtol=2e-3, atol=1e-4)
            error = (x @ (weight - found).T).double().square().sum() / (x @ weight.T).double().square().sum()
            assert errors[level] == pytest.approx(error.item(), rel=1e-3)


def test_the_error_of_a_layer_without_outputs_is_zero():
    assert relative_error(torch.ones(2, 3), torch.zeros(2, 3), torch.zeros(3, 3)) == 0.0


def test_the_model_stays_as_it_is(model, tmp_path):
    model.train()
    before = copy.deepcopy(model.state_dict())
    find_solutions(model, tmp_path, batches())
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_stitching_puts_weights_in_and_brings_the_dense_ones_back(model, tmp_path):
    solutions = find_solutions(model, tmp_path, batches())
    before, parameters = copy.deepcopy(model.state_dict()), dict(model.named_parameters())
    assignment = {name: number % len(SPARSITIES) for number, name in enumerate(solutions.shapes)}
    with Stitched(model, solutions) as candidate:
        candidate.put(assignment)
        assert candidate.assignment == assignment
        for name, level in assignment.items():
            wanted = solutions.weight(name, level) if level else before[f"{name}.weight"]
            assert torch.equal(model.get_submodule(name).weight, wanted)
        candidate.put(assignment | {"blocks.0.right": 0})
        assert torch.equal(model.blocks[0].right.weight, before["blocks.0.right.weight"])
        candidate.put(assignment)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value is parameters[name] for name, value in model.named_parameters())


def test_only_layers_whose_level_changes_are_read(model, tmp_path, monkeypatch):
    solutions = find_solutions(model, tmp_path, batches())
    read = []
    weight = solutions.weight
    monkeypatch.setattr(solutions, "weight", lambda name, level: read.append(name) or weight(name, level))
    with Stitched(model, solutions) as candidate:
        candidate.put(dict.fromkeys(solutions.shapes, 2))
        assert read == list(solutions.shapes)
        read.clear()
        candidate.put(candidate.assignment | {"blocks.1.down": 3, "blocks.2.down": 0})
        assert read == ["blocks.1.down"]


def test_bad_assignments_change_nothing(model, tmp_path):
    solutions = find_solutions(model, tmp_path, batches())
    with Stitched(model, solutions) as candidate:
        zeros = dict(candidate.assignment)
        with pytest.raises(ValueError, match=r"level for each layer .* see \['head'\]"):
            candidate.put(zeros | {"blocks.0.left": 1, "head": 1})
        with pytest.raises(ValueError, match="blocks.2.down: a level must be from 0 to 7, got 8"):
            candidate.put(zeros | {"blocks.0.left": 1, "blocks.2.down": 8})
        assert candidate.assignment == zeros


def test_a_stopped_search_for_solutions_resumes(model, tmp_path):
    whole = find_solutions(model, tmp_path / "whole", batches())

    def stop(name: str) -> None:
        if name == "blocks.1.left":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_solutions(model, tmp_path / "resumed", batches(), on_layer=stop)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "resumed").glob("*.safetensors")}
    assert len(kept) == 4
    done: list[str] = []
    resumed = find_solutions(model, tmp_path / "resumed", batches(), on_layer=done.append)
    assert done == list(whole.shapes)[4:]
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    for one, other in zip(*(sorted(found.folder.iterdir()) for found in (whole, resumed)), strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert find_solutions(model, tmp_path / "resumed", batches(), on_layer=done.append).errors() == whole.errors()
    assert len(done) == 5


def test_solutions_of_something_else_are_refused(model, tmp_path):
    solutions = find_solutions(model, tmp_path, batches())
    other = copy.deepcopy(model)
    other.blocks[0].left.bias.data[0] += 1
    with pytest.raises(ValueError, match="solutions of another model; use another folder"):
        find_solutions(other, tmp_path, batches())
    with pytest.raises(ValueError, match="another batches"):
        find_solutions(model, tmp_path, batches(seed=2))
    with pytest.raises(ValueError, match="another mask structure"):
        find_solutions(model, tmp_path, batches(), mask_structure="4x1")
    with pytest.raises(ValueError, match="another layers"):
        find_solutions(model, tmp_path, batches(), targets=["re:.*down"])
    with pytest.raises(ValueError, match="solutions of another model"):
        Stitched(other, solutions)
    with Stitched(model, solutions) as candidate:
        candidate.put(dict.fromkeys(solutions.shapes, 1))
        with pytest.raises(ValueError, match="another model"):  # it is not the dense one now
            find_solutions(model, tmp_path, batches())


def test_a_file_of_another_database_or_layer_is_refused(model, tmp_path):
    other = copy.deepcopy(model)
    other.head.bias.data[0] += 1
    for folder, one in (("mine", model), ("other", other)):
        find_solutions(one, tmp_path / folder, batches())
    (tmp_path / "other" / "00002.safetensors").replace(tmp_path / "mine" / "00002.safetensors")
    with pytest.raises(ValueError, match="00002.safetensors holds no solutions of this database .* another model"):
        find_solutions(model, tmp_path / "mine", batches())
    path = tmp_path / "other" / "00001.safetensors"
    path.write_bytes((tmp_path / "other" / "00000.safetensors").read_bytes())  # of a layer of the same shape
    with pytest.raises(ValueError, match="00001.safetensors holds no solutions of this database"):
        find_solutions(other, tmp_path / "other", batches())


def _flip(path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def _without_level(path) -> None:
    save_file({name: value for name, value in load_file(path).items() if name != "3.mask"}, path)


def _wider(path) -> None:
    save_file(load_file(path) | {"3.mask": torch.zeros(24, 3, dtype=torch.uint8)}, path)


def _cut(path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def _empty(path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_flip, _without_level, _wider, _cut, _empty])
def test_damage_is_refused(model, tmp_path, damage):
    find_solutions(model, tmp_path, batches())
    damage(tmp_path / "00000.safetensors")
    with pytest.raises(ValueError, match="00000.safetensors holds no solutions of this database .* delete it"):
        find_solutions(model, tmp_path, batches())
    (tmp_path / "00000.safetensors").unlink()
    done: list[str] = []
    find_solutions(model, tmp_path, batches(), on_layer=done.append)
    assert done == ["blocks.0.left"]


def test_damage_after_opening_is_refused(model, tmp_path):
    solutions = find_solutions(model, tmp_path, batches())
    with (tmp_path / "00000.safetensors").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(ValueError, match="00000.safetensors is damaged"):
        solutions.weight("blocks.0.left", 1)


def test_a_damaged_manifest_is_refused(model, tmp_path):
    find_solutions(model, tmp_path, batches())
    path = tmp_path / "solutions.json"
    text = path.read_text()
    path.write_text(text[:-10])
    with pytest.raises(ValueError, match="solutions.json is damaged"):
        find_solutions(model, tmp_path, batches())
    path.write_text(json.dumps(json.loads(text) | {"damping": 0.5}))
    with pytest.raises(ValueError, match="another damping"):
        find_solutions(model, tmp_path, batches())


def test_files_are_small(model, tmp_path):
    solutions = find_solutions(model, tmp_path, batches())
    weights = sum(rows * columns for rows, columns in solutions.shapes.values())
    bits = 16 * sum(1 - sparsity for sparsity in SPARSITIES[1:]) + len(LEVELS)
    stored = sum(sum(value.nbytes for value in load_file(path).values()) for path in tmp_path.glob("*.safetensors"))
    assert stored <= weights * bits / 8 + 9 * 200
    assert solutions.nbytes == sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))


def test_weights_beyond_float16_are_refused(model, tmp_path):
    model.blocks[1].down.weight.data *= 1e6
    with pytest.raises(ValueError, match="blocks.1.down: solutions are stored as float16"):
        find_solutions(model, tmp_path, batches())


def test_masked_and_unfitting_layers_are_refused(model, tmp_path):
    with pytest.raises(ValueError, match="at least one batch"):
        find_solutions(model, tmp_path, [])
    with pytest.raises(ValueError, match="has one sparsity"):
        find_solutions(model, tmp_path, batches(), mask_structure="2:4")
    with pytest.raises(ValueError, match="cannot be cut"):
        find_solutions(model, tmp_path, batches(), mask_structure="7x1")
    with pytest.raises(ValueError, match="head lie outside"):
        find_solutions(model, tmp_path, batches(), ignore=[])
    prune(model, 0.5, targets=["blocks.0.left"])
    with pytest.raises(ValueError, match=r"blocks.0.left.weight is masked .* give the dense model"):
        find_solutions(model, tmp_path, batches())
    assert not list(tmp_path.iterdir())


def test_layers_in_the_other_orientation(tmp_path):
    from transformers.pytorch_utils import Conv1D

    class Turned(Model):
        def __init__(self) -> None:
            super().__init__()
            for block in self.blocks:
                block.down = Conv1D(16, 24)

    torch.manual_seed(0)
    model = Turned()
    solutions = find_solutions(model, tmp_path, batches())
    dense = model.blocks[0].down.weight.detach().clone()
    assert solutions.shapes["blocks.0.down"] == (16, 24)
    with Stitched(model, solutions) as candidate:
        candidate.put(dict.fromkeys(solutions.shapes, 4))
        assert model.blocks[0].down.weight.is_contiguous()
        assert torch.equal(model.blocks[0].down.weight.T, solutions.weight("blocks.0.down", 4))
        model(**batches(1)[0])
    assert torch.equal(model.blocks[0].down.weight, dense)


def test_matrices_of_split_modules(tmp_path):
    from sparsekit.pruning.split_model import split_modules

    class Attending(Block):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return super().forward(hidden + self.attention(hidden, hidden, hidden, need_weights=False)[0])

    torch.manual_seed(0)
    model = Model()
    model.blocks = nn.ModuleList(Attending() for _ in range(3))
    before = copy.deepcopy(model.state_dict())
    solutions = find_solutions(model, tmp_path, batches())
    assert "blocks.1.attention.k_proj" in solutions.shapes
    with split_modules(model), Stitched(model, solutions) as candidate:
        candidate.put(dict.fromkeys(solutions.shapes, 5))
        sparsity = (model.get_submodule("blocks.1.attention.k_proj").weight == 0).float().mean()
        assert sparsity == pytest.approx(SPARSITIES[5], abs=0.02)
        assert np.isfinite(model(**batches(1)[0]).detach().numpy()).all()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
