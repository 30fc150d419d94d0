// The scalar functions of the kernels, in the JavaScript that gpu.js translates. They are strings, because minifiers,
// keepNames and coverage change what a function's own text says. Each kernel carries the ones that it names.

import type { KernelFunction } from "./library.js";

interface ScalarFunction extends KernelFunction {
  readonly name: string;
}

function scalar(source: string, integer = false): ScalarFunction {
  const [, name, parameters] = /^function (\w+)\(([^)]*)\)/.exec(source)!;
  const kind = integer ? "Integer" : "Float";
  return {
    name,
    source,
    settings: { argumentTypes: parameters.split(",").map(() => kind), returnType: kind },
  };
}

/** a₀ + a₁·x + …, by Horner's rule. */
function polynomial(x: string, coefficients: readonly number[]): string {
  return coefficients.reduceRight((inner, value) => {
    const literal = Number.isInteger(value) ? `${value}.0` : value.toFixed(17);
    return inner === "" ? literal : `(${literal} + ${x} * ${inner})`;
  }, "");
}

/** 1/0!, 1/1!, … */
function reciprocalFactorials(count: number): number[] {
  const list = [1];
  while (list.length < count) list.push(list[list.length - 1] / list.length);
  return list;
}

// erfc(x) = t · exp(−x² + P(t)), t = 1 / (1 + x/2), for x ≥ 0: Numerical Recipes, erfcc; relative error 1.2e−7.
const erfcCoefficients = [
  -1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398, 1.48851587,
  -0.82215223, 0.17087277,
];

// erf(x)/x = 2/√π · Σ (−x²)ⁿ / (n! (2n+1))
const erfCoefficients = reciprocalFactorials(9).map(
  (value, n) => (((2 / Math.sqrt(Math.PI)) * value) / (2 * n + 1)) * (n % 2 === 0 ? 1 : -1),
);

/** Compares to 1 or 0. */
function comparison(name: string, operator: string): ScalarFunction {
  return scalar(`function ${name}(a, b) { if (a ${operator} b) { return 1.0; } return 0.0; }`);
}

/** Bit by bit over the two's complement of 25 bits: integers on the device have no more, and are floats. */
function bitwise(name: string, hit: string): ScalarFunction {
  return scalar(`function ${name}(a, b) {
    let x = a; let y = b;
    if (x < 0.0) { x = x + 33554432.0; }
    if (y < 0.0) { y = y + 33554432.0; }
    let result = 0.0; let bit = 1.0;
    for (let n = 0; n < 25; n++) {
      const p = x - 2.0 * Math.floor(x * 0.5);
      const q = y - 2.0 * Math.floor(y * 0.5);
      if (${hit}) { result = result + bit; }
      x = Math.floor(x * 0.5); y = Math.floor(y * 0.5); bit = bit * 2.0;
    }
    if (result >= 16777216.0) { result = result - 33554432.0; }
    return result;
  }`);
}

const list: readonly ScalarFunction[] = [
  // Integers divide as floats, with up to 2.5 ulp of error on a GPU: what is left over tells how far off the quotient is. No step
  // has a variable of its own, because gpu.js makes floats of those, which end at 2²⁴.
  scalar("function roughQuotient(i, n) { return Math.floor(i / n); }", true),
  scalar("function nearQuotient(i, n, q) { return q + roughQuotient(i - q * n, n); }", true),
  scalar(
    "function exactQuotient(i, n, q) { if (i - q * n < 0) { return q - 1; } if (i - q * n >= n) { return q + 1; } return q; }",
    true,
  ),
  scalar(
    "function quotient(i, n) { return exactQuotient(i, n, nearQuotient(i, n, roughQuotient(i, n))); }",
    true,
  ),
  // Processors round quotients correctly: below 2²⁴ none is rounded up to the next integer. Half the time of decoding packed weights.
  scalar("function hostQuotient(i, n) { return Math.floor(i / n); }", true),
  scalar(
    "function within(i, last) { if (i < 0) { return 0; } if (i > last) { return last; } return i; }",
    true,
  ),
  {
    ...scalar("function toInteger(x) { return Math.floor(x + 0.5); }"),
    settings: { argumentTypes: ["Float"], returnType: "Integer" },
  },
  {
    ...scalar("function toFloat(i) { return i; }"),
    settings: { argumentTypes: ["Integer"], returnType: "Float" },
  },

  // Bytes lie three in a float; products with powers of two are exact, quotients need not be.
  scalar(
    "function byteOf(word, k) { let x = word; if (k > 0.5) { x = Math.floor(x * 0.00390625); } if (k > 1.5) { x = Math.floor(x * 0.00390625); } return x - 256.0 * Math.floor(x * 0.00390625); }",
  ),
  scalar("function signedByte(x) { if (x > 127.5) { return x - 256.0; } return x; }"),
  scalar(
    "function halfOf(x, k) { const high = Math.floor(x * 0.0625); if (k > 0.5) { return high; } return x - 16.0 * high; }",
  ),
  scalar(
    "function bitsOf(x, k, values, share) { let y = x; for (let n = 0; n < 7; n++) { if (toFloat(n) < k) { y = Math.floor(y * 0.5); } } return y - values * Math.floor(y * share); }",
  ),
  scalar(`function float16(low, high) {
    let rest = high; let sign = 1.0;
    if (rest > 127.5) { rest = rest - 128.0; sign = -1.0; }
    const exponent = Math.floor(rest * 0.25);
    const mantissa = (rest - 4.0 * exponent) * 256.0 + low;
    if (exponent < 0.5) { return sign * mantissa * ${(2 ** -24).toFixed(24)}; }
    return sign * (1024.0 + mantissa) * powerOfTwo(exponent) * ${(2 ** -25).toFixed(25)};
  }`),

  scalar("function neg(x) { return -x; }"),
  scalar("function absolute(x) { return Math.abs(x); }"),
  scalar("function signOf(x) { if (x > 0.0) { return 1.0; } if (x < 0.0) { return -1.0; } return x; }"),
  scalar("function rsqrt(x) { return 1.0 / Math.sqrt(x); }"),
  scalar("function squareOf(x) { return x * x; }"),
  scalar("function reciprocal(x) { return 1.0 / x; }"),
  scalar("function relu(x) { if (x < 0.0) { return 0.0; } return x; }"),
  scalar(
    "function roundHalfEven(x) { const f = Math.floor(x); const d = x - f; if (d < 0.5) { return f; } if (d > 0.5) { return f + 1.0; } if (f - 2.0 * Math.floor(f * 0.5) == 0.0) { return f; } return f + 1.0; }",
  ),
  // e^x overflows inside the tanh of WebGL and WebGPU, which is NaN from 45 or 89 on; tanh(20) is 1 in float32.
  scalar(
    "function boundedTanh(x) { if (x > 20.0) { return 1.0; } if (x < -20.0) { return -1.0; } return Math.tanh(x); }",
  ),
  scalar(
    `function expMinusOne(x) { if (Math.abs(x) < 0.5) { return x * ${polynomial("x", reciprocalFactorials(10).slice(1))}; } return Math.exp(x) - 1.0; }`,
  ),
  // log(1 + x) = 2·artanh(x / (2 + x))
  scalar(
    `function logOnePlus(x) { if (Math.abs(x) < 0.4) { const s = x / (2.0 + x); const t = s * s; return s * ${polynomial(
      "t",
      [2, 2 / 3, 2 / 5, 2 / 7, 2 / 9, 2 / 11],
    )}; } return Math.log(1.0 + x); }`,
  ),
  // A GPU's own sine and cosine err by up to 2⁻¹¹. The quarter turns are taken off in three parts, so that 10,000 of them lose nothing.
  scalar("function quarterTurns(x) { return Math.floor(x * 0.6366197723675814 + 0.5); }"),
  scalar(
    "function withinQuarter(x, k) { return x - k * 1.5703125 - k * 0.0004837512969970703 - k * 0.00000007549789948768648; }",
  ),
  scalar(
    `function sineOf(r, k) { const z = r * r; const s = r * ${polynomial("z", [1, -1 / 6, 1 / 120, -1 / 5040, 1 / 362880])}; const c = ${polynomial("z", [1, -1 / 2, 1 / 24, -1 / 720, 1 / 40320])}; const q = k - 4.0 * Math.floor(k * 0.25); if (q < 0.5) { return s; } if (q < 1.5) { return c; } if (q < 2.5) { return -s; } return -c; }`,
  ),
  scalar("function sine(x) { return sineOf(withinQuarter(x, quarterTurns(x)), quarterTurns(x)); }"),
  scalar("function cosine(x) { return sineOf(withinQuarter(x, quarterTurns(x)), quarterTurns(x) + 1.0); }"),
  scalar(
    "function sigmoid(x) { const e = Math.exp(-Math.abs(x)); if (x < 0.0) { return e / (1.0 + e); } return 1.0 / (1.0 + e); }",
  ),
  scalar("function silu(x) { return x * sigmoid(x); }"),
  scalar("function softplus(x) { return Math.max(x, 0.0) + logOnePlus(Math.exp(-Math.abs(x))); }"),
  scalar(
    `function erfcPositive(x) { const t = 1.0 / (1.0 + 0.5 * x); return t * Math.exp(-x * x + ${polynomial("t", erfcCoefficients)}); }`,
  ),
  scalar(
    `function erf(x) { const z = x * x; if (z < 0.49) { return x * ${polynomial("z", erfCoefficients)}; } if (x > 5.0) { return 1.0; } if (x < -5.0) { return -1.0; } const c = 1.0 - erfcPositive(Math.abs(x)); if (x < 0.0) { return -c; } return c; }`,
  ),
  scalar(
    `function gelu(x) { if (x > 7.0) { return x; } if (x < -14.0) { return 0.0 * x; } const c = 0.5 * erfcPositive(Math.abs(x) * ${Math.SQRT1_2}); if (x < 0.0) { return x * c; } return x * (1.0 - c); }`,
  ),
  scalar(
    `function geluTanh(x) { return x * sigmoid(${2 * Math.sqrt(2 / Math.PI)} * (x + 0.044715 * x * x * x)); }`,
  ),

  // On a GPU no comparison with NaN holds, not even that it differs from itself, and what looks equal may be taken as such.
  scalar("function notNumber(x) { if (x < 1.0) { return 0.0; } if (x >= 1.0) { return 0.0; } return 1.0; }"),
  scalar(
    "function minimum(a, b) { if (notNumber(a) > 0.0) { return a; } if (notNumber(b) > 0.0) { return b; } return Math.min(a, b); }",
  ),
  scalar(
    "function maximum(a, b) { if (notNumber(a) > 0.0) { return a; } if (notNumber(b) > 0.0) { return b; } return Math.max(a, b); }",
  ),
  // GPUs know no power of a negative number.
  scalar(`function power(a, b) {
    if (b == 0.0) { return 1.0; }
    if (a == 1.0) { return 1.0; }
    if (a < 0.0) {
      if (Math.floor(b) != b) { return Math.sqrt(a); }
      if (b - 2.0 * Math.floor(b * 0.5) == 0.0) { return Math.pow(-a, b); }
      return -Math.pow(-a, b);
    }
    return Math.pow(a, b);
  }`),
  scalar(
    "function floorDivide(a, b) { if (b == 0.0) { return a / b; } const q = Math.floor(a / b); const r = a - q * b; if (r * b < 0.0) { return q - 1.0; } if (Math.abs(r) >= Math.abs(b)) { return q + 1.0; } return q; }",
  ),
  scalar("function remainder(a, b) { return a - b * floorDivide(a, b); }"),
  scalar("function towardsZero(x) { if (x < 0.0) { return Math.ceil(x); } return Math.floor(x); }"),
  scalar("function integerFloorDivide(a, b) { if (b == 0.0) { return 0.0; } return floorDivide(a, b); }"),
  scalar(
    "function integerRemainder(a, b) { if (b == 0.0) { return 0.0; } return a - b * floorDivide(a, b); }",
  ),
  scalar(
    "function integerDivide(a, b) { if (b == 0.0) { return 0.0; } const q = floorDivide(Math.abs(a), Math.abs(b)); if (a * b < 0.0) { return -q; } return q; }",
  ),
  scalar(`function integerPower(a, b) {
    if (b < 0.0) { if (a == 1.0) { return 1.0; } if (a == -1.0) { return power(a, b); } return 0.0; }
    return roundHalfEven(power(a, b));
  }`),
  bitwise("bitwiseAnd", "p + q == 2.0"),
  bitwise("bitwiseOr", "p + q > 0.0"),
  bitwise("bitwiseXor", "p + q == 1.0"),
  // The power of two is a product, because pow is not exact on a GPU.
  scalar(
    "function powerOfTwo(n) { let result = 1.0; for (let i = 0; i < 32; i++) { if (toFloat(i) < n) { result = result * 2.0; } } return result; }",
  ),
  scalar("function shiftCount(n) { return n - 32.0 * Math.floor(n * 0.03125); }"),
  scalar("function shiftLeft(a, n) { return a * powerOfTwo(shiftCount(n)); }"),
  scalar("function shiftRight(a, n) { return Math.floor(a / powerOfTwo(shiftCount(n))); }"),

  comparison("isEqual", "=="),
  scalar("function isNotEqual(a, b) { if (a == b) { return 0.0; } return 1.0; }"),
  comparison("isLess", "<"),
  comparison("isLessEqual", "<="),
  comparison("isGreater", ">"),
  comparison("isGreaterEqual", ">="),
  scalar("function choose(c, a, b) { if (c != 0.0) { return a; } return b; }"),

  scalar(
    "function saturate(x, low, high) { if (notNumber(x) > 0.0) { return 0.0; } const v = Math.min(Math.max(x, low), high); if (v < 0.0) { return Math.ceil(v); } return Math.floor(v); }",
  ),
  // To `bits` bits of mantissa and no finer than `least`, half to even; past `most` infinity. The scale of |x| is found by
  // multiplying, because logarithms are not exact on a GPU.
  scalar(`function roundToHalf(x, bits, least, most, infinity) {
    const magnitude = Math.abs(x);
    if (notNumber(x) > 0.0) { return x; }
    if (magnitude == 0.0) { return x; }
    if (magnitude >= most) { if (x < 0.0) { return -infinity; } return infinity; }
    let quantum = 1.0;
    for (let n = 0; n < 128; n++) { if (quantum * 2.0 <= magnitude) { quantum = quantum * 2.0; } }
    for (let n = 0; n < 126; n++) { if (quantum > magnitude) { quantum = quantum * 0.5; } }
    quantum = Math.max(quantum * bits, least);
    return roundHalfEven(x / quantum) * quantum;
  }`),
];

const byName = new Map(list.map((each) => [each.name, each]));

/** The scalar functions that `source` calls, and those that they call. */
export function functionsIn(source: string): KernelFunction[] {
  const found = new Map<string, ScalarFunction>();
  const visit = (text: string): void => {
    for (const [, name] of text.matchAll(/\b(\w+)\(/g)) {
      const called = byName.get(name);
      if (!called || found.has(name)) continue;
      found.set(name, called);
      visit(called.source);
    }
  };
  visit(source);
  return [...found.values()].map(({ source: text, settings }) => ({ source: text, settings }));
}
