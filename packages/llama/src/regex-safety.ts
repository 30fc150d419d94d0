// Whether a regular expression out of a file may take exponential time.

/** A group repeated more often than this counts as repeated without end. */
const MANY_TIMES = 16;

/** `(`, `(?:`, `(?=`, `(?<!`, `(?i:`, `(?<name>`: the `?` there is no quantifier. */
const GROUP_START = /\((?:\?(?:<?[=!]|[a-z-]*:|<\w+>|>|[a-z-]+(?=\))))?/iy;
/** One character, escaped or not. */
const CHARACTER = /\\(?:[pPxu]\{[^}]*\}|.)|./sy;
/** A quantifier; the groups are a range's least and greatest count. */
const QUANTIFIER = /[*+?]|\{(\d+)(,?)(\d*)\}/y;

/**
 * Whether a part that is repeated without end can itself match in more than one way. A plain scan: it
 * knows escapes, classes, groups and quantifiers, and takes what it does not know for a character.
 */
export function repeatsRepetition(pattern: string): boolean {
  const groups = [{ varies: false }];
  for (let i = 0; i < pattern.length; ) {
    const char = pattern[i];
    const group = groups[groups.length - 1];
    if (char === "(") {
      groups.push({ varies: false });
      i = endOf(GROUP_START, pattern, i);
      continue;
    }
    i = char === "[" ? endOfClass(pattern, i) : endOf(CHARACTER, pattern, i);
    // A class that is never closed hides all that follows it.
    if (i > pattern.length) return true;
    if (char === "|") group.varies = true;
    if (char === ")" && groups.length > 1) groups.pop();
    let atomVaries = char === ")" && group.varies;
    // Stacked quantifiers (`a{1,3}+`) repeat what is already repeated; `??`, `+?`, `++` and the like do not.
    for (QUANTIFIER.lastIndex = i; ; QUANTIFIER.lastIndex = i) {
      const match = QUANTIFIER.exec(pattern);
      if (!match) break;
      i += match[0].length;
      const [text, least, comma, most] = match;
      const endless = text === "*" || text === "+" || (comma && !most);
      if (atomVaries && (endless || Number(most || least) > MANY_TIMES)) return true;
      if (least === undefined || (comma && least !== most)) atomVaries = true;
      if (least === undefined && /[?+]/.test(pattern[i] ?? "")) i++;
    }
    groups[groups.length - 1].varies ||= atomVaries;
  }
  return false;
}

function endOf(what: RegExp, pattern: string, start: number): number {
  what.lastIndex = start;
  return start + (what.exec(pattern)?.[0].length ?? 1);
}

function endOfClass(pattern: string, start: number): number {
  let depth = 0;
  for (let i = start; i < pattern.length; i++) {
    if (pattern[i] === "\\") i++;
    else if (pattern[i] === "[") depth++;
    else if (pattern[i] === "]" && --depth === 0) return i + 1;
  }
  return Number.POSITIVE_INFINITY;
}
