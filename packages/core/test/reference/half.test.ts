import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  fromBfloat16Bits,
  fromFloat16Bits,
  toBfloat16Bits,
  toFloat16Bits,
} from "../../src/backend/reference/half.js";

describe.each([
  ["float16", toFloat16Bits, fromFloat16Bits, 0x7c00],
  ["bfloat16", toBfloat16Bits, fromBfloat16Bits, 0x7f80],
] as const)("%s", (_, encode, decode, infinity) => {
  test("every bit pattern but NaN survives the round trip", () => {
    for (let bits = 0; bits < 65536; bits++) {
      const value = decode(bits);
      if ((bits & 0x7fff) > infinity) expect(value).toBeNaN();
      else if (encode(value) !== bits) expect.fail(`0x${bits.toString(16)} became ${value}`);
    }
    expect(decode(encode(Number.NaN))).toBeNaN();
  });

  test("rounds to nearest, halves to even", () => {
    for (let bits = 0; bits < infinity; bits++) {
      const low = decode(bits);
      // Past the largest number the next spacing counts as if the format went on.
      const high = bits + 1 === infinity ? 2 * low - decode(bits - 1) : decode(bits + 1);
      const middle = (low + high) / 2;
      const even = bits % 2 === 0 ? bits : bits + 1;
      if (encode(middle) !== even) expect.fail(`middle above 0x${bits.toString(16)}`);
      if (encode(middle * (1 - 2 ** -52)) !== bits)
        expect.fail(`below the middle above 0x${bits.toString(16)}`);
      if (encode(middle * (1 + 2 ** -52)) !== bits + 1) {
        expect.fail(`above the middle above 0x${bits.toString(16)}`);
      }
    }
  });

  test("is odd and monotonic", () => {
    const number = fc.double({ noNaN: true });
    fc.assert(
      fc.property(number, number, (x, y) => {
        expect(encode(-x)).toBe(encode(x) ^ 0x8000);
        if (x <= y) expect(decode(encode(x))).toBeLessThanOrEqual(decode(encode(y)));
      }),
    );
  });
});

test("known values", () => {
  expect(toFloat16Bits(65519.99)).toBe(0x7bff);
  expect(toFloat16Bits(65520)).toBe(0x7c00);
  expect(toFloat16Bits(2 ** -24)).toBe(1);
  expect(toFloat16Bits(2 ** -25)).toBe(0);
  expect(toFloat16Bits(-0)).toBe(0x8000);
  expect(toBfloat16Bits(3.3895313892515355e38)).toBe(0x7f7f);
  expect(toBfloat16Bits(1.00390625)).toBe(0x3f80);
  expect(toBfloat16Bits(1.01171875)).toBe(0x3f82);
});
