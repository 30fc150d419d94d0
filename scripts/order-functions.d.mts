export function bySimilarity(functions: readonly Uint8Array[]): number[];
