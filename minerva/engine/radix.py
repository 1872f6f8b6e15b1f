"""A radix tree over token ids: the pure data structure under the prefix cache."""

from __future__ import annotations

from collections.abc import Iterator


class Node:
    """`tokens` is the edge from the parent; `depth` counts the tokens from the root to this node's end.

    `holder` is the sequence id that tags the KV cells of the whole path: every leaf has one, inner nodes borrow a
    descendant's. `locks` counts the running sequences whose shared prefix goes through the node.
    """

    __slots__ = ("children", "depth", "holder", "last_used", "locks", "parent", "saved", "tokens")

    def __init__(self, parent: Node | None, tokens: list[int]) -> None:
        self.parent = parent
        self.tokens = tokens
        self.depth: int = (parent.depth if parent else 0) + len(tokens)
        self.children: dict[int, Node] = {}
        self.holder = -1
        self.locks = 0
        self.last_used = 0
        self.saved = False

    @property
    def is_leaf(self) -> bool:
        return not self.children

    def path(self) -> list[int]:
        """All tokens from the root to here."""
        parts = [node.tokens for node in self.upwards()]
        return [token for part in reversed(parts) for token in part]

    def upwards(self) -> Iterator[Node]:
        """This node and its ancestors, the root (which has no tokens) last."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent

    def leaf(self) -> Node:
        """Any leaf below, or the node itself: its holder tags this node's cells."""
        node = self
        while node.children:
            node = next(iter(node.children.values()))
        return node

    def walk(self) -> Iterator[Node]:
        """Every node below, this one not included."""
        stack = list(self.children.values())
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())

    def descend(self, tokens: list[int], limit: int) -> tuple[Node, int]:
        """Goes down along tokens[self.depth:limit]. Gives (node, n): the path agrees with `tokens` up to n, which
        ends inside the node's edge or at its end.
        """
        node, n = self, self.depth
        while n < limit:
            child = node.children.get(tokens[n])
            if child is None:
                break
            node = child
            n += common_prefix(child.tokens, tokens, n, limit)
            if n < child.depth:
                break
        return node, n

    def split(self, at: int) -> Node:
        """Cuts the edge so that a node ends at depth `at`; gives that upper node. This one keeps the lower part."""
        assert self.parent is not None
        cut = len(self.tokens) - (self.depth - at)
        upper = Node(self.parent, self.tokens[:cut])
        upper.locks, upper.last_used = self.locks, self.last_used
        self.parent.children[upper.tokens[0]] = upper
        self.tokens = self.tokens[cut:]
        self.parent = upper
        upper.children[self.tokens[0]] = self
        return upper

    def add(self, tokens: list[int]) -> Node:
        """A new leaf below."""
        child = Node(self, tokens)
        self.children[tokens[0]] = child
        return child

    def drop(self) -> None:
        """Takes a leaf out of the tree."""
        assert self.parent is not None
        del self.parent.children[self.tokens[0]]


def common_prefix(edge: list[int], tokens: list[int], start: int, limit: int) -> int:
    """How many of edge's tokens equal tokens[start:limit], from the front."""
    n = min(len(edge), limit - start)
    if edge[:n] == tokens[start : start + n]:
        return n
    low, high = 0, n  # edge[:low] agrees, edge[:high] does not
    while high - low > 1:
        middle = (low + high) // 2
        if edge[low:middle] == tokens[start + low : start + middle]:
            low = middle
        else:
            high = middle
    return low
