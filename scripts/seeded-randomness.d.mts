export const seed: number;
export function reseed(first: number): void;
