/** Quantized weights. */
export {};
