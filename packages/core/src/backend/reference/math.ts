// Scalar functions that Math lacks, to a few ulp of float64.

/** Rounds to the nearest integer, halves to the even one; keeps the sign of zero. */
export function roundHalfEven(x: number): number {
  if (!(Math.abs(x) < 2 ** 52)) return x; // integer already, or NaN
  const below = Math.floor(x);
  const rest = x - below;
  const rounded = rest < 0.5 || (rest === 0.5 && below % 2 === 0) ? below : below + 1;
  return rounded === 0 && (x < 0 || Object.is(x, -0)) ? -0 : rounded;
}

/** 2/√π·exp(−x²), with x² as z² + (x − z)(x + z), z short enough for z² to be exact. */
function erfSlope(x: number): number {
  const z = Math.fround(x);
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-z * z) * Math.exp((z - x) * (z + x));
}

/** erf(x) for |x| < 1, by the series whose terms all have one sign: erf′(x)·x·Σ (2x²)ⁿ/(1·3·…·(2n + 1)) (DLMF 7.6.2). */
function erfSeries(x: number): number {
  let sum = 0;
  for (let n = 27; n >= 0; n--) sum = 1 + (sum * 2 * x * x) / (2 * n + 3);
  return erfSlope(x) * x * sum;
}

/** erfc(x) for x ≥ 1, by the continued fraction erf′(x)/2 / (x + ½/(x + 1/(x + 3⁄2/(x + …)))) (DLMF 7.9.1). */
function erfcFraction(x: number): number {
  if (x >= 28) return 0;
  let rest = x;
  for (let n = Math.ceil(10 + 170 / (x * x)); n > 0; n--) rest = x + n / 2 / rest;
  return erfSlope(x) / 2 / rest;
}

/** erf(x) = 2/√π ∫₀ˣ exp(−t²) dt. */
export function erf(x: number): number {
  if (Math.abs(x) >= 1) return Math.sign(x) * (1 - erfcFraction(Math.abs(x)));
  return erfSeries(x);
}

/** erfc(x) = 1 − erf(x), accurate where erf(x) is close to 1. */
export function erfc(x: number): number {
  return x >= 1 ? erfcFraction(x) : 1 - erf(x);
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
