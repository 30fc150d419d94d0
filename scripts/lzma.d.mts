export function compress(data: Uint8Array): Buffer;
