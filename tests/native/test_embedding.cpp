// Embedding lookup from tables of every kind: the exact values, times the row's scale in int8, wherever rows lie in
// panels and features in quads; ids and layouts that must be refused.
#include "check.h"
#include "layer.h"
#include "operators/embedding.h"

using namespace sparsekit;

namespace {

constexpr double kEps = std::numeric_limits<float>::epsilon();

/// Every row once, out of order, and the last one again.
std::vector<std::int32_t> all_ids(std::int64_t rows) {
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < rows; ++i) ids.push_back(static_cast<std::int32_t>((i * 7 + 3) % rows));
  ids.push_back(static_cast<std::int32_t>(rows - 1));
  return ids;
}

/// What a lookup gives, and what it gives added to 1: compilers may fuse the product with the scale and the sum.
void check_table(const EmbeddingTable& table, const std::vector<float>& dense, const std::string& name) {
  const std::vector<std::int32_t> ids = all_ids(table.rows);
  const auto count = static_cast<std::int64_t>(ids.size());
  std::vector<float> expected;
  for (const std::int32_t id : ids) {
    const auto row = dense.begin() + id * table.features;
    expected.insert(expected.end(), row, row + table.features);
  }
  std::vector<float> found(expected.size(), 7.0F);
  lookup_embeddings(table, ids.data(), count, found.data());
  CHECK_CASE(same_bits(found, expected), name);
  found.assign(expected.size(), 1.0F);
  add_embeddings(table, ids.data(), count, found.data());
  const auto close = [](float sum, float value) {
    return std::fabs(double{sum} - 1.0 - double{value}) <= 2 * kEps * (1.0 + std::fabs(double{value}));
  };
  CHECK_CASE(std::equal(found.begin(), found.end(), expected.begin(), close), name + ", added");
}

void packed_tables() {
  for (const std::int64_t rows : {1, 2, 15, 16, 17, 99}) {
    for (const std::int64_t features : {1, 3, 4, 5, 64, 130}) {
      const Layer layer = random_layer(rows, features, 0.1);
      for (const Layout layout : {Layout::dense_f32, Layout::dense_bf16, Layout::dense_fp16, Layout::dense_s8}) {
        const Bytes weight = packed(layer.view(), layout);
        std::vector<float> dense(static_cast<std::size_t>(rows * features));
        csr_to_dense(held(layer, weight).view(), dense.data());
        const EmbeddingTable table = packed_table(weight.data(), weight.size());
        CHECK(table.rows == rows && table.features == features);
        check_table(
            table, dense,
            std::string(layout_entry(layout).name) + ", " + std::to_string(rows) + " x " + std::to_string(features));
      }
    }
  }
}

void plain_tables() {
  const std::vector<float> floats = random_floats(9 * 5, 1);
  EmbeddingTable table;
  table.floats = floats.data();
  table.rows = 9;
  table.features = 5;
  check_table(table, floats, "floats");
  const std::vector<float> scales = random_floats(9, 2);
  std::vector<std::int8_t> bytes;
  std::vector<float> scaled;
  for (std::size_t i = 0; i < floats.size(); ++i) {
    bytes.push_back(static_cast<std::int8_t>(floats[i] * 127.0F));
    scaled.push_back(static_cast<float>(bytes.back()) * scales[i / 5]);
  }
  table.floats = nullptr;
  table.bytes = bytes.data();
  table.scales = scales.data();
  check_table(table, scaled, "bytes");
}

void refuses() {
  const Layer layer = random_layer(20, 8, 0.5);
  const Bytes sell = packed(layer.view());
  CHECK_THROWS(packed_table(sell.data(), sell.size()), "must be packed in a layout dense_*, got sell_f32");
  const Bytes dense = packed(layer.view(), Layout::dense_f32);
  CHECK_THROWS(packed_table(dense.data(), dense.size() - 64), "");
  const EmbeddingTable table = packed_table(dense.data(), dense.size());
  for (const std::int32_t id : {-1, 20}) {
    CHECK_THROWS(check_ids(table, &id, 1, "ids"), "ids must be from 0 to 19, got " + std::to_string(id) + " at 0");
  }
}

}  // namespace

int main() {
  packed_tables();
  plain_tables();
  refuses();
  return check::result();
}
