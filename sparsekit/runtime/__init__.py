"""Run packed weights from numpy: instruction set, threads, operators, memory. Needs no torch."""

from sparsekit.runtime.attention import NO_MASK, PlacedMask, attention, attention_at
from sparsekit.runtime.decoder import CompiledDecoder, KeyValueCache, check_cache_dtype
from sparsekit.runtime.encoder import CompiledEncoder
from sparsekit.runtime.instruction_set import (
    KernelUnavailableError,
    available_isas,
    build,
    current_isa,
    kernels,
    packing_targets,
    run_peak,
    use_isa,
    version,
)
from sparsekit.runtime.layer_norm import add_layer_norm, add_layer_norm_at
from sparsekit.runtime.linear import (
    ACTIVATIONS,
    activation_code,
    joined_linear_at,
    linear,
    linear_at,
    linear_input_gradient_at,
)
from sparsekit.runtime.memory import keep_freed_memory, resident_bytes
from sparsekit.runtime.packed import Packed, PackedInfo, check_packed, packed_info
from sparsekit.runtime.sampling import checked_counter, checked_sampling, sample
from sparsekit.runtime.threads import (
    follow_torch_threads,
    limited_threads,
    num_threads,
    set_num_threads,
    uses_torch_threads,
)

__all__ = [
    "ACTIVATIONS",
    "NO_MASK",
    "CompiledDecoder",
    "CompiledEncoder",
    "KernelUnavailableError",
    "KeyValueCache",
    "Packed",
    "PackedInfo",
    "PlacedMask",
    "activation_code",
    "add_layer_norm",
    "add_layer_norm_at",
    "attention",
    "attention_at",
    "available_isas",
    "build",
    "check_cache_dtype",
    "check_packed",
    "checked_counter",
    "checked_sampling",
    "current_isa",
    "follow_torch_threads",
    "joined_linear_at",
    "keep_freed_memory",
    "kernels",
    "limited_threads",
    "linear",
    "linear_at",
    "linear_input_gradient_at",
    "num_threads",
    "packed_info",
    "packing_targets",
    "resident_bytes",
    "run_peak",
    "sample",
    "set_num_threads",
    "use_isa",
    "uses_torch_threads",
    "version",
]
