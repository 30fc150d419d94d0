// Cases of einsum and the other products.

import * as ops from "../../../src/index.js";
import { nonzero, normal, type OpCase, op } from "../../support/check-op.js";

const einsum =
  (equation: string) =>
  (...operands: ops.Tensor[]) =>
    ops.einsum(equation, ...operands);

export const linalgCases: OpCase[] = [
  op("dot", ops.dot, [normal(4), nonzero(4)]),
  op("dot of nothing", ops.dot, [normal(0), normal(0)]),
  op("outer", ops.outer, [normal(3), normal(2)]),
  op("bmm", ops.bmm, [normal(2, 3, 4), normal(2, 4, 2)]),
  op("einsum", einsum("bij,bjk->bik"), [normal(2, 3, 4), normal(2, 4, 2)]),
  op("einsum, one operand", einsum("ijk->kj"), [normal(2, 3, 4)]),
  op("einsum, diagonal", einsum("ii->i"), [normal(3, 3)]),
  op("einsum, trace times vector", einsum("iij,j"), [normal(2, 2, 3), normal(3)]),
  op("einsum, ellipsis", einsum("...ij,kj->...ik"), [normal(2, 1, 3, 2), normal(2, 2)]),
  op("einsum, three operands", einsum("ab,bc,cd->ad"), [normal(2, 3), normal(3, 2), normal(2, 2)]),
  op("einsum, length 1 broadcast", einsum("ij,ij->ij"), [normal(2, 1), normal(2, 3)]),
  op("einsum of nothing", einsum("ij,jk->ik"), [normal(2, 0), normal(0, 3)]),
  op("einsum of one tensor twice", (x) => ops.einsum("ij,kj->ik", x, x), [normal(2, 3)]),
];
