// What an adapter keeps and makes on each of its layers in training, by kind: numbers for the memory estimate. It follows the `update` of
// the variants of @nomoat/lora on a base without bias, alone.

import { ArgumentError } from "@nomoat/core";
import type { LinearBase } from "@nomoat/core/nn";
import { adapterShapes, type LoraConfig, type Target } from "@nomoat/lora";

/** Of one layer, in numbers of float32. */
export interface AdapterCost {
  /** Sizes of the trained tensors. */
  readonly trained: readonly number[];
  /** Tensors that are not trained, for as long as the adapter is there. */
  readonly frozen: number;
  /** Kept for backward for each position, besides the layer's input. */
  readonly saved: number;
  /** Likewise, where the layer's input has a gradient; made and let go of where it has none. */
  readonly savedLive: number;
  /** Kept for backward whatever the positions. */
  readonly fixed: number;
  /** Whether the gradients need the layer's input. */
  readonly input: boolean;
  /** Made beside the layer's output while the layer runs, for each position and in all. */
  readonly made: number;
  readonly madeFixed: number;
  /** Temporaries of the layer's backward beyond the gradients of its input and output, for each position and in all. */
  readonly backward: number;
  readonly backwardFixed: number;
}

const size = (shape: readonly number[]): number => shape.reduce((product, extent) => product * extent, 1);
const total = (sizes: Iterable<number>): number => [...sizes].reduce((sum, each) => sum + each, 0);

/** Numbers in a LoKr factor that is made of halves; 0 for one that is stored whole. */
function madeOfHalves(shapes: ReadonlyMap<string, readonly number[]>, name: string): number {
  const [a, b] = [shapes.get(`${name}_a`), shapes.get(`${name}_b`)];
  return a && b ? a[0] * b[1] : 0;
}

function costOf(
  target: Target,
  config: LoraConfig,
  shapes: ReadonlyMap<string, readonly number[]>,
  frozenA: boolean,
): AdapterCost {
  const { inFeatures, outFeatures } = target.layer as LinearBase;
  const { r } = target;
  const trained = Array.from(shapes.values(), size);
  const plain = {
    trained,
    frozen: 0,
    savedLive: 0,
    fixed: 0,
    input: true,
    made: 0,
    madeFixed: 0,
    backward: 0,
    backwardFixed: 0,
  } as const;
  switch (config.peftType) {
    case "ADALORA": // A scaled by the singular values
      return { ...plain, saved: r, fixed: r * inFeatures, backwardFixed: r * inFeatures };
    case "VERA": // u, and the product with B before it is scaled
      return {
        ...plain,
        saved: r + outFeatures,
        fixed: outFeatures,
        input: false,
        made: r + 2 * outFeatures,
      };
    case "IA3": {
      if (shapes.get("ia3_l")?.[0] === 1)
        return { ...plain, saved: 0, made: inFeatures + outFeatures, backward: 2 * inFeatures };
      return {
        ...{ ...plain, saved: outFeatures, fixed: outFeatures, input: false },
        ...{ made: outFeatures, backward: outFeatures },
      };
    }
    case "LOHA": {
      const thin = r * r * (inFeatures + outFeatures);
      const whole = inFeatures * outFeatures;
      // The thin factors' gradients, and one of them times a half before it is summed.
      const summed = r * r * Math.max(inFeatures, outFeatures);
      if (thin < whole) return { ...plain, saved: r * r, fixed: thin, backwardFixed: thin + summed };
      // Both factors and their product, which is let go of before the gradients of all three are there.
      return { ...plain, saved: 0, fixed: 3 * whole, made: 2 * outFeatures, backwardFixed: 2 * whole };
    }
    case "LOKR": {
      const [w1, w2] = ["lokr_w1", "lokr_w2"].map((name) => madeOfHalves(shapes, name));
      const shapeOf = (name: string) =>
        shapes.get(name) ?? [shapes.get(`${name}_a`)![0], shapes.get(`${name}_b`)![1]];
      const half = shapeOf("lokr_w1")[1] * shapeOf("lokr_w2")[0];
      return {
        ...plain,
        saved: half,
        fixed: w1 + w2,
        made: 2 * outFeatures + Math.min(inFeatures, outFeatures),
        backwardFixed: w1 + w2,
      };
    }
    default:
      break;
  }
  const kept = frozenA ? { trained: trained.slice(1), frozen: trained[0], input: false } : {};
  if (config.useDora)
    // the output before it is scaled; squared norms of the weight's rows
    return {
      ...{ ...plain, ...kept, saved: r + outFeatures, fixed: 2 * outFeatures },
      ...{ frozen: (kept.frozen ?? 0) + outFeatures, made: outFeatures, madeFixed: 3 * r * outFeatures },
    };
  const principal =
    typeof config.initLoraWeights === "string" && /^(pissa|olora)/.test(config.initLoraWeights);
  const beginning = principal ? trained[0] + trained[1] : 0;
  const backward = principal ? inFeatures : 0;
  return { ...plain, ...kept, saved: r, frozen: (kept.frozen ?? 0) + beginning, backward };
}

/** The cost with dropout of the input: masks are drawn anew in backward, but where the product with them is an operation of its own. */
function withDropout(cost: AdapterCost, target: Target, config: LoraConfig): AdapterCost {
  if (config.loraDropout === 0) return cost;
  const { inFeatures, outFeatures } = target.layer as LinearBase;
  // The mask stays for the gradient of x.
  if (config.peftType === "VERA")
    return { ...cost, savedLive: inFeatures, made: cost.made + inFeatures, backward: inFeatures };
  // And the dropped input for that of A; the base runs on it too.
  if (config.useDora)
    return {
      ...{ ...cost, saved: cost.saved + inFeatures, savedLive: inFeatures, input: false },
      ...{ made: 6 * outFeatures, backward: 2 * outFeatures + inFeatures },
    };
  return { ...cost, input: true, made: cost.made + 2 * inFeatures, backward: cost.backward + 3 * inFeatures };
}

/**
 * What an adapter of this configuration costs on each target, by name, and in tensors that its layers share.
 * @throws {ArgumentError} for what the estimate does not cover
 */
export function adapterCosts(
  targets: readonly Target[],
  config: LoraConfig,
  frozenA: boolean,
): { layers: Map<string, AdapterCost>; shared: number } {
  const { peftType, bias, modulesToSave, trainableTokenIndices, loraBias } = config;
  if (loraBias || bias !== "none" || modulesToSave?.length || trainableTokenIndices)
    throw new ArgumentError("estimateMemory: trained biases, modules and tokens are not covered");
  if (frozenA && peftType !== "LORA")
    throw new ArgumentError(`estimateMemory: ${peftType} has no A to freeze`);
  const { layers, shared } = adapterShapes(targets, config);
  return {
    layers: new Map(
      targets.map((target) => {
        const shapes = layers.get(target.name) as Map<string, readonly number[]>;
        return [target.name, withDropout(costOf(target, config, shapes, frozenA), target, config)];
      }),
    ),
    shared: total(Array.from(shared.values(), size)),
  };
}
