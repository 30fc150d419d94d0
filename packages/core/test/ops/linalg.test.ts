// Errors of einsum and the products of vectors.

import { expect, test } from "vitest";
import { bmm, dot, einsum, outer, tidy, zeros } from "../../src/index.js";

const fails = (fn: () => unknown, message: string) => expect(() => tidy(() => void fn())).toThrow(message);

test("einsum names the label, the operand and the lengths", () => {
  fails(
    () => einsum("ij,jk->ik", zeros([2, 3]), zeros([4, 2])),
    'einsum: label "j" is 3 long before and 4 in axis 0 of operand 1 [4, 2]',
  );
  fails(() => einsum("ii", zeros([2, 3])), 'label "i" is 2 long before and 3 in axis 1 of operand 0 [2, 3]');
  fails(
    () => einsum("...i,...i", zeros([2, 3]), zeros([4, 3])),
    "an axis of the ellipsis is 2 long before and 4 in axis 0",
  );
  fails(() => einsum("ij->k", zeros([2, 3])), 'einsum: output label "k" of "ij->k" is in no operand');
  fails(() => einsum("ij->ii", zeros([2, 3])), 'output label "i" of "ij->ii" occurs twice');
  fails(() => einsum("ij", zeros([2])), 'einsum: "ij" of "ij" does not label the 1 axes of operand 0 [2]');
  fails(() => einsum("ij,jk", zeros([2, 2])), 'einsum: "ij,jk" has 2 operands, 1 were given');
  for (const bad of ["i->j->k", "i.j", "i1", "...i...", "i-j"])
    fails(() => einsum(bad, zeros([2])), "einsum: ");
});

test("products of vectors check ranks and lengths", () => {
  fails(() => dot(zeros([2]), zeros([3])), "dot: vectors differ in length (2 ≠ 3)");
  fails(() => dot(zeros([2, 2]), zeros([2])), "dot: a must be a vector [n], not [2, 2]");
  fails(() => outer(zeros([2]), zeros([])), "outer: b must be a vector [n], not []");
  fails(() => bmm(zeros([2, 2, 2]), zeros([3, 2, 2])), "bmm: batches differ: [2, 2, 2] and [3, 2, 2]");
});
