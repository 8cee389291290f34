"""What one forward pass does: which modules run, and who reads which tensor.

The pass runs on fake tensors over a structural copy, so it computes nothing, allocates nothing
and leaves no trace in the network (several timm models cache what they see in eval mode).
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules import module as module_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

Shape = tuple[int, ...]


@dataclass(eq=False)
class Call:
    """One call of a module: values are numbers given to tensors in the order they appear.

    `numbers` are the integers that it got beside tensors, as a size (H, W) of tokens.
    """

    name: str
    inputs: tuple[int, ...]
    input_shapes: tuple[Shape, ...]
    numbers: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    output_shapes: tuple[Shape, ...] = ()


@dataclass(eq=False)
class Operation:
    """One call of a torch function, and the module calls around it, outermost first.

    `arguments` are what it got by position and by name, None in place of every tensor.
    """

    function: str
    scope: tuple[Call, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_shapes: tuple[Shape, ...]
    output_shapes: tuple[Shape, ...]
    arguments: tuple[tuple[Any, ...], dict[str, Any]]


@dataclass
class Trace:
    """All that `antialias` has to know about the forward pass of a network."""

    calls: dict[str, list[Call]] = field(default_factory=lambda: defaultdict(list))
    operations: list[Operation] = field(default_factory=list)
    readers: dict[int, list[Operation]] = field(default_factory=lambda: defaultdict(list))
    results: set[int] = field(default_factory=set)

    def why_not_once(self, name: str) -> str | None:
        """None for a module that runs exactly once, else what happens instead."""
        times = len(self.calls.get(name, ()))
        if times == 0:
            return "the forward pass doesn't reach it"
        if times > 1:
            return f"runs {times} times in a forward pass: one filter can't serve several maps"
        return None

    def sole_readers(self, value: int) -> list[Call]:
        """Module calls, outermost first, that take `value` and inside which all reading happens."""
        operations = self.readers.get(value, ())
        if not operations or value in self.results:
            return []
        return [
            call
            for call in operations[0].scope
            if value in call.inputs and all(call in operation.scope for operation in operations)
        ]


def trace_forward(model: nn.Module, example: torch.Tensor) -> Trace:
    """Run `model` on fake tensors in eval mode and record what happens.

    Args:
        model: stays as it is.
        example: (N, C, H, W); only its shape, dtype and device are used.
    """
    tensors = [*model.parameters(), *model.buffers()]
    twin = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    twin.eval()  # not chained: a network whose train() returns nothing is traced too
    recorder = _Recorder({module: name for name, module in twin.named_modules()})
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        fake = stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        for enter in recorder.hooks():
            stack.callback(enter().remove)
        stack.enter_context(recorder)
        twin(fake.from_tensor(example))
    return recorder.trace


class _Recorder(TorchFunctionMode):
    """Numbers tensors, notes module calls by hooks and functions by the torch-function mode."""

    def __init__(self, names: dict[nn.Module, str]) -> None:
        super().__init__()
        self.names = names
        self.trace = Trace()
        self.scope: list[Call] = []
        self.values: dict[int, int] = {}
        self.alive: list[torch.Tensor] = []  # or an id would be given twice

    def hooks(self) -> Iterator[Callable[[], Any]]:
        yield lambda: module_hooks.register_module_forward_pre_hook(self.enter)
        yield lambda: module_hooks.register_module_forward_hook(self.leave)

    def enter(self, module: nn.Module, args: Any) -> None:
        if module not in self.names:
            return
        tensors = _tensors(args)
        values = tuple(self.value(t) for t in tensors)
        numbers = tuple(leaf for leaf in tree_leaves(args) if type(leaf) is int)
        self.scope.append(Call(self.names[module], values, _shapes(tensors), numbers))
        self.trace.calls[self.names[module]].append(self.scope[-1])

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if module not in self.names:
            return
        call, tensors = self.scope.pop(), _tensors(output)
        call.outputs = tuple(self.value(t) for t in tensors)
        call.output_shapes = _shapes(tensors)
        if not self.scope:
            self.trace.results.update(call.outputs)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        inputs = _tensors((args, kwargs))
        read = tuple(self.value(t) for t in inputs)
        output = func(*args, **kwargs)
        outputs = _tensors(output)
        if not outputs:
            return output
        operation = Operation(
            getattr(func, "__name__", ""),
            tuple(self.scope),
            read,
            # In-place functions return what they read: a new value, too.
            tuple(self.value(tensor, new=True) for tensor in outputs),
            _shapes(inputs),
            _shapes(outputs),
            tree_map(lambda leaf: None if isinstance(leaf, torch.Tensor) else leaf, (args, kwargs)),
        )
        self.trace.operations.append(operation)
        for value in read:
            self.trace.readers[value].append(operation)
        return output

    def value(self, tensor: torch.Tensor, new: bool = False) -> int:
        if new or id(tensor) not in self.values:
            self.alive.append(tensor)
            self.values[id(tensor)] = len(self.alive)
        return self.values[id(tensor)]


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _shapes(tensors: list[torch.Tensor]) -> tuple[Shape, ...]:
    return tuple(tuple(tensor.shape) for tensor in tensors)
