// Scalar functions that Math lacks, to full float64 accuracy.

/** Rounds to the nearest integer, halves to the even one; keeps the sign of zero. */
export function roundHalfEven(x: number): number {
  if (!(Math.abs(x) < 2 ** 52)) return x; // integer already, or NaN
  const below = Math.floor(x);
  const rest = x - below;
  const rounded = rest < 0.5 || (rest === 0.5 && below % 2 === 0) ? below : below + 1;
  return rounded === 0 && (x < 0 || Object.is(x, -0)) ? -0 : rounded;
}

function polynomial(x: number, coefficients: readonly number[]): number {
  let sum = 0;
  for (let i = coefficients.length - 1; i >= 0; i--) sum = sum * x + coefficients[i];
  return sum;
}

// erf and erfc follow fdlibm's s_erf.c (error below 1 ulp):
// Copyright (C) 1993 by Sun Microsystems, Inc. All rights reserved. Developed at SunPro, a Sun Microsystems, Inc. business.
// Permission to use, copy, modify, and distribute this software is freely granted, provided that this notice is preserved.

const erx = 8.450629115104675e-1; // erf(1), rounded to single
const efx = 1.283791670955126e-1; // 2/√π − 1

// |x| < 0.84375: erf(x) = x + x·P(x²)/Q(x²)
const pp = [
  1.2837916709551256e-1, -3.250421072470015e-1, -2.848174957559851e-2, -5.770270296489442e-3,
  -2.3763016656650163e-5,
];
const qq = [
  1, 3.9791722395915535e-1, 6.50222499887673e-2, 5.081306281875766e-3, 1.3249473800432164e-4,
  -3.960228278775368e-6,
];
// 0.84375 ≤ |x| < 1.25: erf(x) = erx + P(|x|−1)/Q(|x|−1)
const pa = [
  -2.3621185607526594e-3, 4.1485611868374833e-1, -3.722078760357013e-1, 3.1834661990116175e-1,
  -1.1089469428239668e-1, 3.5478304325618236e-2, -2.166375594868791e-3,
];
const qa = [
  1, 1.0642088040084423e-1, 5.40397917702171e-1, 7.182865441419627e-2, 1.2617121980876164e-1,
  1.363708391202905e-2, 1.1984499846799107e-2,
];
// 1.25 ≤ |x| < 1/0.35: erfc(x) = exp(−x² − 0.5625 + R(1/x²)/S(1/x²)) / x
const ra = [
  -9.864944034847148e-3, -6.938585727071818e-1, -1.0558626225323291e1, -6.2375332450326006e1,
  -1.6239666946257347e2, -1.8460509290671104e2, -8.12874355063066e1, -9.814329344169145,
];
const sa = [
  1, 1.9651271667439257e1, 1.3765775414351904e2, 4.3456587747522923e2, 6.453872717332679e2,
  4.2900814002756783e2, 1.0863500554177944e2, 6.570249770319282, -6.04244152148581e-2,
];
// 1/0.35 ≤ |x| < 28
const rb = [
  -9.8649429247001e-3, -7.99283237680523e-1, -1.7757954917754752e1, -1.6063638485582192e2,
  -6.375664433683896e2, -1.0250951316110772e3, -4.835191916086514e2,
];
const sb = [
  1, 3.033806074348246e1, 3.257925129965739e2, 1.536729586084437e3, 3.1998582195085955e3,
  2.5530504064331644e3, 4.7452854120695537e2, -2.244095244658582e1,
];

/** erfc(x) for 1.25 ≤ x < 28. */
function erfcTail(x: number): number {
  const s = 1 / (x * x);
  const quotient =
    x < 1 / 0.35 ? polynomial(s, ra) / polynomial(s, sa) : polynomial(s, rb) / polynomial(s, sb);
  // x² as z² + (x − z)(x + z), with z short enough for z² to be exact.
  const z = Math.fround(x);
  return (Math.exp(-z * z - 0.5625) * Math.exp((z - x) * (z + x) + quotient)) / x;
}

/** erf(x) = 2/√π ∫₀ˣ exp(−t²) dt. */
export function erf(x: number): number {
  if (Number.isNaN(x)) return x;
  const magnitude = Math.abs(x);
  const sign = x < 0 ? -1 : 1;
  if (magnitude < 0.84375) {
    if (magnitude < 2 ** -28) return x + efx * x;
    const z = x * x;
    return x + x * (polynomial(z, pp) / polynomial(z, qq));
  }
  if (magnitude < 1.25) {
    return sign * (erx + polynomial(magnitude - 1, pa) / polynomial(magnitude - 1, qa));
  }
  return magnitude >= 6 ? sign : sign * (1 - erfcTail(magnitude));
}

/** erfc(x) = 1 − erf(x), accurate where erf(x) is close to 1. */
export function erfc(x: number): number {
  if (Number.isNaN(x)) return x;
  const magnitude = Math.abs(x);
  if (magnitude < 0.84375) {
    const z = x * x;
    const y = polynomial(z, pp) / polynomial(z, qq);
    return x < 0.25 ? 1 - (x + x * y) : 0.5 - (x - 0.5 + x * y);
  }
  if (magnitude < 1.25) {
    const quotient = polynomial(magnitude - 1, pa) / polynomial(magnitude - 1, qa);
    return x < 0 ? 1 + (erx + quotient) : 1 - erx - quotient;
  }
  if (x < -6) return 2;
  if (x >= 28) return 0;
  return x < 0 ? 2 - erfcTail(-x) : erfcTail(x);
}

/** 1 / (1 + exp(−x)), without overflow. */
export function sigmoid(x: number): number {
  if (x >= 0) return 1 / (1 + Math.exp(-x));
  const e = Math.exp(x);
  return e / (1 + e);
}

/** log(1 + exp(x)), without overflow. */
export function softplus(x: number): number {
  return Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
}

/** x·Φ(x) with the normal distribution's Φ(x) = erfc(−x/√2)/2 (Hendrycks and Gimpel 2016). */
export function gelu(x: number): number {
  return 0.5 * x * erfc(-x * Math.SQRT1_2);
}

/** 0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))), written as x·sigmoid of twice the argument, which does not cancel. */
export function geluTanh(x: number): number {
  return x * sigmoid(2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x));
}

/** x^y as IEEE 754 has it: unlike `**`, 1^y is 1 for every y, and (−1)^±∞ is 1. */
export function pow(x: number, y: number): number {
  return x === 1 || (x === -1 && Math.abs(y) === Number.POSITIVE_INFINITY) ? 1 : x ** y;
}

/** x^y for int32, modulo 2³²; a negative y truncates 1/x^|y| towards zero. */
export function powInt32(x: number, y: number): number {
  if (y < 0) return x === 1 ? 1 : x === -1 ? (y % 2 === 0 ? 1 : -1) : 0;
  let result = 1;
  let base = x;
  for (let rest = y; rest > 0; rest = Math.floor(rest / 2)) {
    if (rest % 2 === 1) result = Math.imul(result, base);
    base = Math.imul(base, base);
  }
  return result;
}

/** x − y·⌊x / y⌋ without rounding the quotient: the sign of y, as Python's %. */
export function remainder(x: number, y: number): number {
  const rest = x % y;
  if (rest === 0) return y < 0 || Object.is(y, -0) ? -0 : 0;
  return rest < 0 !== y < 0 ? rest + y : rest;
}

/** ⌊x / y⌋, exact where x / y rounds up to an integer; x / y itself for y = 0, as NumPy's floor_divide. */
export function floorDivide(x: number, y: number): number {
  if (y === 0) return x / y;
  const rest = x % y;
  const whole = (x - rest) / y - (rest !== 0 && rest < 0 !== y < 0 ? 1 : 0);
  const floor = Math.floor(whole);
  const quotient = whole - floor > 0.5 ? floor + 1 : floor;
  return quotient === 0 && (x / y < 0 || Object.is(x / y, -0)) ? -0 : quotient;
}
