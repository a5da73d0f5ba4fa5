#include "quads.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>

namespace sparsekit {
namespace {

/// Calls `visit(block, row, i, count)` for the `count` nonzeros from `i` on that a row has in a block.
template <class Visit>
void for_each_run(const CsrView& csr, const Visit& visit) {
  for (std::int64_t row = 0; row < csr.out_features; ++row) {
    const std::int64_t last = csr.crow_indices[row + 1];
    for (std::int64_t i = csr.crow_indices[row], end = i; i < last; i = end) {
      const std::int64_t block = csr.col_indices[i] / kBlockWidth;
      while (end < last && csr.col_indices[end] < (block + 1) * kBlockWidth) ++end;
      visit(block, row, i, end - i);
    }
  }
}

/// Sorts the rows of one window of a block: `counts` are by row before and by position after.
void sort_window(std::uint8_t* counts, std::uint8_t* rows, std::uint8_t* positions, std::int64_t size) {
  std::uint8_t by_row[kWindow];
  std::copy_n(counts, size, by_row);
  std::iota(rows, rows + size, std::uint8_t{0});
  std::stable_sort(rows, rows + size, [&](std::uint8_t a, std::uint8_t b) { return by_row[a] > by_row[b]; });
  for (std::int64_t p = 0; p < size; ++p) {
    counts[p] = by_row[rows[p]];
    positions[rows[p]] = static_cast<std::uint8_t>(p);
  }
}

/// Where entries of one position lie, counted from the start of all values or columns.
struct Place {
  std::int64_t group;
  unsigned lane;

  Place(const std::uint32_t* starts, std::int64_t at)
      : group(std::int64_t{starts[at / kLanes]} * kGroup), lane(static_cast<unsigned>(at % kLanes)) {}

  std::int64_t entry(std::int64_t i) const { return group + i / kQuad * kGroup + i % kQuad; }
  std::int64_t value(std::int64_t i) const { return entry(i) + value_slot(lane); }
  std::int64_t column(std::int64_t i) const { return entry(i) + column_slot(lane); }
};

/// Calls `visit(place, row, i, first)` for every nonzero: the `i`-th of its row in its block, entry `first + i` of the
/// CSR.
template <class Visit>
void for_each_entry(const CsrView& csr, const PackPlan& plan, const Visit& visit) {
  const std::int64_t padded = padded_lanes(csr.out_features);
  for_each_run(csr, [&](std::int64_t block, std::int64_t row, std::int64_t first, std::int64_t count) {
    const std::uint8_t position = plan.positions[static_cast<std::size_t>(block * padded + row)];
    const Place place(plan.starts.data(), block * padded + window_of(row) + position);
    for (std::int64_t i = 0; i < count; ++i) visit(place, row, i, first);
  });
}

std::uint8_t column_in_block(const CsrView& csr, std::int64_t i) {
  return static_cast<std::uint8_t>(csr.col_indices[i] % kBlockWidth);
}

/// The weight as CSR; `value(place, row, i)` and `column(place, i)` read an entry.
template <class Value, class Column>
CsrArrays unpacked(const PackedWeight& weight, std::int64_t nnz, const Value& value, const Column& column) {
  CsrArrays csr = csr_with_capacity(weight.out_features, nnz);
  for (std::int64_t r = 0; r < weight.out_features; ++r) {
    for (std::int64_t b = 0; b < weight.blocks; ++b) {
      const std::int64_t at = weight.at(b, window_of(r) + weight.positions[weight.at(b, r)]);
      const Place place(weight.starts, at);
      for (std::int64_t i = 0; i < weight.counts[at]; ++i) {
        csr.col_indices.push_back(static_cast<std::int32_t>(b * kBlockWidth + column(place, i)));
        csr.values.push_back(value(place, r, i));
      }
    }
    csr.crow_indices.push_back(static_cast<std::int64_t>(csr.values.size()));
  }
  return csr;
}

/// A value in units of its row's scale, rounded to the nearest whole number.
std::int8_t code_of(float value, float scale) {
  return static_cast<std::int8_t>(std::clamp(std::nearbyint(value / scale), -127.0F, 127.0F));
}

}  // namespace

void plan_quads(const CsrView& csr, PackPlan& plan) {
  // Every group holds a nonzero, so this bounds the groups too.
  if (csr.values_size > std::numeric_limits<std::uint32_t>::max()) {
    throw std::invalid_argument("a packed weight holds fewer than 2^32 nonzeros, got " +
                                std::to_string(csr.values_size));
  }
  const std::int64_t padded = padded_lanes(csr.out_features);
  const std::int64_t blocks = block_count(csr.in_features);
  for (auto* array : {&plan.counts, &plan.rows, &plan.positions})
    array->resize(static_cast<std::size_t>(blocks * padded));
  for_each_run(csr, [&](std::int64_t block, std::int64_t row, std::int64_t, std::int64_t count) {
    plan.counts[static_cast<std::size_t>(block * padded + row)] = static_cast<std::uint8_t>(count);
  });
  plan.starts.assign(1, 0);
  for (std::int64_t first = 0; first < blocks * padded; first += kLanes) {
    const std::int64_t row = first % padded;
    if (row % kWindow == 0) {
      sort_window(plan.counts.data() + first, plan.rows.data() + first, plan.positions.data() + first,
                  std::min(kWindow, padded - row));
    }
    const std::uint32_t most = plan.counts[static_cast<std::size_t>(first)];
    plan.starts.push_back(plan.starts.back() + (most + kQuad - 1) / kQuad);
  }
}

/// A sum of products of codes and quantised inputs, at most 127 * 255 each, stays in 32 bits up to this many.
constexpr std::int64_t kMostCodes = std::numeric_limits<std::int32_t>::max() / (127 * 255);

void plan_quads_s8(const CsrView& csr, PackPlan& plan) {
  plan_quads(csr, plan);
  for (std::int64_t r = 0; r < csr.out_features; ++r) {
    const std::int64_t first = csr.crow_indices[r];
    const std::int64_t last = csr.crow_indices[r + 1];
    const float scale = plan.scales[static_cast<std::size_t>(r)];
    const std::string where = " in row " + std::to_string(r);
    if (last - first > kMostCodes) {
      throw std::invalid_argument("int8 values allow " + std::to_string(kMostCodes) + " nonzeros a row, got " +
                                  std::to_string(last - first) + where);
    }
    const float* wrong = std::find_if(csr.values + first, csr.values + last, [](float v) { return !std::isfinite(v); });
    if (wrong != csr.values + last) {
      throw std::invalid_argument("int8 values must be finite, got " + std::to_string(*wrong) + where);
    }
    if (!(scale > 0.0F && std::isfinite(scale))) {
      throw std::invalid_argument("scales must be positive and finite, got " + std::to_string(scale) + where);
    }
    std::int32_t total = 0;
    for (std::int64_t i = first; i < last; ++i) total += code_of(csr.values[i], scale);
    plan.totals.push_back(total);
  }
}

void quads_fill(const CsrView& csr, const PackPlan& plan, std::byte* values, std::uint8_t* columns) {
  auto* floats = reinterpret_cast<float*>(values);
  for_each_entry(csr, plan, [&](const Place& place, std::int64_t, std::int64_t i, std::int64_t first) {
    floats[place.value(i)] = csr.values[first + i];
    columns[place.column(i)] = column_in_block(csr, first + i);
  });
}

void quads_s8_fill(const CsrView& csr, const PackPlan& plan, std::byte* values, std::uint8_t* columns) {
  auto* codes = reinterpret_cast<std::int8_t*>(values);
  for_each_entry(csr, plan, [&](const Place& place, std::int64_t row, std::int64_t i, std::int64_t first) {
    codes[place.value(i)] = code_of(csr.values[first + i], plan.scales[static_cast<std::size_t>(row)]);
    columns[place.value(i)] = column_in_block(csr, first + i);
  });
}

CsrArrays quads_unpack(const PackedWeight& weight, std::int64_t nnz) {
  return unpacked(
      weight, nnz, [&](const Place& place, std::int64_t, std::int64_t i) { return weight.values[place.value(i)]; },
      [&](const Place& place, std::int64_t i) { return weight.columns[place.column(i)]; });
}

CsrArrays quads_s8_unpack(const PackedWeight& weight, std::int64_t nnz) {
  return unpacked(
      weight, nnz,
      [&](const Place& place, std::int64_t row, std::int64_t i) {
        return weight.scales[row] * static_cast<float>(weight.codes[place.value(i)]);
      },
      [&](const Place& place, std::int64_t i) { return weight.columns[place.value(i)]; });
}

std::int64_t quads_work_before(const PackedWeight& weight, std::int64_t row) {
  std::int64_t groups = 0;
  for (std::int64_t b = 0; b < weight.blocks; ++b) {
    const std::uint32_t* start = weight.starts + b * weight.tiles();
    groups += start[row / kLanes] - start[0];
  }
  return groups * kGroup;
}

}  // namespace sparsekit
