// One start of a library in a process of its own: import it, make it ready, multiply [[1, 2], [3, 4]] by itself. Prints the seconds
// of that and the product as JSON. Plain JavaScript, so that nothing is compiled on the way.
//
//   node startup.mjs LIBRARY FOLDER [MODEL in base64]
//
// Packages are looked for in FOLDER/node_modules and above.

import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [library, folder, model] = process.argv.slice(2);
const values = [1, 2, 3, 4];

/** The address of a package's entry, found before the clock starts. */
function locate(name, conditions) {
  const require = createRequire(join(folder, "startup.cjs"));
  if (!conditions) return pathToFileURL(require.resolve(name)).href;
  for (let at = folder; ; at = join(at, "..")) {
    try {
      const manifest = require(join(at, "node_modules", name, "package.json"));
      return pathToFileURL(join(at, "node_modules", name, conditions(manifest))).href;
    } catch (error) {
      if (join(at, "..") === at) throw error;
    }
  }
}

const libraries = {
  nomoat() {
    const core = locate("@nomoat/core", () => "dist/index.js");
    return async () => {
      const { init, tensor } = await import(core);
      await init({ threads: 1 });
      const a = tensor(Float32Array.from(values), { shape: [2, 2] });
      return a.matmul(a).dataSync();
    };
  },
  "jax-js"() {
    const jax = locate("@jax-js/jax", () => "dist/index.js");
    return async () => {
      const { init, defaultDevice, numpy } = await import(jax);
      await init("wasm");
      defaultDevice("wasm");
      const a = numpy.array(Float32Array.from(values)).reshape([2, 2]);
      return await numpy.matmul(a.ref, a).data();
    };
  },
  "tfjs-wasm"() {
    const [core, backend] = [locate("@tensorflow/tfjs-core"), locate("@tensorflow/tfjs-backend-wasm")];
    return async () => {
      const tf = (await import(core)).default;
      const { setWasmPaths } = (await import(backend)).default;
      setWasmPaths(join(folder, "node_modules/@tensorflow/tfjs-backend-wasm/dist/"));
      await tf.setBackend("wasm");
      await tf.ready();
      const a = tf.tensor(values, [2, 2]);
      return tf.matMul(a, a).dataSync();
    };
  },
  "onnxruntime-web"() {
    const ort = locate("onnxruntime-web", ({ exports }) => exports["."].node.import);
    const bytes = Buffer.from(model, "base64");
    return async () => {
      const loaded = await import(ort);
      const { env, InferenceSession, Tensor } = loaded.InferenceSession ? loaded : loaded.default;
      env.wasm.numThreads = 1;
      const session = await InferenceSession.create(bytes, { executionProviders: ["wasm"] });
      const a = new Tensor("float32", Float32Array.from(values), [2, 2]);
      return (await session.run({ a, b: a })).y.data;
    };
  },
};

const start = libraries[library]();
const began = performance.now();
const product = await start();
const seconds = (performance.now() - began) / 1000;
process.stdout.write(`${JSON.stringify({ seconds, product: Array.from(product) })}\n`, () => process.exit(0));
