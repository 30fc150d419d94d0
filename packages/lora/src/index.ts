/** Low-rank adaptation. */
export {};
