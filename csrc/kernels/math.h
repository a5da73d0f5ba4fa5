// Vector exp and erf for the fused activations, written once over `Vec`.
//
// Accuracy (tests/runtime/test_kernels.py): exp within 1.8e-7 of its value, three ulp at most; erf within 1.5e-7
// absolute (Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26), which is also what torch's vectorized
// erf uses.
#pragma once

namespace {

inline Vec polynomial(Vec x, const float* coefficients, int count) {
  Vec sum = Vec::broadcast(coefficients[0]);
  for (int i = 1; i < count; ++i) sum = fma(sum, x, Vec::broadcast(coefficients[i]));
  return sum;
}

/// exp(x) = 2^n * exp(r), |r| <= ln(2) / 2, for x up to 89; 0 below -104, NaN stays NaN. The polynomial is the one of
/// its degree with the least relative error (1.1e-7) among those that are 1 + r near 0, so exp(0) is 1.
inline Vec exp_up_to_89(Vec x) {
  constexpr float kNearest[] = {0.00831251033F, 0.0418903343F, 0.166671157F, 0.499992311F, 1.0F, 1.0F};
  x = max(x, -104.0F);
  const Vec n = rint(x * Vec::broadcast(1.44269504F));
  Vec r = fma(n, Vec::broadcast(-0.693359375F), x);  // ln(2) in two parts: the first product is exact
  r = fma(n, Vec::broadcast(2.12194440e-4F), r);
  return ldexp(polynomial(r, kNearest, 6), n);
}

/// The same for every x: infinity above 89.
inline Vec exp(Vec x) { return exp_up_to_89(min(x, 89.0F)); }

inline Vec erf(Vec x) {
  constexpr float kCoefficients[] = {1.061405429F, -1.453152027F, 1.421413741F, -0.284496736F, 0.254829592F, 0.0F};
  const Vec one = Vec::broadcast(1.0F);
  const Vec magnitude = abs(x);
  const Vec t = one / fma(magnitude, Vec::broadcast(0.3275911F), one);
  const Vec tail = polynomial(t, kCoefficients, 6) * exp(Vec::zero() - magnitude * magnitude);
  return copysign(one - tail, x);
}

}  // namespace
