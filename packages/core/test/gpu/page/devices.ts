// What the page's kernels hold on the device, counted at the browser's own calls, and how to lose it.

interface Counted {
  prototype: Record<string, (...args: never[]) => unknown>;
}

const contexts: { getExtension(name: string): { loseContext(): void } | null }[] = [];
const live = new Set<unknown>();

/** Calls `after` with what `method` was called on, was given, and returned. */
function watch(
  owner: unknown,
  method: string,
  after: (self: unknown, args: unknown[], result: unknown) => void,
): void {
  const prototype = (owner as Counted | undefined)?.prototype;
  const original = prototype?.[method];
  if (!prototype || !original) return;
  prototype[method] = function (this: unknown, ...args: never[]) {
    const result = original.apply(this, args);
    after(this, args, result);
    return result;
  };
}

const scope = globalThis as Record<string, unknown>;
for (const canvas of ["HTMLCanvasElement", "OffscreenCanvas"]) {
  watch(scope[canvas], "getContext", (_, __, context) => {
    if (context) contexts.push(context as (typeof contexts)[number]);
  });
}
for (const name of ["WebGLRenderingContext", "WebGL2RenderingContext"]) {
  watch(scope[name], "createTexture", (_, __, texture) => live.add(texture));
  watch(scope[name], "deleteTexture", (_, [texture]) => live.delete(texture));
}
watch(scope.GPUDevice, "createBuffer", (_, __, buffer) => live.add(buffer));
watch(scope.GPUBuffer, "destroy", (buffer) => live.delete(buffer));

/** Textures and buffers that were made and not freed. */
export const liveResources = (): number => live.size;

/** Ends all WebGL contexts, as a reset of the graphics card would. */
export function loseContexts(): void {
  for (const context of contexts.splice(0)) context.getExtension("WEBGL_lose_context")?.loseContext();
}
