"""Pickles as inert symbols: what a pickle would build, with nothing imported, called or resolved.

`read` turns the tokens that `pickletools` knows into nodes. The functions `as_...` then take one expected thing out of
a node: each follows a fixed path of its own, so that no nesting or sharing in the file makes them run long. Whatever
else a file holds stays a symbol that nobody looks at.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MOST_STEPS = 50_000  # tokens of one pickle: some 800 tensors; a space needs 200
MOST_BYTES = 12 << 20  # of one pickle: its texts can take four times as much memory
LARGEST_INT = 256  # bits
LARGEST_KEY = 60  # bits; hashes of larger ones can be made to collide, and then a dictionary takes quadratic time
NUMBERS = {*("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "b1")}  # dtypes as numpy spells them

Node = Any  # None, bool, int, float, str, bytes, bytearray, list, tuple, dict, Name, Made or Persistent


@dataclass(frozen=True)
class Name:
    """A class or function that the pickle asks for."""

    module: str
    name: str

    def __str__(self) -> str:
        """The dotted name, printable whatever the file says."""
        return ascii(f"{self.module}.{self.name}")[1:-1][:120]


@dataclass(eq=False, repr=False)
class Made:
    """What calling `maker` with `args` would have made, and what would have been set on it afterwards."""

    maker: Node
    args: tuple[Node, ...]
    state: Node = None
    items: dict[Any, Node] = field(default_factory=dict)


@dataclass(eq=False, repr=False)
class Persistent:
    """What lies outside the pickle under this identifier."""

    key: Node


PUSHES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
TOKENS = {
    code.encode("latin-1"): (opcode.name, opcode.arg.reader if opcode.arg is not None else None)
    for code, opcode in pickletools.code2op.items()
}
# Protocol 0 writes numbers and texts as source code; of it only names are still in use.
OLD = {opcode.name for opcode in pickletools.opcodes if opcode.proto == 0 and opcode.arg is not None} - {"GLOBAL"}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read(data: bytes | memoryview, start: int = 0) -> tuple[Node, int]:
    """Return what the pickle at `start` would build, and where it ends; ValueError when it is no sound pickle."""
    stream = io.BytesIO(data[start : start + MOST_BYTES])
    machine = _Machine()
    for step, (opcode, argument) in enumerate(_tokens(stream)):
        if opcode == "STOP":
            return machine.result(), start + stream.tell()
        if step == MOST_STEPS:
            break
        machine.step(opcode, argument)
    raise ValueError(f"a pickle in it has more than {MOST_STEPS} tokens.")


def _tokens(stream: io.BytesIO) -> Iterator[tuple[str, Any]]:
    """Yield name and argument of each token; `pickletools` knows how long they are, and does nothing with them."""
    while token := TOKENS.get(stream.read(1)):
        name, reader = token
        if name in OLD:
            raise ValueError(f"a pickle in it has the token {name}, which no policy needs.")
        try:
            argument = reader(stream) if reader is not None else None
        except ValueError:
            break
        yield name, argument
    raise ValueError(f"a pickle in it is damaged or cut short, or longer than {MOST_BYTES >> 20} MiB.")


def read_whole(data: bytes | memoryview) -> Node:
    """Return what the pickle would build; ValueError when something follows it."""
    node, end = read(data)
    if end != len(data):
        raise ValueError("a pickle in it is followed by something else.")
    return node


class _Machine:
    """The stack and the memo of a pickle of protocols 2 to 5."""

    def __init__(self) -> None:
        self.stack: list[Node] = []
        self.marks: list[int] = []
        self.memo: dict[int, Node] = {}

    def result(self) -> Node:
        """Return the one thing that must be left."""
        node = self.pop()
        if self.stack or self.marks:
            raise ValueError("a pickle in it leaves more than one thing.")
        return node

    def pop(self) -> Node:
        """Take the top, which a mark must not hide."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("a pickle in it takes from an empty stack.")
        return self.stack.pop()

    def top(self) -> Node:
        """Return the top and leave it."""
        node = self.pop()
        self.stack.append(node)
        return node

    def pop_to_mark(self) -> list[Node]:
        """Take everything above the last mark, and the mark."""
        if not self.marks:
            raise ValueError("a pickle in it misses a mark.")
        start = self.marks.pop()
        nodes = self.stack[start:]
        del self.stack[start:]
        return nodes

    def step(self, opcode: str, argument: Any) -> None:
        """Do what one token says, symbolically."""
        push = self.stack.append
        match opcode:
            case _ if opcode in PUSHES:
                if isinstance(argument, int) and argument.bit_length() > LARGEST_INT:
                    raise ValueError("a pickle in it has a number too large to mean anything.")
                push(argument)
            case _ if opcode in CONSTANTS:
                push(CONSTANTS[opcode])
            case "PROTO" | "FRAME":
                pass
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.top()
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.top()
            case "BINGET" | "LONG_BINGET":
                if argument not in self.memo:
                    raise ValueError("a pickle in it fetches what it never stored.")
                push(self.memo[argument])
            case "MARK":
                self.marks.append(len(self.stack))
            case "POP":
                if self.marks and self.marks[-1] == len(self.stack):
                    self.marks.pop()
                else:
                    self.pop()
            case "POP_MARK":
                self.pop_to_mark()
            case "DUP":
                push(self.top())
            case "EMPTY_LIST" | "EMPTY_SET":  # the members of a set are never hashed
                push([])
            case "EMPTY_DICT":
                push({})
            case "LIST":
                push(self.pop_to_mark())
            case "TUPLE" | "FROZENSET":
                push(tuple(self.pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple(reversed([self.pop() for _ in range(TUPLES[opcode])])))
            case "DICT":
                pairs = self.pop_to_mark()
                push({})
                self.set_items(pairs)
            case "APPEND":
                self.extend([self.pop()])
            case "APPENDS" | "ADDITEMS":
                self.extend(self.pop_to_mark())
            case "SETITEM":
                value, key = self.pop(), self.pop()
                self.set_items([key, value])
            case "SETITEMS":
                self.set_items(self.pop_to_mark())
            case "GLOBAL" | "STACK_GLOBAL":
                push(self.name(argument))
            case "REDUCE" | "NEWOBJ":
                args, maker = self.pop(), self.pop()
                push(_made(maker, args))
            case "NEWOBJ_EX":
                keywords, args, maker = self.pop(), self.pop(), self.pop()
                push(_made(maker, args, keywords))
            case "BUILD":
                self.build()
            case "BINPERSID":
                push(Persistent(self.pop()))
            case _:
                raise ValueError(f"a pickle in it has the token {opcode}, which no policy needs.")

    def name(self, argument: str | None) -> Name:
        """Return the name that a token holds, or that lies on the stack."""
        if argument is None:
            name, module = self.pop(), self.pop()
        else:
            module, _, name = argument.partition(" ")
        if not (isinstance(module, str) and isinstance(name, str)):
            raise ValueError("a pickle in it names a class by something that is no text.")
        return Name(module, name)

    def extend(self, nodes: list[Node]) -> None:
        """Put nodes at the end of the list on top; what would extend a made thing is not needed of any."""
        match self.top():
            case list() as target:
                target.extend(nodes)
            case Made():
                pass
            case _:
                raise ValueError("a pickle in it appends to what is no list.")

    def set_items(self, pairs: list[Node]) -> None:
        """Set key, value, key, value ... in the dictionary or the made thing on top."""
        target = self.top()
        items = target.items if isinstance(target, Made) else target
        if not isinstance(items, dict) or len(pairs) % 2:
            raise ValueError("a pickle in it sets items of what is no dictionary.")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # Hashing a tuple of tuples of ... would use up the stack of the interpreter.
            if not isinstance(key, str | int | float | bytes | None):
                raise ValueError("a pickle in it has a dictionary whose keys are no plain values.")
            if isinstance(key, int) and key.bit_length() > LARGEST_KEY or key != key:
                raise ValueError("a pickle in it has a dictionary with a key that is too large, or no number.")
            items[key] = value

    def build(self) -> None:
        """Set the state of the made thing below the top."""
        state = self.pop()
        target = self.top()
        if not isinstance(target, Made) or target.state is not None:
            raise ValueError("a pickle in it sets the state of what has none.")
        target.state = state


def _made(maker: Node, args: Node, keywords: Node = None) -> Made:
    if not isinstance(args, tuple):
        raise ValueError("a pickle in it calls with arguments that are no tuple.")
    return Made(maker, (*args, keywords) if keywords else args)


def is_made_by(node: Node, *makers: Name) -> bool:
    """Say whether calling one of these would have made the node."""
    return isinstance(node, Made) and isinstance(node.maker, Name) and node.maker in makers


def as_state(node: Node) -> dict[str, Node]:
    """Return the attributes of a made thing."""
    state = node.state if isinstance(node, Made) else None
    if isinstance(state, tuple) and len(state) == 2:  # attributes, then those in slots
        state = state[0]
    if not isinstance(state, dict):
        raise ValueError("an object in it has no attributes.")
    return state


BYTES_MAKERS = (Name("_codecs", "encode"), Name("__builtin__", "bytes"), Name("builtins", "bytes"))


def as_bytes(node: Node) -> bytes:
    """Return the bytes; protocol 2 writes them as text in latin-1."""
    if is_made_by(node, *BYTES_MAKERS):
        match node.args:
            case ():
                return b""
            case (str(text), "latin1"):
                try:
                    return text.encode("latin1")
                except UnicodeError:
                    pass
    if not isinstance(node, bytes | bytearray):
        raise ValueError("an array in it has no bytes.")
    return bytes(node)


def as_dtype(node: Node) -> np.dtype:
    """Return the dtype of plain numbers."""
    if is_made_by(node, Name("numpy", "dtype")):
        match (node.args, node.state):
            case ((str(kind), *_), (int(), "<" | ">" | "|" | "=" as order, None, None, None, *_)) if kind in NUMBERS:
                return np.dtype(kind).newbyteorder(order)
    raise ValueError("an array in it holds something other than plain numbers.")


def as_array(node: Node) -> np.ndarray:
    """Return the array, in the byte order of this machine; not to be written to."""
    module_names = ("numpy.core", "numpy._core")
    if is_made_by(node, *(Name(f"{module}.multiarray", "_reconstruct") for module in module_names)):
        match node.state:
            case (int(), tuple() as shape, dtype, bool() as fortran, data):
                return _array(as_bytes(data), as_dtype(dtype), shape, "F" if fortran else "C")
    elif is_made_by(node, *(Name(f"{module}.numeric", "_frombuffer") for module in module_names)):
        match node.args:
            case (data, dtype, tuple() as shape, "C" | "F" as order):
                return _array(as_bytes(data), as_dtype(dtype), shape, order)
    elif is_made_by(node, *(Name(f"{module}.multiarray", "scalar") for module in module_names)):
        match node.args:
            case (dtype, data):
                return _array(as_bytes(data), as_dtype(dtype), (), "C")
    raise ValueError("something in it should be an array and is none.")


def _array(data: bytes, dtype: np.dtype, shape: tuple[Node, ...], order: str) -> np.ndarray:
    if len(shape) > 8 or not all(type(side) is int and 0 <= side < 2**31 for side in shape):
        raise ValueError("an array in it has an impossible shape.")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"an array in it of {shape} {dtype} does not have that many bytes.")
    array = np.frombuffer(data, dtype) if data else np.empty(0, dtype)
    return array.reshape(shape, order=order).astype(dtype.newbyteorder("="), copy=False)


def as_number(node: Node) -> int | float:
    """Return the number, Python's or numpy's; a truth value is none."""
    if isinstance(node, Made):
        array = as_array(node)
        node = array.item() if array.shape == () else None
    if isinstance(node, bool) or not isinstance(node, int | float):
        raise ValueError("something in it should be a number and is none.")
    return node


def as_integers(node: Node) -> list[int]:
    """Return a list or tuple of whole numbers."""
    if isinstance(node, list | tuple) and len(node) <= 100:
        numbers = [as_number(each) for each in node]
        if all(isinstance(number, int) for number in numbers):
            return [int(number) for number in numbers]
    raise ValueError("something in it should be a short list of whole numbers and is none.")
