// CSR: dense and back, and every way in which arrays from outside can be malformed.
#include <cmath>
#include <limits>

#include "check.h"
#include "layer.h"

using namespace sparsekit;

namespace {

constexpr std::int64_t kLargest = std::numeric_limits<std::int64_t>::max();

void check_round_trip(const Layer& layer) {
  const CsrView csr = layer.view();
  validate(csr);
  CHECK(csr.crow_size == layer.out_features + 1);
  std::vector<float> dense(layer.dense.size(), 7.0F);
  csr_to_dense(csr, dense.data());
  CHECK_CASE(dense == layer.dense, std::to_string(layer.out_features) + " x " + std::to_string(layer.in_features));
}

void round_trips() {
  for (const std::int64_t out : {0, 1, 2, 3, 17}) {
    for (const std::int64_t in : {0, 1, 5, 33}) {
      for (const double sparsity : {0.0, 0.5, 0.9, 1.0}) check_round_trip(random_layer(out, in, sparsity));
    }
  }
}

void known_arrays() {
  const Layer layer = layer_from_dense({0, -2, 0, 0, 0, 0, 1, 2, -3}, 3, 3);
  CHECK((layer.csr.crow_indices == std::vector<std::int64_t>{0, 1, 1, 4}));
  CHECK((layer.csr.col_indices == std::vector<std::int32_t>{1, 0, 1, 2}));
  CHECK((layer.csr.values == std::vector<float>{-2, 1, 2, -3}));
}

void special_values() {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  const float least = std::numeric_limits<float>::denorm_min();
  const Layer layer = layer_from_dense({nan, -0.0F, -infinity, 0.0F, least}, 1, 5);
  CHECK((layer.csr.col_indices == std::vector<std::int32_t>{0, 2, 4}));
  float dense[5];
  csr_to_dense(layer.view(), dense);
  CHECK(std::isnan(dense[0]) && dense[2] == -infinity && dense[4] == least);
  CHECK(dense[1] == 0.0F && !std::signbit(dense[1]));
}

/// A well-formed matrix [[1, 0, 2], [0, 3, 0]] in arrays that a test spoils.
struct Arrays {
  std::vector<std::int64_t> crow{0, 2, 3};
  std::vector<std::int32_t> col{0, 2, 1};
  std::vector<float> values{1, 2, 3};

  CsrView view(std::int64_t out_features = 2, std::int64_t in_features = 3) const {
    return {
        crow.data(),   static_cast<std::int64_t>(crow.size()),   col.data(),   static_cast<std::int64_t>(col.size()),
        values.data(), static_cast<std::int64_t>(values.size()), out_features, in_features};
  }
};

void accepts() {
  validate(Arrays{}.view());
  validate(Arrays{{0}, {}, {}}.view(0, 0));
  validate(Arrays{{0}, {}, {}}.view(0, 5));
  validate(Arrays{{0, 0, 0}, {}, {}}.view(2, 0));
  validate(Arrays{{0, 0}, {}, {}}.view(1, std::numeric_limits<std::int32_t>::max()));
}

void refuses_sizes() {
  const Arrays good;
  CHECK_THROWS(validate(good.view(-1, 3)), "must not be negative, got -1 and 3");
  CHECK_THROWS(validate(good.view(2, -3)), "must not be negative, got 2 and -3");
  CHECK_THROWS(validate(good.view(2, std::int64_t{1} << 31)), "in_features must fit in 32 bits, got 2147483648");
  CHECK_THROWS(validate(good.view(kLargest / 4 + 1, 4)), "must fit in 63 bits, got 2305843009213693952 * 4");
  CHECK_THROWS(csr_from_dense(nullptr, -1, 1), "must not be negative");
  CHECK_THROWS(csr_from_dense(nullptr, kLargest / 2 + 1, 2), "must fit in 63 bits");
  CHECK(checked_size(kLargest / 4, 4) == kLargest / 4 * 4);
}

void refuses_lengths() {
  const Arrays good;
  CHECK_THROWS(validate(good.view(3, 3)), "crow_indices must have out_features + 1 = 4 entries, got 3");
  CHECK_THROWS(validate(good.view(1, 3)), "crow_indices must have out_features + 1 = 2 entries, got 3");
  CHECK_THROWS(validate(Arrays{{}, {}, {}}.view(0, 3)), "out_features + 1 = 1 entries, got 0");
  CHECK_THROWS(validate(Arrays{{0, 2, 3}, {0, 2}, {1, 2, 3}}.view()), "one entry per nonzero, got 2 and 3");
  CHECK_THROWS(validate(Arrays{{0, 2, 3}, {0, 2, 1}, {1, 2}}.view()), "one entry per nonzero, got 3 and 2");
}

/// Nothing may be read at a column position before all of `crow_indices` is known to be in order.
void refuses_rows() {
  const auto with_crow = [](std::vector<std::int64_t> crow) { return Arrays{std::move(crow), {0, 2, 1}, {1, 2, 3}}; };
  CHECK_THROWS(validate(with_crow({1, 2, 3}).view()), "crow_indices must start at 0, got 1");
  CHECK_THROWS(validate(with_crow({-1, 2, 3}).view()), "crow_indices must start at 0, got -1");
  CHECK_THROWS(validate(with_crow({0, 4, 3}).view()), "crow_indices must never fall, got 4 then 3 at row 1");
  CHECK_THROWS(validate(with_crow({0, -1, 3}).view()), "crow_indices must never fall, got 0 then -1 at row 0");
  CHECK_THROWS(validate(with_crow({0, 2, 2}).view()), "crow_indices must end at nnz = 3, got 2");
  CHECK_THROWS(validate(with_crow({0, 2, kLargest}).view()), "crow_indices must end at nnz = 3, got 92");
}

void refuses_columns() {
  const auto with_col = [](std::vector<std::int32_t> col) { return Arrays{{0, 2, 3}, std::move(col), {1, 2, 3}}; };
  const std::string range = "col_indices must be in [0, in_features) = [0, 3), got ";
  CHECK_THROWS(validate(with_col({-1, 2, 1}).view()), range + "-1 in row 0");
  CHECK_THROWS(validate(with_col({0, 2, 3}).view()), range + "3 in row 1");
  CHECK_THROWS(validate(with_col({0, std::numeric_limits<std::int32_t>::min(), 1}).view()), range + "-2147483648");
  CHECK_THROWS(validate(with_col({2, 0, 1}).view()), "rise strictly within a row, got 2 then 0 in row 0");
  CHECK_THROWS(validate(with_col({2, 2, 1}).view()), "rise strictly within a row, got 2 then 2 in row 0");
}

/// Last, because the undefined-behavior sanitizer ends the test where the sum overflows.
void refuses_most_rows() {
  CHECK_THROWS(validate(Arrays{}.view(kLargest, 0)), "out_features");
  CHECK_THROWS(validate(Arrays{}.view(kLargest, 1)), "out_features");
}

}  // namespace

int main() {
  round_trips();
  known_arrays();
  special_values();
  accepts();
  refuses_sizes();
  refuses_lengths();
  refuses_rows();
  refuses_columns();
  refuses_most_rows();
  return check::result();
}
