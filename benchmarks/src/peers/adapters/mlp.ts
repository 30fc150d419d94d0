// The order of the parameters of the "lora-mlp" task, by which its gradients come.

export const mlpProjections = ["gate", "up", "down"] as const;

/** x, then A and B of each projection. */
export const mlpParameters = ["x", ...mlpProjections.flatMap((name) => [`${name}.A`, `${name}.B`])];
