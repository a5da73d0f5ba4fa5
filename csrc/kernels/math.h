// Vector exp, tanh and the normal distribution for attention and the fused activations, written once over `Vec`.
//
// Accuracy (tests/runtime/test_kernels.py): exp within 1.8e-7 of its value, three ulp at most; the distribution
// function within 2e-7 absolute. tanh within 1e-6 of its value, as the bound of tests/native/attention_case.h has it.
#pragma once

namespace {

inline Vec polynomial(Vec x, const float* coefficients, int count) {
  Vec sum = Vec::broadcast(coefficients[0]);
  for (int i = 1; i < count; ++i) sum = fma(sum, x, Vec::broadcast(coefficients[i]));
  return sum;
}

/// exp(x) = power * exp(r), power = 2^n, |r| <= ln(2) / 2, and the polynomial of exp(r), which is the one of its degree
/// with the least relative error (1.1e-7) among those that are 1 + r near 0, so exp(0) is 1. Adding 1.5 * 2^23 rounds
/// to a whole number and leaves it, and the bias of the exponent, in the last bits.
struct ExpParts {
  static constexpr float kNearest[] = {0.00831251033F, 0.0418903343F, 0.166671157F, 0.499992311F, 1.0F, 1.0F};
  Vec power;
  Vec r;

  [[gnu::always_inline]] explicit ExpParts(Vec x) {
    const Vec round = Vec::broadcast(12582912.0F + 127.0F);
    x = max(x, -88.0F);
    const Vec rounded = fma(x, Vec::broadcast(1.44269504F), round);
    const Vec n = rounded - round;
    r = fma(n, Vec::broadcast(-0.693359375F), x);  // ln(2) in two parts: the first product is exact
    r = fma(n, Vec::broadcast(2.12194440e-4F), r);
    power = low_bits_to_exponent(rounded);
  }
};

/// exp(x) for x up to 89; infinity above 88.37, 0 below -87.68, NaN stays NaN.
inline Vec exp_up_to_89(Vec x) {
  const ExpParts parts(x);
  return polynomial(parts.r, ExpParts::kNearest, 6) * parts.power;
}

/// The same for every x.
inline Vec exp(Vec x) { return exp_up_to_89(min(x, 89.0F)); }

/// tanh(x) = y / (y + 2), y = exp(2 x) - 1 = power * (exp(r) - 1) + (power - 1), which cancels nowhere; NaN stays NaN.
/// From 10 on it is 1.
inline Vec tanh(Vec x) {
  const Vec one = Vec::broadcast(1.0F);
  const ExpParts parts(min(max(x + x, -20.0F), 20.0F));
  const Vec exp_less_1 = polynomial(parts.r, ExpParts::kNearest, 5) * parts.r;
  const Vec y = fma(exp_less_1, parts.power, parts.power - one);
  return y / (y + Vec::broadcast(2.0F));
}

/// The distribution function of the normal distribution: 1/2 + x P(x^2) / Q(x^2), from 0 to 1; NaN stays NaN. P and Q
/// have the least error (3e-9) of their degrees for |x| <= 5.2 (least squares, weights by Lawson's algorithm); beyond,
/// x P / Q goes on as a line, which is cut off.
inline Vec normal_cdf(Vec x) {
  constexpr float kP[] = {2.47311380e-8F, 6.40789131e-6F, 1.56861672e-4F, 4.60864557e-3F, 3.25445607e-2F, 0.398942262F};
  constexpr float kQ[] = {1.25886902e-6F, 7.04961349e-5F, 1.81720303e-3F, 2.79266927e-2F, 0.248243451F, 1.0F};
  const Vec square = min(x * x, 5.2F * 5.2F);
  const Vec above_half = x * polynomial(square, kP, 6) / polynomial(square, kQ, 6);
  return min(max(above_half + Vec::broadcast(0.5F), 0.0F), 1.0F);
}

}  // namespace
