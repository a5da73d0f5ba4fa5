// sequence_attention() against attention() of each sequence alone, on every instruction set, with one thread and with
// several.
#include "check.h"
#include "layer.h"
#include "operators/attention.h"
#include "operators/instruction_set.h"
#include "operators/sequence_attention.h"
#include "threading/pool.h"

using namespace sparsekit;

namespace {

constexpr std::int64_t kHeads = 3;

struct Problem {
  std::int64_t head_dim;
  std::int64_t value_dim;
  std::vector<std::int64_t> offsets;
  std::vector<float> query;
  std::vector<float> key;
  std::vector<float> value;

  Problem(std::int64_t keys, std::int64_t values, std::vector<std::int64_t> starts)
      : head_dim(keys),
        value_dim(values),
        offsets(std::move(starts)),
        query(random_floats(offsets.back() * kHeads * keys, 1)),
        key(random_floats(offsets.back() * kHeads * keys, 2)),
        value(random_floats(offsets.back() * kHeads * values, 3)) {}

  std::vector<float> run() const {
    std::vector<float> output(value.size(), 7.0F);
    const auto count = static_cast<std::int64_t>(offsets.size()) - 1;
    sequence_attention({query.data(),
                        key.data(),
                        value.data(),
                        output.data(),
                        kHeads,
                        head_dim,
                        value_dim,
                        {offsets.data(), count},
                        0.3F});
    return output;
  }

  template <class Entry>
  Heads<Entry> heads(Entry* rows, std::size_t sequence, std::int64_t features) const {
    const std::int64_t tokens = offsets[sequence + 1] - offsets[sequence];
    Entry* first = rows + offsets[sequence] * kHeads * features;
    return {first, {1, kHeads, tokens, features}, {0, features, kHeads * features, 1}};
  }

  std::vector<float> one_by_one() const {
    std::vector<float> output(value.size(), 7.0F);
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
      AttentionCall call{};
      call.query = heads(query.data(), i, head_dim);
      call.key = heads(key.data(), i, head_dim);
      call.value = heads(value.data(), i, value_dim);
      call.output = heads(output.data(), i, value_dim);
      call.scale = 0.3F;
      attention(call);
    }
    return output;
  }
};

void check_problem(const Problem& problem) {
  set_pool_threads(1);
  const std::vector<float> expected = problem.one_by_one();
  CHECK(same_bits(problem.run(), expected));
  set_pool_threads(3);
  CHECK(same_bits(problem.run(), expected));
}

}  // namespace

int main() {
  for (const std::string& isa : available_isas()) {
    use_isa(isa);
    check_problem({8, 5, {0, 1, 1, 20, 27, 60}});
    check_problem({32, 32, {0, 200, 201, 330}});
    check_problem({64, 64, {0, 290}});
    check_problem({16, 16, {0, 0}});
    check_problem({16, 16, {0}});
  }
  return check::result();
}
