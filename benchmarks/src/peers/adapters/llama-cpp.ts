// llama.cpp natively, by node-llama-cpp's prebuilt library.

import { type Adapter, unsupported } from "../adapter.js";

interface Sequence {
  evaluate(tokens: readonly number[], options: object): AsyncGenerator<number>;
  evaluateWithMetadata(
    tokens: readonly number[],
    metadata: object,
    options: object,
  ): AsyncGenerator<{ probabilities: Map<number, number> }>;
  evaluateWithoutGeneratingNewTokens(tokens: readonly number[]): Promise<void>;
  clearHistory(): Promise<void>;
}

interface Model {
  createContext(options: object): Promise<{ getSequence(): Sequence; dispose(): Promise<void> }>;
  dispose(): Promise<void>;
}

interface NodeLlamaCpp {
  getLlama(options: object): Promise<{ loadModel(options: object): Promise<Model> }>;
}

const contextSize = 1024;

export const nodeLlamaCpp: Adapter = async (context) => {
  const { getLlama } = (await context.load("node-llama-cpp")) as unknown as NodeLlamaCpp;
  const llama = await getLlama({
    ...{ gpu: false, build: "never", skipDownload: true, logLevel: "error" },
    maxThreads: context.threads,
  });
  return {
    version: await context.version("node-llama-cpp"),
    async prepare(task) {
      if (task.kind !== "generate") return unsupported(task.kind);
      const { file, prompt, tokens, few } = task;
      const model = await llama.loadModel({ modelPath: file });
      const { threads } = context;
      const one = await model.createContext({ contextSize, batchSize: contextSize, threads });
      const sequence = one.getSequence();
      return {
        async run() {
          await sequence.clearHistory();
          if (tokens === 0) return sequence.evaluateWithoutGeneratingNewTokens(prompt);
          let left = tokens;
          for await (const _ of sequence.evaluate(prompt, { temperature: 0 })) if (--left === 0) break;
          if (left > 0) throw new Error(`ended ${left} tokens early`);
        },
        async result() {
          await sequence.clearHistory();
          const wanted = { probabilities: true };
          // Of all tokens, as the model has them.
          const options = { temperature: 1, topK: 0, topP: 1, minP: 0 };
          for await (const one of sequence.evaluateWithMetadata(few, wanted, options)) {
            const { probabilities } = one;
            const values = new Float32Array(Math.max(...probabilities.keys()) + 1);
            for (const [token, probability] of probabilities) values[token] = probability;
            return values;
          }
          throw new Error("gave no probabilities");
        },
        async dispose() {
          await one.dispose();
          await model.dispose();
        },
      };
    },
  };
};
