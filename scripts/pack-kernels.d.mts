export interface PackedBytes {
  readonly size: number;
  readonly data: string;
}

export function edits(from: Buffer, to: Buffer): Buffer;
export function packKernels(modules: { baseline: Buffer; relaxed: Buffer }): {
  baseline: PackedBytes;
  relaxed: PackedBytes;
};
