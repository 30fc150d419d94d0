// Whatever is done to the adapters of a model, and in whatever order: what counts is which are there, enabled and with which weights.

import { Generator, init, memoryStats, noGrad, type Tensor, tensor } from "@nomoat/core";
import fc from "fast-check";
import { beforeAll, expect, it } from "vitest";
import {
  type Adapter,
  adaptersOf,
  applyLora,
  type LoraConfig,
  merge,
  mergeAndUnload,
  setActiveAdapters,
  unmerge,
} from "../src/index.js";
import { maxDifference, randomize, snapshot, TinyModel, tokens } from "./model.js";

beforeAll(() => init({ backend: "reference" }));

const kinds: readonly Partial<LoraConfig>[] = [
  { r: 2, loraAlpha: 6, targetModules: "all-linear" },
  { r: 3, targetModules: ["q_proj", "embed_tokens"], initLoraWeights: "gaussian" },
  { r: 2, useDora: true, targetModules: ["v_proj", "up_proj"] },
  { r: 1, initLoraWeights: "olora", targetModules: ["o_proj", "down_proj"] },
  { peftType: "LOHA", r: 2, targetModules: ["q_proj", "v_proj"] },
  { peftType: "VERA", r: 2, targetModules: ["down_proj"] },
  { r: 2, targetModules: ["k_proj"], bias: "lora_only" },
  { r: 2, targetModules: ["up_proj"], modulesToSave: ["lm_head"] },
];

const which = fc.nat({ max: 99 });
const action = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant("add" as const), which }) },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constantFrom("remove", "rename", "enable", "disable", "setActive", "merge", "unmerge", "set"),
      which,
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom("merge all", "unmerge all"), which }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom("-1", "0", "0.5", "2"), which }) },
);

it("changes of adapters in any order give the outputs of what is left", () => {
  fc.assert(
    fc.property(fc.array(action, { minLength: 3, maxLength: 14 }), fc.boolean(), (actions, forGood) => {
      const start = memoryStats().tensors;
      const make = () => new TinyModel({ seed: 4, depth: 1 });
      const model = make();
      const ids = tokens();
      const base = snapshot(model);
      /** By adapter: the kind it is of. */
      const there = new Map<Adapter, number>();
      let made = 0;
      const output = (of: TinyModel): Tensor => {
        of.eval();
        return noGrad(() => of.forward(ids));
      };
      /** The same adapters, put on a new model. */
      const check = (of = model) => {
        const fresh = make();
        for (const [adapter, kind] of there) {
          if (!adapter.active) continue;
          const twin = applyLora(fresh, kinds[kind], adapter.name);
          twin.loadStateDict(adapter.stateDict());
          twin.weight = adapter.weight;
        }
        const [got, wanted] = [output(of), output(fresh)];
        expect(maxDifference(got, wanted)).toBeLessThan(1e-9);
        for (const each of [got, wanted, fresh]) each.dispose();
      };
      for (const { do: what, which: number } of actions) {
        const list = [...there.keys()];
        const adapter = list[number % Math.max(1, list.length)];
        const replaces = (one: Adapter) => one.replacesParts && one.active;
        if (what === "add") {
          const kind = number % kinds.length;
          // Of those that replace parts one at a time can take part.
          if (kind >= 6 && list.some((one) => there.get(one) === kind)) continue;
          const added = applyLora(model, kinds[kind], `a${made++}`, { generator: new Generator(made) });
          randomize(added.parameters(), made, 0.5);
          there.set(added, kind);
        } else if (!adapter) continue;
        else if (what === "remove") {
          adapter.remove();
          there.delete(adapter);
          expect(adapter.active).toBe(false);
        } else if (what === "rename") {
          const order = list.map((one) => (one === adapter ? `b${made}` : one.name));
          adapter.rename(`b${made++}`);
          expect([...adaptersOf(model).keys()]).toEqual(order);
        } else if (what === "enable") adapter.enable();
        else if (what === "disable") adapter.disable();
        else if (what === "setActive") {
          if (number % 3 === 0) adapter.setActive();
          else
            setActiveAdapters(
              model,
              list.filter((_, i) => (number >> (i % 6)) & 1).map(({ name }) => name),
            );
        } else if (what === "merge") adapter.merge();
        else if (what === "unmerge") adapter.unmerge();
        else if (what === "merge all") merge(model);
        else if (what === "unmerge all") unmerge(model);
        else if (what === "set") {
          const values = [...adapter.stateDict()].map(([name, one]): [string, Tensor] => [
            name,
            tensor(
              Float64Array.from(one.dataSync() as Float64Array, (x) => -x),
              {
                shape: one.shape,
                dtype: "float64",
              },
            ),
          ]);
          if (adapter.merged)
            expect(() => adapter.loadStateDict(new Map(values))).toThrow("unmerge it first");
          else adapter.loadStateDict(new Map(values));
          for (const [, one] of values) one.dispose();
        } else adapter.weight = Number(what);
        expect(list.filter(replaces).length).toBeLessThanOrEqual(2);
        check();
      }
      if (forGood) {
        const wanted = output(model);
        mergeAndUnload(model);
        const got = output(model);
        expect(maxDifference(got, wanted)).toBeLessThan(1e-9);
        expect([...model.stateDict().keys()]).toEqual([...base.keys()]);
        got.dispose();
        wanted.dispose();
      } else {
        for (const adapter of there.keys()) adapter.remove();
        expect(snapshot(model)).toEqual(base);
      }
      model.dispose();
      ids.dispose();
      expect(memoryStats().tensors).toBe(start);
    }),
    { numRuns: 60 },
  );
});
