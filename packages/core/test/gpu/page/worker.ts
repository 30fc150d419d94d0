// The worker of the page: computes as the page does.

import { wasmReport } from "./wasm.js";

addEventListener("message", async ({ data }: MessageEvent<number>) => {
  try {
    postMessage(await wasmReport(data));
  } catch (error) {
    postMessage({ error: String(error) });
  }
});
