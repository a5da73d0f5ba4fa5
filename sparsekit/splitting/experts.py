"""Mixtures of experts with separate linear layers for each expert, instead of parameters with the matrices of all."""

from __future__ import annotations

import functools
import inspect
from typing import Any, cast

import torch
from torch import nn
from torch.nn.utils import parametrize

from sparsekit.splitting.expert_layouts import LAYOUTS, Layout, layout_of, matrices_of
from sparsekit.splitting.split_module import Matrix, SplitModule, shape_of, stack


def _arguments(module: nn.Module) -> list[str]:
    forward: Any = parametrize.type_before_parametrizations(module).forward  # type: ignore[attr-defined]
    return list(inspect.signature(forward).parameters)[1:]


def _close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    if found.numel() != expected.numel():  # DBRX adds a dimension to the result of 2-D inputs
        return False
    finite = expected[expected.isfinite()]
    scale = float(finite.abs().max()) if finite.numel() else 1.0
    tolerance = 16 * torch.finfo(expected.dtype).eps
    return torch.allclose(
        found.view_as(expected).to(expected.dtype), expected, tolerance, tolerance * scale, equal_nan=True
    )


class _Experts(SplitModule):
    """Base class of all experts, however tokens are routed to them."""

    routes = True

    @functools.cached_property
    def layout(self) -> Layout:
        """The layout that the matrices came from."""
        names = {matrix.parameter for matrix in self.matrices}
        return next(layout for layout in LAYOUTS if names == {*layout.up, layout.down})

    def _layer(self, parameter: str, expert: int) -> nn.Module:
        layers: Any = self._modules[parameter.rpartition(".")[2]]
        return cast(nn.Module, layers[expert])

    def _expert(self, expert: int, x: torch.Tensor) -> torch.Tensor:
        """Output of one expert for its tokens, [tokens, hidden]."""
        layout = self.layout
        ups = [self._layer(name, expert)(x) for name in layout.up]
        hidden: torch.Tensor = self._layer(layout.down, expert)(self._activated(ups))
        norm = getattr(self, "post_expert_norm", None)
        return hidden if norm is None else norm(hidden)

    def _activated(self, ups: list[torch.Tensor]) -> torch.Tensor:
        """Combine gate and up; with the module's own code if it has some."""
        layout = self.layout
        gate = getattr(self.shell, "_apply_gate", None)
        if layout.up == ("gate_up_proj",) and gate is not None:
            return gate(ups[0])  # type: ignore[no-any-return]
        act = self.get_submodule(layout.activation) if "." in layout.activation else getattr(self, layout.activation)
        if layout.up == ("up_proj",):
            return act(ups[0])  # type: ignore[no-any-return]
        first, second = ups if len(ups) == 2 else ups[0].chunk(2, -1)
        return act(first) * second  # type: ignore[no-any-return]

    def _example(self) -> tuple[Any, ...]:
        """Example arguments to compare outputs with those of the original module."""
        raise NotImplementedError

    @torch.no_grad()
    def is_same_as(self, module: nn.Module) -> bool:
        """Whether both compute the same for a few tokens; modules on meta or with masks were checked before."""
        first: Any = next(iter(self.layers().values()))
        if first.weight.is_meta or any(parametrize.is_parametrized(part) for part in module.modules()):
            return True
        arguments = self._example()
        try:
            expected = module(*(one.clone() if isinstance(one, torch.Tensor) else one for one in arguments))
            return _close(self(*arguments), expected)
        except (AssertionError, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError):
            return False  # another contract

    def _tokens(self, count: int) -> torch.Tensor:
        layer: Any = self._layer(self.layout.up[0], 0)
        x = torch.randn(count, layer.weight.shape[1], generator=torch.Generator().manual_seed(0))
        return x.to(layer.weight.device, layer.weight.dtype)


class SplitExperts(_Experts):
    """Experts to which tokens are routed by index, with linear layers for each.

    A token routed to an index beyond the last expert is skipped, or returned unchanged if the original module has an
    `identity_expert`.
    """

    @classmethod
    def find(cls, module: nn.Module) -> list[Matrix]:
        """All matrices of all experts, if the module takes hidden states, expert indices and weights."""
        layout = layout_of(module)
        if layout is None or len(_arguments(module)) != 3:
            return []
        turned = layout.turned
        if turned is None:
            turned = (*layout.up, layout.down) if getattr(module, "is_transposed", False) else ()
        return matrices_of(module, layout, turned)

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Weighted sum of the experts' outputs for every token.

        Args:
            args: hidden states, [..., hidden]; expert indices and weights, [tokens, top_k].
            kwargs: the same, under the names that the original module uses.
        """
        named = [kwargs[name] for name in _arguments(self.shell)[len(args) :]] if kwargs else []
        hidden, index, weights = (*args, *named)
        tokens = hidden.reshape(-1, hidden.shape[-1])
        result = torch.zeros_like(tokens, dtype=torch.result_type(tokens, weights))
        if not index.numel():
            return torch.zeros_like(hidden)
        order = index.flatten().argsort(stable=True)  # groups tokens by expert
        experts, counts = index.flatten()[order].unique_consecutive(return_counts=True)
        token = order // index.shape[-1]
        parts = zip(experts.tolist(), tokens[token].split(counts.tolist()), strict=True)
        outputs = torch.cat([self._routed(expert, part) for expert, part in parts])
        result.index_add_(0, token, (outputs * weights.flatten()[order, None]).to(result.dtype))
        return result.to(hidden.dtype).view(hidden.shape)

    def _routed(self, expert: int, x: torch.Tensor) -> torch.Tensor:
        if expert < len(self._modules[self.layout.down.rpartition(".")[2]]):  # type: ignore[arg-type]
            return self._expert(expert, x)
        return x if hasattr(self, "identity_expert") else torch.zeros_like(x)

    def _example(self) -> tuple[Any, ...]:
        tokens = self._tokens(4)
        last = len(self._modules[self.layout.down.rpartition(".")[2]]) - 1  # type: ignore[arg-type]
        index = torch.tensor([[0, last], [last, 0], [0, last], [last // 2, last]], device=tokens.device)
        weights = torch.tensor([[0.75, 0.25], [0.5, 0.25], [1.0, 0.5], [0.25, 0.5]]).to(tokens)
        return tokens, index, weights


class SplitBatchedExperts(_Experts):
    """Experts that all get the same number of tokens, concatenated in expert order, as in Llama 4.

    Llama 4 zeroes the tokens that are routed to other experts; they are skipped, since their output is zero.
    """

    @classmethod
    def find(cls, module: nn.Module) -> list[Matrix]:
        """All matrices of all experts, if the module takes hidden states only."""
        layout = layout_of(module)
        if layout is not LAYOUTS[0] or len(_arguments(module)) != 1 or shape_of(module, "gate_up_proj_bias"):
            return []
        return matrices_of(module, layout, (*layout.up, layout.down))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """The experts' outputs, in the shape of the hidden states, [experts * tokens, hidden]."""
        x = hidden_states.reshape(len(self._modules["down_proj"]), -1, hidden_states.shape[-1])  # type: ignore[arg-type]
        result = torch.zeros_like(x)
        for expert, tokens in enumerate(x):
            routed = tokens.any(-1)
            result[expert, routed] = self._expert(expert, tokens[routed])
        return result.view(-1, x.shape[-1])

    def _example(self) -> tuple[Any, ...]:
        tokens = self._tokens(2 * len(self._modules["down_proj"]))  # type: ignore[arg-type]
        tokens[0] = 0.0
        return (tokens,)


class SplitParallelExperts(_Experts):
    """One matrix per expert, for tokens that are sorted by expert, as in JetMoe."""

    @classmethod
    def find(cls, module: nn.Module) -> list[Matrix]:
        """The experts' matrices, if the module takes inputs and the number of them for each expert."""
        shape = shape_of(module, "weight")
        if len(shape) != 3 or _arguments(module) != ["inputs", "expert_size"]:
            return []
        return stack("experts", "weight", shape[0])

    def forward(self, inputs: torch.Tensor, expert_size: list[int]) -> torch.Tensor:
        """The products, [tokens, out_features]."""
        parts = inputs.split(expert_size, dim=0)
        layers: Any = self._modules["experts"]
        return torch.cat([layer(part) for layer, part in zip(layers, parts, strict=True)])

    def _example(self) -> tuple[Any, ...]:
        layers: Any = self._modules["experts"]
        x = torch.randn(2 * len(layers), layers[0].in_features, generator=torch.Generator().manual_seed(0))
        return x.to(layers[0].weight), [2] * len(layers)
