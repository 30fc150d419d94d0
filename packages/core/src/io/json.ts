// Strict JSON into plain data: config.json, adapter_config.json, indices. Formats whose files may be large and hostile pull their
// values out of a JsonScanner instead, and build nothing before they know it.

import { type JsonOptions, JsonScanner } from "./json-scanner.js";

export { type JsonKind, type JsonOptions, JsonScanner } from "./json-scanner.js";

/** Plain data of JSON; objects have no prototype, so `__proto__` is a key like any other. */
export type JsonValue = null | boolean | number | string | JsonValue[] | JsonObject;

/** An object without a prototype. */
export interface JsonObject {
  [key: string]: JsonValue;
}

export interface ParseJsonOptions extends JsonOptions {
  /** Bytes at most. Default 64 MiB. */
  maxBytes?: number;
  /** Values at most, of any kind; each costs up to a hundred bytes of memory. Default 1 000 000. */
  maxValues?: number;
}

// Numbers with an integral value that are not spelled as integers, by the object or array that holds them.
const spelledOtherwise = new WeakMap<object, Set<string | number>>();

/**
 * The integer at `key` of an object or array that {@link parseJson} made.
 *
 * @returns undefined when nothing is there, or it is not an integer, not spelled as one (`4.0`, `4e0`), or beyond ±(2⁵³ − 1)
 */
export function integerAt(container: JsonObject | JsonValue[], key: string | number): number | undefined {
  const value = (container as JsonObject)[key];
  if (typeof value !== "number" || !Number.isSafeInteger(value)) return undefined;
  return spelledOtherwise.get(container)?.has(key) ? undefined : value + 0; // −0 is 0
}

/**
 * Parses a JSON file into plain data: objects without prototype, arrays, strings, numbers, booleans, null.
 *
 * @param bytes - UTF-8 without byte order mark
 * @throws {FormatError} with file, offset and path of the first fault
 */
export function parseJson(bytes: Uint8Array, options: ParseJsonOptions = {}): JsonValue {
  const { maxBytes = 2 ** 26, maxValues = 1_000_000 } = options;
  const scanner = new JsonScanner(bytes, options);
  if (bytes.length > maxBytes)
    throw scanner.error(`JSON of ${bytes.length} bytes, more than the ${maxBytes} allowed`);
  let values = 0;

  const read = (container: JsonObject | JsonValue[] | null, key: string | number): JsonValue => {
    if (++values > maxValues) throw scanner.error(`JSON has more than ${maxValues} values`);
    switch (scanner.kind()) {
      case "object": {
        const object: JsonObject = Object.create(null);
        scanner.object((name) => {
          object[name] = read(object, name);
        });
        return object;
      }
      case "array": {
        const array: JsonValue[] = [];
        scanner.array((index) => {
          array.push(read(array, index));
        });
        return array;
      }
      case "string":
        return scanner.string();
      case "boolean":
        return scanner.boolean();
      case "null":
        return scanner.null();
      case "number": {
        const { value, integer } = scanner.number();
        if (container && !integer && Number.isSafeInteger(value)) {
          const keys = spelledOtherwise.get(container) ?? new Set();
          spelledOtherwise.set(container, keys.add(key));
        }
        return value;
      }
    }
  };

  const value = read(null, "");
  scanner.end();
  return value;
}
