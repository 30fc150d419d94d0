/** LLaMA-family models. */
export {};
