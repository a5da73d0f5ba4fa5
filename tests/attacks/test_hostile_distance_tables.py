"""Compiled models with tables of distances that break a rule of docs/compiled-model.md are refused for it."""

from dataclasses import replace

import numpy as np
import pytest
from test_hostile_compiled_files import floats, refused, tensors_of
from tiny_encoders import encoder

from sparsekit.engine import compile_model
from sparsekit.engine.compiled_file import NO_LAYER, CompiledModel, Tensor


@pytest.fixture(scope="module")
def disentangled(tmp_path_factory):
    """Tables of 16 rows, for distances of 45 tokens."""
    folder = tmp_path_factory.mktemp("disentangled") / "model"
    encoder("deberta-v2", embedding_size=20).save_pretrained(folder)
    return compile_model(folder, pooling="mean").tobytes()


def row_numbers(place: int, number: float, count: int = 89) -> Tensor:
    rows = np.arange(count, dtype=np.float32) % 16
    rows[place] = number
    return Tensor.of_floats(NO_LAYER, "distance_rows", rows)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        *((row_numbers(0, number), "14 must be whole numbers from 0 to") for number in (-1, 0.5, np.nan, np.inf, 2e7)),
        (row_numbers(88, 16), "tensor 34 of layer 0 must have a row for each distance"),
        (row_numbers(40, 2**24), "tensor 34 of layer 0 must have a row for each distance"),
        (row_numbers(0, 1, count=88), "tensor 14 must be an odd number of floats"),
        (floats("distance_rows", 0), "tensor 14 must be an odd number of floats"),
        (floats("distance_rows", 89, 2), "tensor 14 must be an odd number of floats"),
        (floats("position_key", 15, 36, layer=2), "tensor 34 of layer 2 must have a row for each distance"),
        (floats("position_query", 0, 36, layer=2), "tensor 35 of layer 2 must have a row for each distance"),
        (floats("position_query", 16, 35, layer=1), "35 of layer 1 must be floats with as many columns as the layer"),
        (floats("position_query", 16 * 36, layer=1), "35 of layer 1 must be floats with as many columns as the layer"),
        (("position_key", "key", 0), "tensor 34 of layer 0 must be floats"),
        (floats("projection_norm_weight", 20), "tensor 48 must have 36 floats"),
        (floats("projection_norm_bias", 36, 2), "tensor 49 must have 36 floats"),
        (floats("embedding_norm_weight", 36), "tensor 4 must have 20 floats"),
    ],
)
def test_tables_of_distances(disentangled, tensor, message, tmp_path):
    options, tensors = tensors_of(disentangled)
    if isinstance(tensor, tuple):
        role, other, layer = tensor
        tensor = replace(next(one for one in tensors if (one.layer, one.role) == (layer, other)), role=role)
    others = [one for one in tensors if one.key != tensor.key]
    refused(CompiledModel(options, [*others, tensor]).in_memory().tobytes(), message, tmp_path)


@pytest.mark.parametrize(
    ("role", "message"),
    [
        ("distance_rows", "neither position embeddings nor rotary ones nor rows for distances"),
        ("projection_norm_weight", "tensor 4 is missing"),
        ("embedding_projection", "a norm of projected embeddings without their projection"),
    ],
)
def test_tensors_that_tables_of_distances_need(disentangled, role, message, tmp_path):
    options, tensors = tensors_of(disentangled)
    others = [one for one in tensors if one.role != role]
    refused(CompiledModel(options, others).in_memory().tobytes(), message, tmp_path)


def test_tables_without_rows_for_distances(tmp_path):
    encoder("bert").save_pretrained(tmp_path / "model")
    options, tensors = tensors_of(compile_model(tmp_path / "model").tobytes())
    table = floats("position_key", 16, 36, layer=0)
    data = CompiledModel(options, [*tensors, table]).in_memory().tobytes()
    refused(data, "tensor 34 of layer 0 without rows for distances", tmp_path)
