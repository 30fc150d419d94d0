// In which order a module's functions pack best: each after the one that it is most alike, so that what it repeats is near.

const gram = 5;

/** Numbers of `functions`, arrays of bytes, in that order, from the first on. */
export function bySimilarity(functions) {
  const alike = sharedPieces(functions);
  const order = [];
  const left = new Set(functions.keys());
  for (let at = 0; left.has(at); ) {
    order.push(at);
    left.delete(at);
    const share = (next) => alike[at][next] / Math.max(functions[at].length, functions[next].length);
    let nearest = 0;
    for (const next of left) if (!left.has(nearest) || share(next) > share(nearest)) nearest = next;
    at = nearest;
  }
  return order;
}

/** How many pieces of `gram` bytes each two of the functions share. */
function sharedPieces(functions) {
  const places = new Map();
  functions.forEach((bytes, number) => {
    for (let i = 0; i + gram <= bytes.length; i++) {
      const piece = String.fromCharCode(...bytes.slice(i, i + gram));
      let counts = places.get(piece);
      if (!counts) places.set(piece, (counts = new Map()));
      counts.set(number, (counts.get(number) ?? 0) + 1);
    }
  });
  const shared = functions.map(() => new Float64Array(functions.length));
  for (const counts of places.values())
    for (const [a, times] of counts)
      for (const [b, others] of counts) shared[a][b] += Math.min(times, others);
  return shared;
}
