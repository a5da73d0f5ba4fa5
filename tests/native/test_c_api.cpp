// The C interface: same results as the encoder, and errors with messages. With a path, writes a small compiled model
// there, for examples/c.
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <thread>

#include "check.h"
#include "compiled_model.h"
#include "include/sparsekit.h"
#include "model/encoder.h"

using namespace sparsekit;

namespace {

constexpr std::int64_t kOffsets[] = {0, 1, 4};
constexpr std::int32_t kIds[] = {0, 3, 1, 2};

struct Text {
  char text[160] = "";
  bool has(const std::string& part) const { return std::string(text).find(part) != std::string::npos; }
};

void write(const std::string& path, const AlignedBytes& file) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(file.data.get()), static_cast<std::streamsize>(file.size));
}

void computes(const sparsekit_model* model, const AlignedBytes& file) {
  const Encoder encoder(CompiledFile(file.data.get(), file.size));
  const sparsekit_description described = sparsekit_describe(model);
  CHECK(described.features == kFeatures && described.vocabulary == kVocabulary && described.types == 2);
  CHECK(described.outputs == kFeatures && described.task == SPARSEKIT_EMBEDDING);
  CHECK(described.max_tokens == encoder.max_tokens());
  std::vector<float> expected(4 * kFeatures);
  std::vector<float> found(4 * kFeatures);
  Text error;
  encoder.run({kIds, nullptr, {kOffsets, 2}}, expected.data());
  CHECK(sparsekit_run(model, kIds, nullptr, kOffsets, 2, found.data(), error.text, sizeof error.text) == SPARSEKIT_OK);
  CHECK(same_bits(found, expected));
  encoder.encode({kIds, nullptr, {kOffsets, 2}}, expected.data());
  CHECK(sparsekit_encode(model, kIds, nullptr, kOffsets, 2, found.data(), nullptr, 0) == SPARSEKIT_OK);
  CHECK(same_bits(found, expected));
}

/// `count` sequences of 1, 2, ... tokens as vectors; none where that fails.
std::vector<float> vectors_of(const sparsekit_model* model, std::int64_t count) {
  std::vector<std::int64_t> offsets{0};
  for (std::int64_t i = 1; i <= count; ++i) offsets.push_back(offsets.back() + i);
  std::vector<std::int32_t> ids;
  for (std::int64_t t = 0; t < offsets.back(); ++t) ids.push_back(static_cast<std::int32_t>(t * count % kVocabulary));
  std::vector<float> vectors(static_cast<std::size_t>(count * kFeatures));
  const sparsekit_status status =
      sparsekit_encode(model, ids.data(), nullptr, offsets.data(), count, vectors.data(), nullptr, 0);
  if (status != SPARSEKIT_OK) vectors.clear();
  return vectors;
}

/// Callers at once, with other sequences each: the answers of one after the other.
void serves_threads(const sparsekit_model* model) {
  constexpr std::int64_t kCallers = 6;
  std::vector<std::vector<float>> expected;
  for (std::int64_t i = 1; i <= kCallers; ++i) {
    expected.push_back(vectors_of(model, 3 * i));
    CHECK(!expected.back().empty());
  }
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (std::int64_t i = 1; i <= kCallers; ++i) {
    callers.emplace_back([&, i] {
      for (int round = 0; round < 20; ++round) {
        wrong += same_bits(vectors_of(model, 3 * i), expected[static_cast<std::size_t>(i - 1)]) ? 0 : 1;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(wrong.load() == 0);
}

void refuses(const sparsekit_model* model, const std::string& path) {
  Text error;
  std::vector<float> output(4 * kFeatures);
  const std::int32_t wrong[] = {0, 3, 1, 50};
  CHECK(sparsekit_run(model, wrong, nullptr, kOffsets, 2, output.data(), error.text, sizeof error.text) ==
        SPARSEKIT_INVALID);
  CHECK(error.has("ids must be from 0 to 49, got 50"));
  CHECK(sparsekit_run(model, kIds, nullptr, nullptr, 2, output.data(), error.text, sizeof error.text) ==
        SPARSEKIT_INVALID);
  CHECK(error.has("offsets must not be NULL"));
  CHECK(sparsekit_run(model, wrong, nullptr, kOffsets, 2, output.data(), error.text, 4) == SPARSEKIT_INVALID);
  CHECK(std::string(error.text) == "ids");
  CHECK(sparsekit_set_threads(0, error.text, sizeof error.text) == SPARSEKIT_INVALID);
  CHECK(sparsekit_open((path + ".not").c_str(), error.text, sizeof error.text) == nullptr);
  CHECK(error.has("No such file"));
  CHECK(sparsekit_open(nullptr, error.text, sizeof error.text) == nullptr && error.has("path must not be NULL"));
  std::ofstream(path + ".short") << "not a model";
  CHECK(sparsekit_open((path + ".short").c_str(), error.text, sizeof error.text) == nullptr);
  CHECK(error.has("at least 128 bytes, got 11"));
  std::filesystem::remove(path + ".short");
  sparsekit_close(nullptr);
}

}  // namespace

int main(int count, char** arguments) {
  const AlignedBytes file = compiled(small_encoder(Layout::sell_f32), small_options());
  const std::string path =
      count > 1
          ? arguments[1]
          : (std::filesystem::temp_directory_path() / ("sparsekit-" + std::to_string(std::random_device{}()))).string();
  write(path, file);
  Text error;
  sparsekit_model* mapped = sparsekit_open(path.c_str(), error.text, sizeof error.text);
  CHECK(mapped != nullptr);
  computes(mapped, file);
  serves_threads(mapped);
  refuses(mapped, path);
  sparsekit_close(mapped);
  sparsekit_model* held = sparsekit_open_memory(file.data.get(), file.size, error.text, sizeof error.text);
  computes(held, file);
  sparsekit_close(held);
  CHECK(sparsekit_set_threads(2, nullptr, 0) == SPARSEKIT_OK && std::string(sparsekit_version()) == "0");
  if (count == 1) std::filesystem::remove(path);
  return check::result();
}
