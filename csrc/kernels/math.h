// Vector exp and erf for the fused activations, written once over `Vector`.
//
// Accuracy (tests/test_kernels.py): exp within 2 ulp; erf within 1.5e-7 absolute (Abramowitz and Stegun, Handbook
// of Mathematical Functions, 7.1.26), which is also what torch's vectorised erf uses.
#pragma once

namespace {

inline Vector polynomial(Vector x, const float* coefficients, int count) {
  Vector sum = Vector::broadcast(coefficients[0]);
  for (int i = 1; i < count; ++i) sum = fma(sum, x, Vector::broadcast(coefficients[i]));
  return sum;
}

/// exp(x) = 2^n * exp(r), |r| <= ln(2) / 2; 0 below -104, infinity above 89, NaN stays NaN.
inline Vector exp(Vector x) {
  constexpr float kTaylor[] = {1.0F / 5040, 1.0F / 720, 1.0F / 120, 1.0F / 24, 1.0F / 6, 0.5F, 1.0F, 1.0F};
  x = at_least(at_most(x, 89.0F), -104.0F);
  const Vector n = round_nearest(x * Vector::broadcast(1.44269504F));
  Vector r = fma(n, Vector::broadcast(-0.693359375F), x);  // ln(2) in two parts: the first product is exact
  r = fma(n, Vector::broadcast(2.12194440e-4F), r);
  return times_power_of_two(polynomial(r, kTaylor, 8), n);
}

inline Vector erf(Vector x) {
  constexpr float kCoefficients[] = {1.061405429F, -1.453152027F, 1.421413741F, -0.284496736F, 0.254829592F, 0.0F};
  const Vector one = Vector::broadcast(1.0F);
  const Vector magnitude = absolute(x);
  const Vector t = one / fma(magnitude, Vector::broadcast(0.3275911F), one);
  const Vector tail = polynomial(t, kCoefficients, 6) * exp(Vector::zero() - magnitude * magnitude);
  return with_sign_of(one - tail, x);
}

}  // namespace
