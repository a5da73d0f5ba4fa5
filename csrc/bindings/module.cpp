// sparsekit._C: arrays and raw addresses to views, one function each, no logic. The typed stub is sparsekit/_C.pyi.
#include <new>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "csr_tuple.h"
#include "decoder.h"
#include "encoder.h"
#include "formats/blocks.h"
#include "formats/check_packed.h"
#include "formats/dense_int4.h"
#include "formats/pack.h"
#include "formats/packed.h"
#include "operators/attention.h"
#include "operators/instruction_set.h"
#include "operators/layer_norm.h"
#include "operators/sparse_linear.h"
#include "sampling.h"
#include "threading/parallel.h"
#include "threading/pool.h"

using namespace sparsekit;

namespace {

using Address = std::uintptr_t;

/// Bytes aligned to a cache line, for the kernels.
Array<std::uint8_t> aligned_bytes(std::size_t size) {
  constexpr std::align_val_t alignment{64};
  auto* data = static_cast<std::uint8_t*>(::operator new(size, alignment));
  py::capsule owner(data, [](void* p) { ::operator delete(p, std::align_val_t{64}); });
  return Array<std::uint8_t>(static_cast<py::ssize_t>(size), data, owner);
}

const PackedHeader& header_of(const Array<std::uint8_t>& packed) {
  return packed_header(reinterpret_cast<const std::byte*>(packed.data()), static_cast<std::size_t>(packed.size()));
}

py::object scales_of(const CsrTuple& csr) { return py::cast(std::get<4>(csr)); }

void validate_csr(const CsrTuple& csr) { validate(view_of(csr)); }

py::tuple from_dense(const Array<float>& dense) {
  return to_tuple(csr_from_dense(dense.data(), dense.shape(0), dense.shape(1)), py::none(), dense.shape(0),
                  dense.shape(1));
}

Array<float> to_dense(const CsrTuple& arrays) {
  const CsrView csr = view_of(arrays);
  validate(csr);  // the caller owns the arrays and may have changed them
  Array<float> dense({csr.out_features, csr.in_features});
  csr_to_dense(csr, dense.mutable_data());
  return dense;
}

py::array to_float_values(const CsrTuple& arrays) {
  const CsrView csr = view_of(arrays);
  validate(csr);
  return to_array(float_values(csr), py::dtype::of<float>());
}

Array<std::uint8_t> pack(const CsrTuple& csr, const std::string& dtype, std::int64_t height,
                         const std::optional<Array<float>>& scales, const std::string& layout) {
  const Packing packing(view_of(csr), dtype_named(dtype), height, scales ? scales->data() : nullptr,
                        family_named(layout));
  auto packed = aligned_bytes(packing.bytes());
  packing.write(reinterpret_cast<std::byte*>(packed.mutable_data()));
  return packed;
}

py::tuple candidate_layouts(const CsrTuple& csr, const std::string& dtype, const std::string& target) {
  py::list names;
  for (const Family family : candidate_families(view_of(csr), dtype_named(dtype), target)) {
    names.append(family_name(family));
  }
  return py::tuple(names);
}

std::int64_t find_block_height(const CsrTuple& arrays) {
  const CsrView csr = view_of(arrays);
  validate(csr);
  return block_height(csr);
}

bool has_full_blocks(const CsrTuple& arrays, std::int64_t height) {
  const CsrView csr = view_of(arrays);
  validate(csr);
  return full_block_entries(csr, height, 0.0) == csr.values_size;
}

py::tuple fill_blocks(const CsrTuple& arrays, std::int64_t height) {
  const CsrView csr = view_of(arrays);
  validate(csr);
  return to_tuple(with_full_blocks(csr, height, full_block_entries(csr, height, 0.0)), scales_of(arrays),
                  csr.out_features, csr.in_features);
}

void check_packed_at(Address packed, std::size_t packed_bytes) {
  check_packed(reinterpret_cast<const std::byte*>(packed), packed_bytes);
}

py::tuple unpack(const Array<std::uint8_t>& packed) {
  const PackedHeader& header = header_of(packed);
  check_packed(reinterpret_cast<const std::byte*>(&header), header.total_bytes);
  const LayoutEntry& layout = layout_entry(header.layout);
  const PackedWeight weight = packed_view(header);
  py::object scales = py::none();
  if (layout.grouped()) {
    const std::vector<float> found = group_scales_of(weight);
    scales = Array<float>({header.out_features, groups_of(header.in_features)}, found.data());
  } else if (layout.scaled) {
    scales = Array<float>(header.out_features, weight.scales);
  }
  return to_tuple(layout.unpack(weight, header.nnz), scales, header.out_features, header.in_features);
}

py::tuple packed_info(const Array<std::uint8_t>& packed) {
  const PackedHeader& header = header_of(packed);
  const LayoutEntry& layout = layout_entry(header.layout);
  return py::make_tuple(header.out_features, header.in_features, header.nnz, dtype_entry(layout.dtype).name,
                        layout.height, family_name(layout.family));
}

LinearCall call_of(Address packed, std::size_t packed_bytes, Address input, std::int64_t input_features,
                   std::int64_t input_stride, std::int64_t tokens, Address output, std::int64_t output_features) {
  return {reinterpret_cast<const std::byte*>(packed),
          packed_bytes,
          reinterpret_cast<const float*>(input),
          input_features,
          input_stride,
          tokens,
          reinterpret_cast<float*>(output),
          output_features,
          nullptr,
          Activation::none};
}

void run_linear(Address packed, std::size_t packed_bytes, Address input, std::int64_t input_features,
                std::int64_t input_stride, std::int64_t tokens, Address output, std::int64_t output_features,
                Address bias, std::int32_t activation) {
  LinearCall call = call_of(packed, packed_bytes, input, input_features, input_stride, tokens, output, output_features);
  call.bias = reinterpret_cast<const float*>(bias);
  call.activation = static_cast<Activation>(activation);
  linear(call);
}

/// Packed weight and its size in bytes, output and its features, bias, activation function.
using JoinedPart = std::tuple<Address, std::size_t, Address, std::int64_t, Address, std::int32_t>;

void run_joined_linear(Address input, std::int64_t input_features, std::int64_t input_stride, std::int64_t tokens,
                       const std::vector<JoinedPart>& parts) {
  std::vector<LinearCall> calls;
  for (const auto& [packed, packed_bytes, output, output_features, bias, activation] : parts) {
    calls.push_back(
        call_of(packed, packed_bytes, input, input_features, input_stride, tokens, output, output_features));
    calls.back().bias = reinterpret_cast<const float*>(bias);
    calls.back().activation = static_cast<Activation>(activation);
  }
  joined_linear(calls);
}

void run_linear_input_gradient(Address packed, std::size_t packed_bytes, Address input, std::int64_t input_features,
                               std::int64_t input_stride, std::int64_t tokens, Address output,
                               std::int64_t output_features) {
  linear_input_gradient(
      call_of(packed, packed_bytes, input, input_features, input_stride, tokens, output, output_features));
}

void run_attention(Address query, const FourSizes& query_shape, const FourSizes& query_strides, Address key,
                   const FourSizes& key_shape, const FourSizes& key_strides, Address value,
                   const FourSizes& value_shape, const FourSizes& value_strides, Address output,
                   const FourSizes& output_shape, const FourSizes& output_strides, Address mask,
                   const FourSizes& mask_shape, const FourSizes& mask_strides, bool mask_of_bytes, bool causal,
                   float scale) {
  attention({{reinterpret_cast<const float*>(query), query_shape, query_strides},
             {reinterpret_cast<const float*>(key), key_shape, key_strides},
             {reinterpret_cast<const float*>(value), value_shape, value_strides},
             {reinterpret_cast<float*>(output), output_shape, output_strides},
             {reinterpret_cast<const void*>(mask), mask_shape, mask_strides},
             mask_of_bytes,
             causal,
             scale});
}

void run_add_layer_norm(Address input, Address added, Address output, std::int64_t rows, std::int64_t features,
                        Address weight, Address bias, float eps) {
  add_layer_norm({reinterpret_cast<const float*>(input), reinterpret_cast<const float*>(added),
                  reinterpret_cast<float*>(output), rows, features, reinterpret_cast<const float*>(weight),
                  reinterpret_cast<const float*>(bias), eps});
}

void use_parallel_at(Address parallel_for, Address thread_count) {
  use_parallel(reinterpret_cast<ParallelForFn>(parallel_for), reinterpret_cast<NumThreadsFn>(thread_count));
}

py::list kernels() {
  py::list rows;
  const KernelTable& table = current_kernels();
  for (int i = 0; i < table.size; ++i) {
    const Kernel& kernel = table.kernels[i];
    const std::string name = std::string(kernel.name) + "_" + layout_entry(kernel.layout).name;
    rows.append(
        py::make_tuple(name + "_" + std::to_string(kernel.tile), kernel.tile, kernel.min_tokens.of(table.vendor)));
  }
  return rows;
}

/// Floating-point operations done.
std::int64_t run_peak(std::int64_t rounds) {
  const KernelTable& table = current_kernels();
  volatile float result = table.peak(rounds);
  (void)result;
  return rounds * table.peak_flop;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  py::register_exception<KernelUnavailable>(m, "KernelUnavailableError", PyExc_RuntimeError);
  py::enum_<Activation>(m, "Activation")
      .value("none", Activation::none)
      .value("relu", Activation::relu)
      .value("gelu", Activation::gelu)
      .value("gelu_tanh", Activation::gelu_tanh)
      .value("silu", Activation::silu);
  m.attr("version") = SPARSEKIT_VERSION;
  m.attr("build_type") = SPARSEKIT_BUILD_TYPE;
  m.attr("compiler") = __VERSION__;

  m.def("available_isas", &available_isas);
  m.def("current_isa", &current_isa);
  m.def("use_isa", &use_isa, py::arg("name"));
  m.def("kernels", &kernels);
  m.def("packing_targets", &packing_targets);
  m.def("run_peak", &run_peak, py::call_guard<py::gil_scoped_release>(), py::arg("rounds"));

  m.def("num_threads", &num_threads);
  m.def("set_pool_threads", &set_pool_threads, py::arg("count"));
  m.def("use_parallel", &use_parallel_at, py::arg("parallel_for"), py::arg("thread_count"));
  m.def("uses_outside_threads", &uses_outside_threads);

  m.def("validate_csr", &validate_csr, py::arg("csr").noconvert());
  m.def("from_dense", &from_dense, py::arg("dense").noconvert());
  m.def("to_dense", &to_dense, py::arg("csr").noconvert());
  m.def("float_values", &to_float_values, py::arg("csr").noconvert());
  m.def("pack", &pack, py::arg("csr").noconvert(), py::arg("dtype"), py::arg("height"), py::arg("scales").noconvert(),
        py::arg("layout"));
  m.def("candidate_layouts", &candidate_layouts, py::arg("csr").noconvert(), py::arg("dtype"), py::arg("target"));
  m.def("block_height", &find_block_height, py::arg("csr").noconvert());
  m.def("has_full_blocks", &has_full_blocks, py::arg("csr").noconvert(), py::arg("height"));
  m.def("with_full_blocks", &fill_blocks, py::arg("csr").noconvert(), py::arg("height"));
  m.def("check_packed", &check_packed_at, py::call_guard<py::gil_scoped_release>(), py::arg("packed"),
        py::arg("packed_bytes"));
  m.def("unpack", &unpack, py::arg("packed").noconvert());
  m.def("packed_info", &packed_info, py::arg("packed").noconvert());

  m.def("linear", &run_linear, py::call_guard<py::gil_scoped_release>(), py::arg("packed"), py::arg("packed_bytes"),
        py::arg("input"), py::arg("input_features"), py::arg("input_stride"), py::arg("tokens"), py::arg("output"),
        py::arg("output_features"), py::arg("bias"), py::arg("activation"));
  m.def("joined_linear", &run_joined_linear, py::call_guard<py::gil_scoped_release>(), py::arg("input"),
        py::arg("input_features"), py::arg("input_stride"), py::arg("tokens"), py::arg("parts"));
  m.def("linear_input_gradient", &run_linear_input_gradient, py::call_guard<py::gil_scoped_release>(),
        py::arg("packed"), py::arg("packed_bytes"), py::arg("input"), py::arg("input_features"),
        py::arg("input_stride"), py::arg("tokens"), py::arg("output"), py::arg("output_features"));
  m.def("attention", &run_attention, py::call_guard<py::gil_scoped_release>(), py::arg("query"), py::arg("query_shape"),
        py::arg("query_strides"), py::arg("key"), py::arg("key_shape"), py::arg("key_strides"), py::arg("value"),
        py::arg("value_shape"), py::arg("value_strides"), py::arg("output"), py::arg("output_shape"),
        py::arg("output_strides"), py::arg("mask"), py::arg("mask_shape"), py::arg("mask_strides"),
        py::arg("mask_of_bytes"), py::arg("causal"), py::arg("scale"));
  m.def("add_layer_norm", &run_add_layer_norm, py::call_guard<py::gil_scoped_release>(), py::arg("input"),
        py::arg("added"), py::arg("output"), py::arg("rows"), py::arg("features"), py::arg("weight"), py::arg("bias"),
        py::arg("eps"));

  bind_decoder(m);
  bind_encoder(m);
  bind_sampling(m);
}
