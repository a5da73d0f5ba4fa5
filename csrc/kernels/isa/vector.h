// The interface of an instruction set, isa/<isa>.h, as static assertions: its vectors and their operations. A vector's
// elements are lanes; `width` is their number.
#pragma once

#include <cstdint>

namespace {

template <class A, class B>
inline constexpr bool kSame = false;
template <class A>
inline constexpr bool kSame<A, A> = true;
template <class A, class B>
concept Same = kSame<A, B>;

/// A vector of floats that SpMM accumulates in.
template <class V>
concept Accumulator = requires(V v, float* p, const sparsekit::BFloat16* bf16, const sparsekit::Float16* fp16) {
  requires V::width > 0;
  { V::load(p) } -> Same<V>;
  { V::zero() } -> Same<V>;
  { V::broadcast(*p) } -> Same<V>;
  { V::broadcast(p) } -> Same<V>;
  { V::broadcast(bf16) } -> Same<V>;
  { V::broadcast(fp16) } -> Same<V>;
  { v + v } -> Same<V>;
  { fma(v, v, v) } -> Same<V>;  // v * v + v
  v.store(p);
};

/// A vector of floats from numbers as caches of keys and values store them.
template <class V>
concept LoadsStored = requires(const sparsekit::BFloat16* bf16, const std::int8_t* int8) {
  { V::load(bf16) } -> Same<V>;
  { V::load(int8) } -> Same<V>;
};

/// `min` and `max` with a float pass NaN on; `load_masked` and `store_masked` touch only the first `count` floats.
template <class V>
concept FloatVector = Accumulator<V> && requires(V v, V (&square)[V::width], float* p, std::int64_t count) {
  { V::load_masked(p, count) } -> Same<V>;
  v.store_masked(p, count);
  { v - v } -> Same<V>;
  { v * v } -> Same<V>;
  { v / v } -> Same<V>;
  { min(v, *p) } -> Same<V>;
  { max(v, *p) } -> Same<V>;
  { min(v, v) } -> Same<V>;
  { max(v, v) } -> Same<V>;
  { low_bits_to_exponent(v) } -> Same<V>;
  { reduce_min(v) } -> Same<float>;
  { reduce_max(v) } -> Same<float>;
  { has_nan(v) } -> Same<bool>;
  transpose(square);
};

/// Values as they are stored, to floats and into accumulators.
template <class Value, class V>
concept Widens = requires(const Value* p, V (&four)[4]) {
  { widen(*p) } -> Same<float>;
  V::broadcast_four(p, four);
  V::broadcast_adjacent(p, four);
};

/// As many 32-bit integers as `V` has floats, and their way from floats (inputs) and to them (outputs).
template <class I, class V>
concept IntegerVector =
    requires(I v, I (&square)[V::width], V x, const V (&four)[4], std::int32_t* p, std::uint8_t* u8) {
      { I::zero() } -> Same<I>;
      { I::load(p) } -> Same<I>;
      { I::load_masked(p, std::int64_t{}) } -> Same<I>;
      v.store(p);
      transpose(square);
      { without_zero_point(v, v, *p) } -> Same<V>;
      store_bytes(x, *p, u8);
      store_bytes_of_four(four, *p, u8);
    };

static_assert(FloatVector<Vec>);
static_assert(LoadsStored<Vec>);
static_assert(Accumulator<Vec8>);
static_assert(Vec8::width <= 8, "a tile of eight tokens has whole vectors");
static_assert(Widens<float, Vec> && Widens<sparsekit::BFloat16, Vec> && Widens<sparsekit::Float16, Vec>);
static_assert(Widens<float, Vec8> && Widens<sparsekit::BFloat16, Vec8> && Widens<sparsekit::Float16, Vec8>);
static_assert(IntegerVector<VecI32, Vec>);

/// Nibbles of as many rows as `I` has lanes, two quads in each byte vector, times a token's signed bytes: exact sums.
template <class S, class I, class V>
concept AddsNibbles =
    requires(S sum, NibbleQuad (&two)[2], const std::uint8_t* nibbles, const std::int8_t* bytes, I i) {
      { S::zero() } -> Same<S>;
      NibbleQuad::load(nibbles, two);
      sum.add(two[0], SignedQuad::broadcast(bytes));
      { sum.widened() } -> Same<I>;
      { i + i } -> Same<I>;
      { to_floats(i) } -> Same<V>;
    };
static_assert(AddsNibbles<NibbleSum, VecI32, Vec> && kNibbleQuads % 2 == 0);
static_assert(kRegisters >= 16, "kernels keep up to 16 vectors in registers");
static_assert(kSame<decltype(kByteOffset), const std::int32_t>);
static_assert(kSame<decltype(kThresholds), const sparsekit::Thresholds>);

/// 64 columns (`Columns`) that take 64 of a token's 128 inputs (`Inputs`) from registers, and 16 bytes (`SlotIndex`)
/// that take 16 of 64 sums.
template <class P, class Sums>
concept PermutesInputs = requires(P inputs, const Columns& columns, Vec (&vectors)[4], const Sums (&sums)[4],
                                  const float* row, float* packed, const std::uint8_t* bytes) {
  { Columns::load(bytes) } -> Same<Columns>;
  { P::load(row) } -> Same<P>;
  P::pack(row, P::kPackWidth, packed);
  inputs.permute(columns, vectors);
  { SlotIndex(bytes).permute(vectors) } -> Same<Vec>;
  { SlotIndex::by_four(bytes).permute(sums) } -> Same<Sums>;
};
static_assert(!kPermutesInputs || PermutesInputs<Inputs, VecI32>);

/// 128 bytes of a token, of which 64 columns take 64.
template <class B>
concept PermutesBytes = requires(B inputs, const std::uint8_t* bytes) {
  { B::load(bytes) } -> Same<B>;
  inputs.permute(B::load_stripe(bytes));
};
static_assert(!kPermutesBytes || (kPermutesInputs && PermutesBytes<InputBytes>));

/// Four vectors' worth of bytes, interleaved or looked up, times four int8 values for each 32-bit lane.
template <class U, class Values>
concept InterleavesBytes = requires(U u, U (&four)[4], VecI32 sum, Values values, const std::uint8_t* from,
                                    std::uint8_t* to, const std::int8_t* quad) {
  { U::load(from) } -> Same<U>;
  { Values::load(quad) } -> Same<Values>;
  { Values::broadcast(quad) } -> Same<Values>;
  { dot(sum, u, values) } -> Same<VecI32>;
  { ByteTable::load(from).look_up(from) } -> Same<U>;
  interleave(four);
  transpose_bytes(from, std::int64_t{}, to, std::int64_t{});
};
static_assert(!kInterleavesBytes || InterleavesBytes<VecU8, Int8Quads>);
static_assert(kS8RowsInRegisters >= 1);

}  // namespace
