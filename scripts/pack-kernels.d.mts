export function packKernels(modules: { baseline: Buffer; relaxed: Buffer }): {
  baseline: number;
  relaxed: number;
  data: string;
};
