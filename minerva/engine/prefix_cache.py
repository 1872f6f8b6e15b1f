"""Shared prefixes in the KV cache: a radix tree whose leaves hold cells by tagging them with a sequence id.

llama.cpp's unified cells carry a set of sequence ids, so a hit is a tag and not a copy, and a cell is free when its
last tag goes. Slots use the ids 0..n_slots-1; the ids above n_slots, up to 255, are holders: one for each leaf.
After RadixAttention (Zheng et al., SGLang, 2024), at token granularity.
"""

from __future__ import annotations

from typing import Protocol

from minerva.engine.radix import Node
from minerva.engine.ram_tier import RamTier
from minerva.engine.sequence import Sequence
from minerva.errors import EngineError

MAX_IDS = 256
MIN_SAVED = 64
"""Tokens. A shorter path is computed again sooner than it is saved and restored."""

TRIM_STEP = 256
"""A long leaf gives up its end in pieces of at least so many tokens."""


class Memory(Protocol):
    """The KV cache as far as the policy uses it: `minerva._core.Context` is one."""

    def remove(self, seq: int, start: int = 0, stop: int = -1) -> bool: ...
    def copy(self, source: int, target: int, start: int = 0, stop: int = -1) -> None: ...
    def length(self, seq: int) -> int: ...
    def save(self, seq: int) -> bytes: ...
    def restore(self, seq: int, blob: bytes) -> bool: ...


class Sharing(Protocol):
    """What the scheduler asks of a prefix cache. `cells` counts the tokens it holds, `locked_cells` those of them
    under running sequences, `evicted` those it has had to give up.
    """

    cells: int
    locked_cells: int
    evicted: int

    @property
    def ram_bytes(self) -> int: ...
    def peek(self, sequence: Sequence) -> int: ...
    def attach(self, sequence: Sequence, room: int) -> None: ...
    def publish(self, sequence: Sequence) -> None: ...
    def detach(self, sequence: Sequence) -> None: ...
    def evict(self, need: int) -> int: ...
    def check_integrity(self, running: list[Sequence]) -> None: ...


class NoSharing:
    """For memories that cannot cut a sequence anywhere (recurrent, hybrid, split): every prompt is computed."""

    cells = 0
    locked_cells = 0
    evicted = 0
    ram_bytes = 0

    def peek(self, sequence: Sequence) -> int:
        return len(sequence.tokens)

    def attach(self, sequence: Sequence, room: int) -> None: ...
    def publish(self, sequence: Sequence) -> None: ...
    def detach(self, sequence: Sequence) -> None: ...

    def evict(self, need: int) -> int:
        return 0

    def check_integrity(self, running: list[Sequence]) -> None: ...


class PrefixCache:
    """`cells` counts the tokens in the tree, `locked_cells` those of them under running sequences."""

    def __init__(self, memory: Memory, *, n_slots: int, ram: RamTier) -> None:
        self.memory = memory
        self.ram = ram
        self.cells = 0
        self.locked_cells = 0
        self.evicted = 0
        self._roots: dict[str, Node] = {}
        self._free_holders = list(range(MAX_IDS - 1, n_slots, -1))
        self._clock = 0

    @property
    def ram_bytes(self) -> int:
        """Bytes of prefixes kept outside the KV cache."""
        return self.ram.bytes

    def peek(self, sequence: Sequence) -> int:
        """How many tokens `attach` would share from the KV cache, as it is now."""
        return self._root(sequence.namespace).descend(sequence.tokens, len(sequence.tokens) - 1)[1]

    def attach(self, sequence: Sequence, room: int) -> None:
        """Lets a sequence with an empty slot share its longest cached prefix, one token short of all: that one
        yields the first logits. A longer prefix in RAM is brought back when `room` cells can be had for it.
        """
        limit = len(sequence.tokens) - 1
        root = self._root(sequence.namespace)
        if self._restore(sequence, limit, root.descend(sequence.tokens, limit)[1], room):
            self._lock(sequence, root)
            return
        node, n = root.descend(sequence.tokens, limit)
        if n < node.depth:
            node = node.split(n)
        if n:
            self.memory.copy(node.leaf().holder, sequence.slot, 0, n)
        self._lock(sequence, node)
        _found(sequence, n)

    def publish(self, sequence: Sequence) -> None:
        """Puts what a running sequence has computed into the tree. Where others have put the same tokens before,
        the sequence goes on with their cells and its own are freed.
        """
        node, shared, end = sequence.node, sequence.shared, sequence.computed
        assert node is not None
        if end <= shared:
            return
        if node.holder >= 0 and node.is_leaf and node.locks == 1:
            self.memory.copy(sequence.slot, node.holder, shared, end)
            self._grow(node, sequence.tokens[shared:end])
            return
        node, n = node.descend(sequence.tokens, end)
        if n < node.depth:
            node = node.split(n)
        if n > shared:
            self.memory.remove(sequence.slot, shared, n)
            self.memory.copy(node.leaf().holder, sequence.slot, shared, n)
            self._relock(sequence, node)
        if n < end and (holder := self._holder()) >= 0:
            self.memory.copy(sequence.slot, holder, 0, end)
            if node.holder >= 0:  # it was a leaf: its descendant's holder tags its cells from now on
                self._release_holder(node)
            leaf = node.add(sequence.tokens[n:end])
            leaf.holder = holder
            self.cells += end - n
            self._relock(sequence, leaf)

    def detach(self, sequence: Sequence) -> None:
        """The sequence leaves its slot: what it shared may be evicted now."""
        if sequence.node is not None:
            self._unlock(sequence)

    def evict(self, need: int) -> int:
        """Frees cells of the least recently used leaf that no running sequence shares, `need` of them if it has so
        many. Gives how many; 0 when nothing can be freed.
        """
        leaf = self._oldest()
        if leaf is None:
            return 0
        if not leaf.saved and leaf.depth >= MIN_SAVED and self.ram.limit:
            leaf.saved = True
            self.ram.put(self._namespace(leaf), leaf.path(), self.memory.save(leaf.holder))
        take = max(need, TRIM_STEP)
        if take < len(leaf.tokens):
            self.memory.remove(leaf.holder, leaf.depth - take)
            leaf.depth -= take
            del leaf.tokens[-take:]
            self.cells -= take
        else:
            take = self._drop(leaf)
        self.evicted += take
        return take

    def clear(self) -> None:
        """Frees everything that no running sequence shares."""
        while self.evict(1 << 30):
            pass

    def check_integrity(self, running: list[Sequence]) -> None:
        """Raises `EngineError` when cells, locks or holders are not conserved."""
        nodes = [node for root in self._roots.values() for node in root.walk()]
        if sum(len(n.tokens) for n in nodes) != self.cells:
            raise EngineError("the prefix cache has lost count of its cells")
        if sum(len(n.tokens) for n in nodes if n.locks) != self.locked_cells:
            raise EngineError("the prefix cache has lost count of its locked cells")
        locks: dict[int, int] = {}
        for s in running:
            for node in s.node.upwards() if s.node else ():
                locks[id(node)] = locks.get(id(node), 0) + 1
        for node in nodes:
            if node.locks != locks.get(id(node), 0):
                raise EngineError(f"a node at depth {node.depth} has {node.locks} locks, not {locks.get(id(node), 0)}")
            if node.is_leaf != (node.holder >= 0):
                raise EngineError(f"a node at depth {node.depth} has holder {node.holder}")
            if node.is_leaf and self.memory.length(node.holder) != node.depth:
                raise EngineError(f"holder {node.holder} does not hold the {node.depth} tokens of its path")
        held = sorted([n.holder for n in nodes if n.holder >= 0] + self._free_holders)
        if len(set(held)) != len(held):
            raise EngineError("a holder id is in use twice")

    def _restore(self, sequence: Sequence, limit: int, cached: int, room: int) -> bool:
        found = self.ram.find(sequence.namespace, sequence.tokens, limit)
        if found is None or found.length < cached + MIN_SAVED or len(found.tokens) > room:
            return False
        free = room - (self.cells - self.locked_cells)
        while free < len(found.tokens) and (freed := self.evict(len(found.tokens) - free)):
            free += freed
        if not self.memory.restore(sequence.slot, found.blob):
            self.memory.remove(sequence.slot)
            return False
        self.memory.remove(sequence.slot, found.length)
        _found(sequence, found.length)
        return True

    def _root(self, namespace: str) -> Node:
        root = self._roots.get(namespace)
        if root is None:
            root = self._roots[namespace] = Node(None, [])
        return root

    def _namespace(self, node: Node) -> str:
        *_, root = node.upwards()
        return next(name for name, known in self._roots.items() if known is root)

    def _grow(self, leaf: Node, tokens: list[int]) -> None:
        leaf.tokens += tokens
        leaf.depth += len(tokens)
        leaf.saved = False
        self._clock += 1
        leaf.last_used = self._clock
        self.cells += len(tokens)
        self.locked_cells += len(tokens)

    def _lock(self, sequence: Sequence, node: Node) -> None:
        self._clock += 1
        for above in node.upwards():
            if not above.locks:
                self.locked_cells += len(above.tokens)
            above.locks += 1
            above.last_used = self._clock
        sequence.node = node

    def _unlock(self, sequence: Sequence) -> None:
        assert sequence.node is not None
        for above in sequence.node.upwards():
            above.locks -= 1
            if not above.locks:
                self.locked_cells -= len(above.tokens)
        sequence.node = None

    def _relock(self, sequence: Sequence, node: Node) -> None:
        self._unlock(sequence)
        self._lock(sequence, node)

    def _holder(self) -> int:
        while not self._free_holders:
            leaf = self._oldest()
            if leaf is None:
                return -1
            self._drop(leaf)  # which frees its id unless the parent becomes a leaf and takes it over
        return self._free_holders.pop()

    def _release_holder(self, node: Node) -> None:
        self.memory.remove(node.holder)
        self._free_holders.append(node.holder)
        node.holder = -1

    def _oldest(self) -> Node | None:
        leaves = (n for root in self._roots.values() for n in root.walk() if n.is_leaf and not n.locks)
        return min(leaves, key=lambda n: n.last_used, default=None)

    def _drop(self, leaf: Node) -> int:
        parent = leaf.parent
        assert parent is not None
        freed = len(leaf.tokens)
        leaf.drop()
        self.cells -= freed
        if parent.is_leaf and parent.parent is not None:
            parent.holder = leaf.holder
            self.memory.remove(leaf.holder, parent.depth)
        else:
            self._release_holder(leaf)
        return freed


def _found(sequence: Sequence, n: int) -> None:
    """The first n tokens need no computing. What a sequence finds of its own work when it comes back from waiting was
    not cached for it: `cached` is what it found at first.
    """
    sequence.computed = n
    if sequence.admitted is None:
        sequence.cached = n
