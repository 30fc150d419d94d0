// Compression to LZMA (the algorithm of 7-Zip; I. Pavlov, LZMA specification) with 3 bits of literal context and none of position,
// as a raw stream without header and end mark. packages/core/assembly/unpack undoes it.
//
// The cheapest way through the data is found by dynamic programming over positions, with a few ways to each; what each symbol costs is
// taken from the pass before. Made for modules of some hundred kilobytes: it keeps all matches in memory.

const literalContextBits = 3;
const states = 12;
const shortest = 2;
const longest = 273;
/** Earlier places with the same bytes that are looked at for each position. */
const candidates = 500;
const passes = 4;
/** Ways to each position that are followed. */
const mostArrivals = 3;

// Where each family of probabilities begins in one array.
const isMatch = 0;
const isRep = isMatch + states;
const isRep0 = isRep + states;
const isRep1 = isRep0 + states;
const isRep2 = isRep1 + states;
const isRep0Long = isRep2 + states;
const slots = isRep0Long + states;
const special = slots + 4 * 64;
const align = special + 115;
const lengths = align + 16;
const repLengths = lengths + 2 + 8 + 8 + 256;
const literals = repLengths + 2 + 8 + 8 + 256;
const probabilities = literals + (0x300 << literalContextBits);

const afterLiteral = (state) => (state < 4 ? 0 : state < 10 ? state - 3 : state - 6);
const afterMatch = (state) => (state < 7 ? 7 : 10);
const afterRep = (state) => (state < 7 ? 8 : 11);
const afterShortRep = (state) => (state < 7 ? 9 : 11);

/** Calls `bit(index, value)` for the bits of `value` through a tree, the highest first. */
function tree(bit, base, count, value) {
  let node = 1;
  for (let i = count - 1; i >= 0; i--) {
    const one = (value >>> i) & 1;
    bit(base + node, one);
    node = node * 2 + one;
  }
}

/** The same, the lowest bit first. */
function reverseTree(bit, base, count, value) {
  let node = 1;
  for (let i = 0; i < count; i++) {
    const one = (value >>> i) & 1;
    bit(base + node, one);
    node = node * 2 + one;
  }
}

function literal(bit, data, at, state, rep0) {
  const before = at > 0 ? data[at - 1] : 0;
  const base = literals + 0x300 * (before >>> (8 - literalContextBits));
  const value = data[at];
  let node = 1;
  let matched = state >= 7;
  const like = matched ? data[at - rep0 - 1] : 0;
  for (let i = 7; i >= 0; i--) {
    const one = (value >>> i) & 1;
    if (matched) {
      const expected = (like >>> i) & 1;
      bit(base + ((1 + expected) << 8) + node, one);
      matched = expected === one;
    } else bit(base + node, one);
    node = node * 2 + one;
  }
}

function length(bit, base, value) {
  const rest = value - shortest;
  bit(base, rest < 8 ? 0 : 1);
  if (rest < 8) return tree(bit, base + 2, 3, rest);
  bit(base + 1, rest < 16 ? 0 : 1);
  if (rest < 16) return tree(bit, base + 10, 3, rest - 8);
  tree(bit, base + 18, 8, rest - 16);
}

/** A distance, less one. `direct(value, count)` takes bits that have no probabilities. */
function distance(bit, direct, value, matchLength) {
  const lengthState = Math.min(matchLength - shortest, 3);
  let slot = value;
  let footer = 0;
  if (value >= 4) {
    const high = 31 - Math.clz32(value);
    slot = high * 2 + ((value >>> (high - 1)) & 1);
    footer = high - 1;
  }
  tree(bit, slots + 64 * lengthState, 6, slot);
  if (footer === 0) return;
  const base = ((2 | (slot & 1)) << footer) >>> 0;
  const rest = value - base;
  if (slot < 14) reverseTree(bit, special + base - slot, footer, rest);
  else {
    direct(rest >>> 4, footer - 4);
    reverseTree(bit, align, 4, rest & 15);
  }
}

/** For each position the matches with earlier bytes as [length, distance − 1, …]: longer ones are further away. */
function findMatches(data) {
  const last = new Map();
  const previous = new Int32Array(data.length).fill(-1);
  return Array.from(data, (_, at) => {
    const found = [];
    if (at + 1 >= data.length) return found;
    const key = data[at] | (data[at + 1] << 8);
    let best = 1;
    const limit = Math.min(longest, data.length - at);
    let place = last.get(key) ?? -1;
    for (let tried = 0; place >= 0 && tried < candidates && best < limit; tried++) {
      // A better match has to agree where the best one ends.
      if (data[place + best] === data[at + best]) {
        let same = 0;
        while (same < limit && data[place + same] === data[at + same]) same++;
        if (same > best) {
          best = same;
          found.push(same, at - place - 1);
        }
      }
      place = previous[place];
    }
    previous[at] = last.get(key) ?? -1;
    last.set(key, at);
    return found;
  });
}

/** Costs in bits of zeros and ones from how often each came. */
function pricesOf(counts) {
  const prices = new Float64Array(2 * probabilities);
  for (let i = 0; i < probabilities; i++) {
    const zeros = counts[2 * i] + 0.4;
    const ones = counts[2 * i + 1] + 0.4;
    prices[2 * i] = Math.log2((zeros + ones) / zeros);
    prices[2 * i + 1] = Math.log2((zeros + ones) / ones);
  }
  return prices;
}

/** The cheapest steps through `data`: [length, distance − 1 or −1 − number of an earlier distance, or a literal's NaN]. */
function parse(data, matches, prices) {
  const size = data.length;
  let cost = 0;
  const bit = (index, one) => {
    cost += prices[2 * index + one];
  };
  const direct = (_, count) => {
    cost += count;
  };
  const priced = (fn, ...parameters) => {
    cost = 0;
    fn(bit, ...parameters);
    return cost;
  };
  const lengthPrice = [];
  const repLengthPrice = [];
  for (let n = shortest; n <= longest; n++) {
    lengthPrice[n] = priced(length, lengths, n);
    repLengthPrice[n] = priced(length, repLengths, n);
  }
  const distancePrices = new Map();
  const distancePrice = (value, n) => {
    const key = value * 4 + Math.min(n - shortest, 3);
    let known = distancePrices.get(key);
    if (known === undefined) {
      cost = 0;
      distance(bit, direct, value, n);
      known = cost;
      distancePrices.set(key, known);
    }
    return known;
  };
  // The cheapest arrivals at each place, that differ in what they leave behind: what is dearest so far may save more later.
  const arrivals = Array.from({ length: size + 1 }, () => []);
  arrivals[0].push({ cost: 0, state: 0, reps: [0, 0, 0, 0] });
  for (let at = 0; at < size; at++) {
    const limit = Math.min(longest, size - at);
    const found = matches[at];
    for (const arrival of arrivals[at]) {
      const { state, reps } = arrival;
      const relax = (n, price, how, next, list) =>
        arrive(arrivals[at + n], arrival.cost + price, n, how, next, list, arrival);
      const flag = (index, one) => prices[2 * (index + state) + one];
      relax(
        1,
        flag(isMatch, 0) + priced(literal, data, at, state, reps[0]),
        Number.NaN,
        afterLiteral(state),
        reps,
      );
      const repPrice = flag(isMatch, 1) + flag(isRep, 1);
      for (let k = 0; k < 4; k++) {
        const back = reps[k] + 1;
        if (back > at || reps.indexOf(reps[k]) < k) continue;
        let same = 0;
        while (same < limit && data[at + same] === data[at + same - back]) same++;
        if (k === 0 && same > 0)
          relax(1, repPrice + flag(isRep0, 0) + flag(isRep0Long, 0), -1, afterShortRep(state), reps);
        if (same < shortest) continue;
        const choice =
          k === 0
            ? flag(isRep0, 0) + flag(isRep0Long, 1)
            : flag(isRep0, 1) + (k === 1 ? flag(isRep1, 0) : flag(isRep1, 1) + flag(isRep2, k - 2));
        const list = k === 0 ? reps : [reps[k], ...reps.filter((_, i) => i !== k)];
        for (let n = shortest; n <= same; n++)
          relax(n, repPrice + choice + repLengthPrice[n], -1 - k, afterRep(state), list);
      }
      const matchPrice = flag(isMatch, 1) + flag(isRep, 0);
      for (let i = 0, n = shortest; i < found.length; i += 2) {
        const list = [found[i + 1], reps[0], reps[1], reps[2]];
        for (; n <= found[i]; n++) {
          relax(
            n,
            matchPrice + lengthPrice[n] + distancePrice(found[i + 1], n),
            found[i + 1],
            afterMatch(state),
            list,
          );
        }
      }
    }
  }
  const steps = [];
  for (let arrival = arrivals[size][0]; arrival.from; arrival = arrival.from)
    steps.push([arrival.n, arrival.how]);
  return steps.reverse();
}

/** Adds an arrival to the cheapest, in ascending order, of which no two are alike for the next step. */
function arrive(list, cost, n, how, state, reps, from) {
  if (list.length === mostArrivals && cost >= list[mostArrivals - 1].cost) return;
  const same = list.findIndex((other) => other.reps[0] === reps[0] && other.state < 7 === state < 7);
  if (same >= 0) {
    if (list[same].cost <= cost) return;
    list.splice(same, 1);
  } else if (list.length === mostArrivals) list.pop();
  let place = list.length;
  while (place > 0 && list[place - 1].cost > cost) place--;
  list.splice(place, 0, { cost, n, how, state, reps, from });
}

/** Calls `bit` and `direct` for every bit of the stream that these steps are. */
function walk(data, steps, bit, direct) {
  let state = 0;
  let reps = [0, 0, 0, 0];
  let at = 0;
  for (const [n, how] of steps) {
    const flag = (index, one) => bit(index + state, one);
    if (Number.isNaN(how)) {
      flag(isMatch, 0);
      literal(bit, data, at, state, reps[0]);
      state = afterLiteral(state);
    } else if (how >= 0) {
      flag(isMatch, 1);
      flag(isRep, 0);
      length(bit, lengths, n);
      distance(bit, direct, how, n);
      reps = [how, reps[0], reps[1], reps[2]];
      state = afterMatch(state);
    } else {
      const k = -1 - how;
      flag(isMatch, 1);
      flag(isRep, 1);
      flag(isRep0, k === 0 ? 0 : 1);
      if (k === 0) flag(isRep0Long, n === 1 ? 0 : 1);
      else {
        flag(isRep1, k === 1 ? 0 : 1);
        if (k > 1) flag(isRep2, k - 2);
      }
      if (n > 1) length(bit, repLengths, n);
      reps = [reps[k], ...reps.filter((_, i) => i !== k)];
      state = n === 1 ? afterShortRep(state) : afterRep(state);
    }
    at += n;
  }
}

/** Arithmetic coding with probabilities that adapt: the stream of bits as bytes. */
function encode(data, steps) {
  const bytes = [];
  let low = 0;
  let range = 0xffffffff;
  let cache = 0;
  let pending = 1;
  const shift = () => {
    if (low < 0xff000000 || low > 0xffffffff) {
      const carry = low > 0xffffffff ? 1 : 0;
      for (; pending > 0; pending--) {
        bytes.push((cache + carry) & 255);
        cache = 255;
      }
      cache = Math.floor(low / 2 ** 24) & 255;
    }
    pending++;
    low = (low % 2 ** 24) * 256;
  };
  const normalize = () => {
    while (range < 2 ** 24) {
      range *= 256;
      shift();
    }
  };
  const chances = new Uint16Array(probabilities).fill(1024);
  const bit = (index, one) => {
    const bound = (range >>> 11) * chances[index];
    if (one) {
      low += bound;
      range -= bound;
      chances[index] -= chances[index] >>> 5;
    } else {
      range = bound;
      chances[index] += (2048 - chances[index]) >>> 5;
    }
    normalize();
  };
  const direct = (value, count) => {
    for (let i = count - 1; i >= 0; i--) {
      range = range >>> 1;
      if ((value >>> i) & 1) low += range;
      normalize();
    }
  };
  walk(data, steps, bit, direct);
  for (let i = 0; i < 5; i++) shift();
  return Buffer.from(bytes);
}

/** `data` as a raw LZMA stream; who undoes it has to know its size. */
export function compress(data) {
  if (data.length === 0) return Buffer.alloc(5);
  const matches = findMatches(data);
  let counts = new Float64Array(2 * probabilities);
  let steps;
  for (let pass = 0; pass < passes; pass++) {
    steps = parse(data, matches, pricesOf(counts));
    const next = new Float64Array(2 * probabilities);
    const count = (index, one) => {
      next[2 * index + one]++;
    };
    walk(data, steps, count, () => {});
    counts = next;
  }
  return encode(data, steps);
}
