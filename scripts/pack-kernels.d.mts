export function takeApart(module: Uint8Array): { locals: Buffer; code: Buffer };
export function packKernels(module: Uint8Array): { locals: number; code: number; data: string };
