// Changes that last as long as a function runs.

/** Runs `fn`, then `restore`: at once, after its error, or when the promise that it returned is settled. */
export function runThenRestore<T>(fn: () => T, restore: () => void): T {
  let result: T;
  try {
    result = fn();
  } catch (error) {
    restore();
    throw error;
  }
  if (result instanceof Promise) return result.finally(restore) as T;
  restore();
  return result;
}
