// Products of packed weights with one batch of tokens, cut into tiles of tokens and ranges of output features.
#pragma once

#include <vector>

#include "../formats/packed.h"
#include "../kernels/table.h"

namespace sparsekit {

enum class Direction { forward, transposed };

struct Product {
  PackedWeight weight;
  Layout layout;
  std::int64_t entries;  // columns, with padding
  Direction direction;
  Input input;
  Output output;

  bool forward() const { return direction == Direction::forward; }
  std::int64_t inputs() const { return forward() ? weight.in_features : weight.out_features; }
  std::int64_t outputs() const { return forward() ? weight.out_features : weight.in_features; }
};

/// At least one; all have the same input, layout and direction.
using Products = std::vector<Product>;

/// Runs the products with kernels of `table` on the threads of threading/parallel.h. The input is packed once for all.
void run(const Products& products, const KernelTable& table);

}  // namespace sparsekit
