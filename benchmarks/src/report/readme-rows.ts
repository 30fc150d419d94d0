// The rows of the README's tables: what a reader asks first, in the order of reading.

import type { Result } from "../results/schema.js";

export interface ReadmeRow {
  readonly title: string;
  matches(result: Result): boolean;
}

export interface ReadmeTable {
  /** What all cells are in: a rate as it is shown, the time of a call, or the bytes that a page downloads. */
  readonly shown: "rate" | "milliseconds" | "kilobytes";
  /** The head of the first column. */
  readonly head: string;
  readonly rows: readonly ReadmeRow[];
}

const product = (title: string, label: string, m: number, n: number, k: number, pair: string): ReadmeRow => ({
  title,
  matches({ suite, parameters: p }) {
    const same = p.label === label && p.m === m && p.n === n && p.k === k;
    return suite === "gemm" && same && p.batch === 1 && p.transposes === pair;
  },
});

const square = (size: number, pair: string, suffix = ""): ReadmeRow =>
  product(`${size} × ${size}${suffix}`, "square", size, size, size, pair);

const quantized = (rows: number, format: string, title: string): ReadmeRow => ({
  title,
  matches: ({ suite, parameters: p }) =>
    suite === "quant" && p.rows === rows && p.size === 4096 && p.format === format && p.kind === undefined,
});

const squares: readonly ReadmeRow[] = [
  ...[256, 512, 1024, 2048].map((size) => square(size, "NN")),
  square(1024, "NT", ", B transposed"),
  square(1024, "TN", ", A transposed"),
];

/** What everybody is compared by, one by one. */
export const everybodyRows = squares;

const formats = [
  ["int4", "4-bit weights"],
  ["int4-int8", "4-bit weights, activations rounded to int8"],
  ["int8", "int8 weights, activations rounded to int8"],
] as const;

const named = (suite: string, name: string, title: string): ReadmeRow => ({
  title,
  matches: (result) => result.suite === suite && result.name === name,
});

const windows = (name: string, title: string): ReadmeRow => named("windows", name, title);

export const readmeTables: readonly ReadmeTable[] = [
  {
    shown: "rate",
    head: "float32 products, GFLOP/s",
    rows: [
      ...squares,
      product("LoRA: X [512×2048] · A [2048×16]", "X·A", 512, 16, 2048, "NN"),
      product("LoRA: U [512×16] · B [16×2048]", "U·B", 512, 2048, 16, "NN"),
      product("LoRA: X · Aᵀ", "X·A", 512, 16, 2048, "NT"),
      product("LoRA: U · Bᵀ", "U·B", 512, 2048, 16, "NT"),
      product("LoRA: gradient of A", "dA", 16, 2048, 512, "TN"),
      product("LoRA: gradient of B", "dB", 2048, 16, 512, "TN"),
    ],
  },
  {
    shown: "milliseconds",
    head: "one row times a 4096 × 4096 weight, ms",
    rows: [
      product("float32 weights", "1 row", 1, 4096, 4096, "NT"),
      ...formats.map(([format, title]) => quantized(1, format, title)),
    ],
  },
  {
    shown: "rate",
    head: "128 rows times a 4096 × 4096 weight, GOP/s",
    rows: [
      product("float32 weights", "128 rows", 128, 4096, 4096, "NT"),
      ...formats.map(([format, title]) => quantized(128, format, title)),
    ],
  },
  {
    shown: "milliseconds",
    head: "images, ms",
    rows: [
      windows("convolution 8x64x56x56 → 64, 3x3", "convolution 3 × 3 of 8 × 64 × 56 × 56 into 64"),
      windows("convolution 8x64x56x56 → 64, 3x3, gradient of the input", "gradient of its input"),
      windows("convolution 8x64x56x56 → 64, 3x3, gradient of the weight", "gradient of its weight"),
      windows("convolution 8x64x56x56 → 128, 1x1", "convolution 1 × 1 of the same into 128"),
      windows("convolution 8x64x56x56 → 64, 3x3, 64 groups", "convolution 3 × 3, channel by channel"),
      windows(
        "convolution 1x3x224x224 → 32, 3x3 stride 2",
        "convolution 3 × 3 of 3 × 224 × 224 into 32, stride 2",
      ),
      windows("max pooling 8x64x112x112, 3x3 stride 2", "largest of 3 × 3, stride 2, of 8 × 64 × 112 × 112"),
      windows("mean pooling 8x64x112x112, 2x2 stride 2", "mean of 2 × 2 of the same"),
    ],
  },
  {
    shown: "milliseconds",
    head: "attention and training, ms",
    rows: [
      named(
        "attention",
        "forward 1024 keys, 12 heads of 64",
        "causal attention, 12 heads of 64, 1024 tokens",
      ),
      named("attention", "forward+backward 1024 keys, 12 heads of 64", "the same with its gradients"),
      named(
        "lora",
        "mlp r8 512 rows 768→2048→768",
        "LoRA MLP block, 512 tokens, 768 → 2048 → 768, rank 8, forward and backward",
      ),
      named("train-step", "lora r8 15M 4x256 tokens", "LoRA training step, LLaMA of 15 M, 4 × 256 tokens"),
      named("train-step", "lora r8 110M 1x256 tokens", "LoRA training step, LLaMA of 110 M, 256 tokens"),
    ],
  },
  {
    shown: "rate",
    head: "LLaMA of 91 M in Q4_0, tokens/s",
    rows: [
      named("generate", "read 91M q4_0 512 tokens", "reading a prompt of 512 tokens"),
      named("generate", "write 91M q4_0 32 after 16 tokens", "writing"),
    ],
  },
  {
    shown: "milliseconds",
    head: "start, ms",
    rows: [named("start", "import, initialise, first product", "import, initialise, first product")],
  },
  {
    shown: "kilobytes",
    head: "download, kB gzipped",
    rows: [named("start", "import, initialise, first product", "script and wasm")],
  },
];

/** Cases that are drawn as bars beside the tables. */
export const chartRows: readonly ReadmeRow[] = [
  square(1024, "NN"),
  quantized(1, "int4-int8", "one row, 4-bit weights"),
  named("lora", "mlp r8 512 rows 768→2048→768", "LoRA MLP block"),
  named("generate", "write 91M q4_0 32 after 16 tokens", "LLaMA of 91 M in Q4_0, writing"),
];
