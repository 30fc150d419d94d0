/** Modules: linear, embedding, normalization. */
export {};
