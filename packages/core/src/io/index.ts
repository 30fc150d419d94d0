// @nomoat/core/io: what readers and writers of files are made of. Sources of bytes, a reader that checks every access, strict
// JSON, files that are replaced whole or not at all. For packages and programs with formats of their own.

export { writeFileAtomic, writeFilesAtomic } from "./atomic.js";
export { integerAt, type JsonObject, JsonScanner, type JsonValue, parseJson } from "./json.js";
export { Reader, readPrefix } from "./reader.js";
export { openSource, type Source, type SourceLike } from "./source.js";
