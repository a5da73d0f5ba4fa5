// A compiled model: one buffer, memory-mapped or in memory, with a whole model in the kernels' layouts.
//
//   [ CompiledHeader | TensorEntry, `tensors` times | tensors, each from a multiple of 64 bytes on, zeros between ]
//
// Little-endian, independent of the instruction set, without pointers and text. Entries are sorted by layer and role;
// tensors follow one another in their order and end with the file. docs/compiled-model.md is the specification.
//
// The file is untrusted: `CompiledFile` checks all of it before anything is computed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace sparsekit {

/// Role of a tensor, which together with `layer` identifies it. Values are part of the format.
enum class Role : std::uint32_t {
  word_embeddings = 1,
  position_embeddings = 2,
  type_embeddings = 3,
  embedding_norm_weight = 4,
  embedding_norm_bias = 5,
  embedding_projection = 6,
  embedding_projection_bias = 7,
  distance_biases = 8,
  final_norm_weight = 9,
  final_norm_bias = 10,
  rotary = 11,
  local_rotary = 12,
  windows = 13,
  distance_rows = 14,
  rotary_kinds = 15,
  query = 16,
  query_bias = 17,
  key = 18,
  key_bias = 19,
  value = 20,
  value_bias = 21,
  attention_output = 22,
  attention_output_bias = 23,
  attention_norm_weight = 24,
  attention_norm_bias = 25,
  up = 26,
  up_bias = 27,
  down = 28,
  down_bias = 29,
  output_norm_weight = 30,
  output_norm_bias = 31,
  gate = 32,
  gate_bias = 33,
  position_key = 34,
  position_query = 35,
  query_norm_weight = 36,
  key_norm_weight = 37,
  attention_post_norm_weight = 38,
  feed_forward_post_norm_weight = 39,
  projection_norm_weight = 48,
  projection_norm_bias = 49,
  head_dense = 64,
  head_dense_bias = 65,
  classifier = 66,
  classifier_bias = 67,
  head_norm_weight = 68,
  head_norm_bias = 69,
  head = 70,
  head_bias = 71,
};

/// How a tensor [rows, columns] is stored.
enum class TensorKind : std::uint32_t {
  floats = 1,       // float32, row by row
  packed = 2,       // a packed weight (formats/packed.h): rows are output features
  scaled_rows = 3,  // [rows] float32 scales, then int8 values row by row: value * scale of its row
};

/// `layer` of tensors outside the layers.
inline constexpr std::uint32_t kNoLayer = 0xFFFFFFFF;

struct TensorEntry {
  std::uint32_t layer;
  Role role;
  TensorKind kind;
  std::uint32_t crc32;  // of its bytes, as zlib's
  std::int64_t rows;
  std::int64_t columns;  // 1 for a vector
  std::uint64_t start;   // bytes from the start of the buffer
  std::uint64_t bytes;
};
static_assert(sizeof(TensorEntry) == 48);

/// Position of the layer norms in a transformer block.
enum class BlockOrder : std::int32_t {
  post_norm = 0,  // behind attention and the feed-forward half, over the residual too
  pre_norm = 1,   // before them
};

/// Sizes that tensors imply are not repeated here.
struct EncoderOptions {
  std::int32_t layers;
  std::int32_t head_dim;
  std::int32_t first_position;  // of a sequence's first token, in `position_embeddings`
  std::int32_t activation;      // of `up`: Activation
  float norm_eps;
  float attention_scale;
  std::int32_t pooling;          // Pooling
  std::int32_t normalize;        // 1: vectors have length 1
  std::int32_t block_order;      // BlockOrder
  std::int32_t task;             // Task: what the model gives besides hidden states
  std::int32_t head_activation;  // of `head_dense`: HeadActivation
};
static_assert(sizeof(EncoderOptions) == 44);

enum class NormKind : std::int32_t { layer = 0, root_mean_square = 1 };

/// Those of a decoder, as above.
struct DecoderOptions {
  std::int32_t layers;
  std::int32_t head_dim;
  std::int32_t activation;  // of `up`: Activation
  std::int32_t norm;        // NormKind
  std::int32_t parallel;    // 1: attention and the feed-forward half of a layer have the same input
  float norm_eps;
  float attention_scale;
  float attention_cap;  // scores become cap * tanh(score / cap); 0 for none
  float logit_cap;      // the same of logits
  float embedding_scale;
  std::uint32_t reserved;  // 0
};
static_assert(sizeof(DecoderOptions) == sizeof(EncoderOptions));

enum class ModelKind : std::uint32_t { encoder = 0, decoder = 1 };

inline constexpr std::uint64_t kCompiledMagic = 0x4C444F4D4B505301;  // "\x01SPKMODL"
inline constexpr std::uint32_t kCompiledVersion = 1;

struct CompiledHeader {
  std::uint64_t magic;
  std::uint32_t version;
  std::uint32_t tensors;
  std::uint64_t total_bytes;
  union {
    EncoderOptions encoder;
    DecoderOptions decoder;
  };
  std::uint32_t entries_crc32;  // of the entries
  ModelKind kind;
  std::uint32_t reserved[13];  // 0
};
static_assert(sizeof(CompiledHeader) == 128);

/// Views of a checked buffer, which must not change while they are used.
class CompiledFile {
 public:
  /// Throws std::invalid_argument for a buffer that is not at a multiple of 64 bytes, and for any contradiction.
  CompiledFile(const std::byte* data, std::size_t bytes);

  ModelKind kind() const { return header_->kind; }

  /// Throws std::invalid_argument for a model of another kind; so does the next one.
  const EncoderOptions& encoder() const;
  const DecoderOptions& decoder() const;
  std::span<const TensorEntry> entries() const { return entries_; }

  /// The entry of a tensor; null where the file has none.
  const TensorEntry* find(std::uint32_t layer, Role role) const;

  const std::byte* data(const TensorEntry& entry) const { return data_ + entry.start; }

 private:
  const std::byte* data_;
  const CompiledHeader* header_;
  std::span<const TensorEntry> entries_;
};

}  // namespace sparsekit
