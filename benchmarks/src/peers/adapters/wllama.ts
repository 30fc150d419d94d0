// llama.cpp compiled to wasm: wllama, in a page.

import { type Adapter, unsupported } from "../adapter.js";

interface Wllama {
  loadModel(blobs: Blob[], options: object): Promise<void>;
  samplingInit(options: object): Promise<void>;
  samplingSample(): Promise<{ token: number }>;
  samplingAccept(tokens: readonly number[]): Promise<void>;
  decode(tokens: readonly number[], options: object): Promise<unknown>;
  getLogits(topK: number): Promise<{ token: number; p: number }[]>;
  kvClear(): Promise<void>;
  exit(): Promise<void>;
}

const contextSize = 1024;

export const wllama: Adapter = async (context) => {
  const loaded = await context.load("@wllama/wllama");
  const Constructor = loaded.Wllama as new (paths: object, options: object) => Wllama;
  const paths = Object.fromEntries(
    ["single-thread/wllama.wasm", "multi-thread/wllama.wasm"].map((file) => [
      file,
      new URL(context.place("@wllama/wllama", `esm/${file}`), location.href).href,
    ]),
  );
  return {
    version: await context.version("@wllama/wllama"),
    async prepare(task) {
      if (task.kind !== "generate") return unsupported(task.kind);
      const { file, prompt, tokens, few } = task;
      const one = new Constructor(paths, { suppressNativeLog: true, allowOffline: true });
      const options = { n_ctx: contextSize, n_batch: contextSize, n_threads: context.threads };
      await one.loadModel([await context.blob(file)], options);
      return {
        async run() {
          await one.kvClear();
          await one.samplingInit({ temp: 0 });
          await one.decode(prompt, {});
          for (let i = 0; i < tokens; i++) {
            const { token } = await one.samplingSample();
            await one.samplingAccept([token]);
            if (i < tokens - 1) await one.decode([token], {});
          }
        },
        async result() {
          await one.kvClear();
          await one.samplingInit({ temp: 1 });
          await one.decode(few, {});
          const all = await one.getLogits(-1);
          const values = new Float32Array(all.length);
          for (const { token, p } of all) values[token] = p;
          return values;
        },
        dispose: () => one.exit(),
      };
    },
  };
};
