// The signed 8-bit dynamic map of bitsandbytes (`create_dynamic_map(signed=True)`), which double quantization stores
// block scales in: seven decades, the higher the finer, zero and one.
//
// bitsandbytes builds it with torch.linspace in float32, whose last bit differs between machines; here the numbers are
// the exact ones, rounded once (at most 1 unit in the last place away).

const { fround } = Math;

/** 256 ascending values from −0.99296875 to 1. */
export const dynamicMap: Float32Array = (() => {
  const values = [0, 1];
  for (let i = 0; i < 7; i++) {
    const items = 2 ** i;
    for (let j = 0; j < items; j++) {
      const mean = (0.1 + (0.9 * (j + 0.5)) / items) / 10 ** (6 - i);
      values.push(mean, -mean);
    }
  }
  return Float32Array.from(values).sort();
})();

/** Midpoints between neighbours: code i stands for what is above midpoint i − 1 and not above midpoint i. */
const dynamicMidpoints: Float32Array = Float32Array.from({ length: 255 }, (_, i) =>
  fround(fround(dynamicMap[i] + dynamicMap[i + 1]) * 0.5),
);

/** Code of the value of the map next to `x`, the lower one at a tie. */
export function dynamicCode(x: number): number {
  let low = 0;
  let high = 255;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (x > dynamicMidpoints[middle]) low = middle + 1;
    else high = middle;
  }
  return low;
}
