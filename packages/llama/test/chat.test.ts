// Chat templates: rendering, masking, limits.

import { describe, expect, it } from "vitest";
import { makeRows } from "../src/data/encode.js";
import { applyChatTemplate, type ChatMessage } from "../src/index.js";
import { byteTokenizer } from "./support.js";

/** As ChatML, with a bos. */
const chatml =
  "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}]{{ message.content | trim }}</s>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";

const tokenizer = byteTokenizer({ chat_template: chatml });
const messages: ChatMessage[] = [
  { role: "system", content: "Be brief." },
  { role: "user", content: "2 + 2?" },
  { role: "assistant", content: "4" },
  { role: "user", content: " And 3 + 3?" },
  { role: "assistant", content: "Six." },
];

const render = (template: unknown, list = messages): string =>
  applyChatTemplate(byteTokenizer({ chat_template: template }), list);

describe("applyChatTemplate", () => {
  it("renders, with the tokenizer's own tokens", () => {
    expect(applyChatTemplate(tokenizer, messages.slice(1, 3))).toBe("<s>[user]2 + 2?</s>[assistant]4</s>");
    expect(applyChatTemplate(tokenizer, messages.slice(1, 2), { addGenerationPrompt: true })).toBe(
      "<s>[user]2 + 2?</s>[assistant]",
    );
    const list = [
      { name: "tools", template: "no" },
      { name: "default", template: "{{ messages | length }}" },
    ];
    expect(render(list)).toBe("5");
    expect(render("{% for i in range(2, 8, 3) %}{{ i }} {% endfor %}")).toBe("2 5 ");
    expect(render("{{ strftime_now is defined }}{{ eos_token }}")).toBe("false</s>");
  });

  it("says when there is no template", () => {
    expect(() => applyChatTemplate(byteTokenizer(), messages)).toThrow(/no chat template/);
    expect(() => render([{ name: "tools", template: "x" }])).toThrow(/no chat template/);
  });

  const bomb =
    "{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(40) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}";
  it.each([
    ["malformed", "{% for m in %}", /chat_template: /],
    [
      "a complaint",
      "{{ raise_exception('roles must alternate') }}",
      /refuses the messages: roles must alternate/,
    ],
    ["a long range", "{% for i in range(1000000000) %}{% endfor %}", /range\(\)/],
    ["a range without end", "{{ range(1, 5, 0) }}", /range\(\)/],
    [
      "loops in loops",
      `${"{% for i in range(60000) %}".repeat(3)}x${"{% endfor %}".repeat(3)}`,
      /more than|too much/,
    ],
    ["text that doubles", `${bomb}{{ ns.x }}`, /too much text/],
    ["lists that double", bomb.replace("'aaaaaaaaaaaaaaaa'", "[1, 2]").replace("~", "+"), /list of more/],
    ["a macro that calls itself", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", /chat_template: /],
    ["a template without end", "x".repeat(70_000), /70000 characters/],
    ["white space without end", `a${" ".repeat(5000)}b`, /white space/],
    ["nesting", `${"{{ (".repeat(1)}${"(".repeat(20_000)}1${")".repeat(20_001)} }}`, /chat_template: /],
  ])("refuses %s soon", (_, template, message) => {
    const start = process.cpuUsage();
    expect(() => render(template)).toThrow(
      expect.objectContaining({ code: "FORMAT", message: expect.stringMatching(message) }),
    );
    // Seconds of work, whatever else the machine does; the slowest meets its limit of 2 s on the clock.
    expect(process.cpuUsage(start).user / 1e6).toBeLessThan(10);
  });
});

describe("conversations as rows", () => {
  it("learn what the assistant says, and how it ends", async () => {
    const { rows, packing } = await makeRows([{ messages }], tokenizer, { length: 200 });
    expect(packing).toBe(false);
    const { ids, labels } = rows[0];
    const plain = { skipSpecialTokens: false };
    expect(tokenizer.decode(ids, plain)).toBe(applyChatTemplate(tokenizer, messages));
    const learnt: string[] = [];
    labels.forEach((label, i) => {
      if (label === -100) return;
      expect(label).toBe(ids[i]);
      learnt[learnt.length - (labels[i - 1] === -100 ? 0 : 1)] =
        `${labels[i - 1] === -100 ? "" : learnt.at(-1)}${tokenizer.decode([label], plain)}`;
    });
    expect(learnt).toEqual(["4</s>", "Six.</s>"]);
  });

  it("name the line whose messages the template refuses", async () => {
    const strict = byteTokenizer({
      chat_template: `{% if messages[0].role == 'assistant' %}{{ raise_exception('no') }}{% endif %}${chatml}`,
    });
    const examples = [{ messages }, { messages: messages.slice(2) }];
    await expect(makeRows(examples, strict, { length: 200 })).rejects.toThrow(
      "data[1]: chat_template: refuses the messages: no",
    );
  });

  it("refuse templates that tell the past in another way when more follows", async () => {
    const forgetful = byteTokenizer({
      chat_template:
        "{% for m in messages %}{% if loop.last or m.role != 'assistant' %}{{ m.content }}{% endif %}{% endfor %}",
    });
    await expect(makeRows([{ messages }], forgetful, { length: 200 })).rejects.toThrow(
      /messages\[2\] in another way/,
    );
    await expect(
      makeRows([{ messages: messages.slice(0, 3) }], forgetful, { length: 200 }),
    ).resolves.toBeDefined();
  });
});
