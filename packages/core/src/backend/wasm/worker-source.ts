// What a worker of the pool runs, as source text, and the control block through which it and the caller speak. Text,
// because no way to name a file works in ESM, CJS, bundles and TypeScript sources alike. It must stay plain ES2020
// without imports, and must not rely on names that a minifier changes: it is joined from constants only.

/** 32-bit words of the control block. Words that different threads write stand on cache lines of their own. */
export const control = {
  /** Odd while a job is open; goes up by one when one opens and when it closes. */
  sequence: 0,
  /** Next chunk that nobody has claimed. */
  next: 16,
  /** Number of workers that sleep or are about to. */
  sleepers: 32,
  /** 1 while the caller sleeps until a worker is done. */
  callerWaits: 48,
  /** 1 tells workers to end. */
  stop: 64,
  // The open job; written before `sequence` and constant while it is open.
  /** Workers with a smaller index take part. */
  participants: 65,
  module: 66,
  kernel: 67,
  units: 68,
  grain: 69,
  chunks: 70,
  /** Number of kernel modules, then address and bytes of each. */
  modules: 80,
  /** Argument block: 96 words, then 16 doubles. */
  args: 128,
  /** Words of thread 0, the caller; the other threads' follow at `threadWords` each. */
  threads: 256,
} as const;

/** Words of one thread, relative to its own start. */
export const thread = {
  /** 1 while the thread may be inside the open job. */
  busy: 0,
  scratch: 1,
  /** 1 once the worker's loop runs. */
  ready: 2,
  /** Length of the message of an error that ended the thread's part, 0 when none did. */
  failed: 3,
  /** Counts the chunks that the thread has begun: a sign of life. */
  beat: 4,
  /** The message, a byte a character. */
  message: 16,
} as const;

export const maximumInts = 96;
export const maximumFloats = 16;
/** Bytes of the argument block before its doubles. */
export const intArgumentBytes = 4 * maximumInts;
export const threadWords = 80;
export const messageBytes = (threadWords - thread.message) * 4;
export const maximumModules = 16;
export const maximumThreads = 32;
export const controlBytes = 4 * (control.threads + maximumThreads * threadWords);

/** What the pool hands to a worker when it starts it. */
export interface WorkerData {
  memory: WebAssembly.Memory;
  /** 1 where the kernels may use relaxed SIMD, else 0. */
  relaxed: number;
  /** Byte address of the control block. */
  control: number;
  /** The worker's number, from 1. */
  index: number;
  /** How long to look for the next job before sleeping. */
  spinMicroseconds: number;
}

/**
 * A worker joins a job by raising its `busy` flag and then looking at `sequence` again: either it still sees the job
 * open, or the caller, which closes the job first and looks at the flags then, has not waited for it.
 */
export const workerSource = `"use strict";
(function () {
  function run(data) {
    var memory = data.memory;
    var words = new Int32Array(memory.buffer, data.control, ${controlBytes / 4});
    var me = ${control.threads} + data.index * ${threadWords};
    var args = data.control + ${control.args * 4};
    var modules = [];
    function kernelsOf(id) {
      if (modules[id]) return modules[id];
      var address = words[${control.modules} + 1 + 2 * id] >>> 0;
      var bytes = new Uint8Array(memory.buffer, address, words[${control.modules} + 2 + 2 * id]).slice();
      var module = new WebAssembly.Module(bytes);
      var exports = new WebAssembly.Instance(module, { env: data }).exports;
      modules[id] = WebAssembly.Module.exports(module)
        .filter(function (entry) { return entry.kind === "function"; })
        .map(function (entry) {
          if (exports.table) exports.table.set(exports.table.grow(1), exports[entry.name]);
          return exports[entry.name];
        });
      return modules[id];
    }
    function work() {
      var kernel = kernelsOf(words[${control.module}])[words[${control.kernel}]];
      var units = words[${control.units}], grain = words[${control.grain}], chunks = words[${control.chunks}];
      var scratch = words[me + ${thread.scratch}];
      for (;;) {
        var chunk = Atomics.add(words, ${control.next}, 1);
        if (chunk >= chunks) return;
        words[me + ${thread.beat}]++;
        var begin = chunk * grain;
        kernel(args, begin, Math.min(begin + grain, units), scratch);
      }
    }
    function fail(error) {
      var text = String((error && error.message) || error).slice(0, ${messageBytes});
      var bytes = new Uint8Array(words.buffer, words.byteOffset + 4 * (me + ${thread.message}), ${messageBytes});
      for (var i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i) & 127;
      Atomics.store(words, ${control.next}, 0x40000000);
      Atomics.store(words, me + ${thread.failed}, text.length || 1);
    }
    for (var id = 0; id < words[${control.modules}]; id++) kernelsOf(id);
    Atomics.store(words, me + ${thread.ready}, 1);
    Atomics.notify(words, me + ${thread.ready});
    var last = 0;
    var longest = data.spinMicroseconds / 1000;
    var spin = longest;
    var idleSince = performance.now();
    var looks = 0;
    for (;;) {
      var sequence = Atomics.load(words, ${control.sequence});
      if (sequence !== last) {
        last = sequence;
        if (sequence & 1) {
          if (data.index < words[${control.participants}]) {
            Atomics.store(words, me, 1);
            if (Atomics.load(words, ${control.sequence}) === sequence) {
              try { work(); } catch (error) { fail(error); }
            }
            Atomics.store(words, me, 0);
            if (Atomics.load(words, ${control.callerWaits}) === 1) Atomics.notify(words, me);
          }
          idleSince = performance.now();
        }
        looks = 0;
        continue;
      }
      if (++looks < 64) continue;
      looks = 0;
      if (performance.now() - idleSince < spin) continue;
      if (Atomics.load(words, ${control.stop}) === 1) return;
      Atomics.add(words, ${control.sleepers}, 1);
      Atomics.wait(words, ${control.sequence}, sequence);
      Atomics.sub(words, ${control.sleepers}, 1);
      // Looking on pays where jobs follow soon; where they do not, it takes the processor from others.
      spin = performance.now() - idleSince < 2 * longest ? Math.min(longest, 2 * spin) : Math.max(longest / 16, spin / 2);
      idleSince = performance.now();
    }
  }
  var builtin = typeof process === "object" && process.getBuiltinModule;
  if (builtin) run(builtin("node:worker_threads").workerData);
  else if (typeof require === "function") run(require("node:worker_threads").workerData);
  else self.onmessage = function (event) { run(event.data); self.close(); };
})();
`;
