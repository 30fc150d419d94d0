// A server of files for this machine alone, with the headers that let a page share memory between threads.

import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join, normalize, sep } from "node:path";
import { BenchError } from "../model.js";

const types: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".css": "text/css",
  ".json": "application/json",
  ".wasm": "application/wasm",
};

function send(response: ServerResponse, path: string): void {
  response.setHeader("Content-Type", types[extname(path)] ?? "application/octet-stream");
  response.setHeader("Content-Length", statSync(path).size);
  createReadStream(path)
    .on("error", () => response.destroy())
    .pipe(response);
}

/** A file within a folder; null where it is not there, or not within. */
function within(folder: string, path: string): string | null {
  const file = normalize(join(folder, path));
  if (!file.startsWith(folder.endsWith(sep) ? folder : folder + sep)) return null;
  return existsSync(file) && statSync(file).isFile() ? file : null;
}

export interface FileServer {
  readonly address: string;
  /** Lets the page read a file, or the files of a folder, from the address that is returned. */
  share(path: string): string;
  close(): Promise<void>;
}

/** @throws {BenchError} when the port is taken */
export async function serve(folder: string, port = 0): Promise<FileServer> {
  const shared: string[] = [];
  const server: Server = createServer((request, response) => {
    response.setHeader("Cross-Origin-Opener-Policy", "same-origin");
    response.setHeader("Cross-Origin-Embedder-Policy", "require-corp");
    response.setHeader("Cross-Origin-Resource-Policy", "same-origin");
    response.setHeader("Cache-Control", "no-store");
    const path = decodeURIComponent(new URL(request.url ?? "/", "http://localhost").pathname);
    const [, number, rest] = /^\/shared\/(\d+)\/?(.*)$/.exec(path) ?? [];
    let file: string | null;
    if (number === undefined) file = within(folder, path === "/" ? "index.html" : path);
    else {
      const place = shared[Number(number)];
      file = !place ? null : rest ? within(place, rest) : statSync(place).isFile() ? place : null;
    }
    if (file && (request.method === "GET" || request.method === "HEAD")) send(response, file);
    else {
      response.statusCode = 404;
      response.end();
    }
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) =>
      reject(new BenchError(`cannot serve on port ${port} (${error.code ?? error.message})`)),
    );
    server.listen(port, "127.0.0.1", resolve);
  });
  return {
    address: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    share(path) {
      const known = shared.indexOf(path);
      return `/shared/${known >= 0 ? known : shared.push(path) - 1}`;
    },
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
