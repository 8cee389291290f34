"""Which modules compute attention, by what the forward pass shows rather than by their names.

Attention multiplies maps with one another; everything else multiplies a map with weights, or two
maps position by position.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from torch import nn

from aa_plugins.surgery.rows import Names
from aa_plugins.surgery.trace import Call, Operation, Trace

PRODUCTS = ("matmul", "__matmul__", "bmm", "baddbmm", "einsum", "tensordot")
FUNCTIONS = re.compile(r"\w*attention\w*")  # scaled_dot_product_attention, flex_attention, …


class Attentions:
    """The attention of a network: each product of maps, and the module that computes it."""

    def __init__(self, names: Names, trace: Trace) -> None:
        self.modules = {name: module for module, name in names.items()}
        self.trace = trace
        self.products: dict[Call, list[Operation]] = defaultdict(list)
        # Where torch's own module computes the product, the module around it prepares what is
        # multiplied; but what all of the product is computed from is the block's input.
        self.partial: dict[Call, list[Operation]] = defaultdict(list)
        self.derived = _derived(trace)
        for operation in trace.operations:
            if not self._is_product(operation):
                continue
            *around, owner = operation.scope or (None,)
            self.products[owner].append(operation)
            if owner is not None and self._is_torchs_own(owner) and around:
                self.partial[around[-1]].append(operation)

    def served_by(self, values: Iterable[int], scope: Iterable[Call]) -> str | None:
        """The class of the module around a reduction whose queries, keys or values it reduces.

        Args:
            values: what the reduction computes.
            scope: the calls around it, outermost first; the network itself is none.
        """
        for call in reversed([call for call in scope if call.name]):
            if call not in self.products and call not in self.partial:
                continue
            reached = self._reached(values, call)
            whole = any(reached.intersection(op.inputs) for op in self.products.get(call, ()))
            part = any(self._partly(op, reached) for op in self.partial.get(call, ()))
            if whole or part:
                return type(self.modules[call.name]).__name__
        return None

    def _is_product(self, operation: Operation) -> bool:
        if FUNCTIONS.fullmatch(operation.function):
            return True
        maps = [value for value in operation.inputs if value in self.derived]
        return operation.function in PRODUCTS and len(maps) > 1

    def _is_torchs_own(self, call: Call) -> bool:
        return isinstance(self.modules[call.name], nn.MultiheadAttention)

    def _partly(self, product: Operation, reached: set[int]) -> bool:
        maps = self.derived.intersection(product.inputs)
        return bool(maps & reached) and not maps <= reached

    def _reached(self, values: Iterable[int], within: Call) -> set[int]:
        """Everything that is computed from `values` inside one call."""
        reached, queue = set(values), list(values)
        while queue:
            for operation in self.trace.readers.get(queue.pop(), ()):
                if within in operation.scope:
                    new = [value for value in operation.outputs if value not in reached]
                    reached.update(new)
                    queue.extend(new)
        return reached


def _derived(trace: Trace) -> set[int]:
    """What is computed from the network's input; the rest is weights."""
    derived = {value for call in trace.calls.get("", ()) for value in call.inputs}
    for operation in trace.operations:
        if not derived.isdisjoint(operation.inputs):
            derived.update(operation.outputs)
    return derived
