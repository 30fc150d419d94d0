/** Tensors with automatic differentiation. */
export {};
