"""What training has shown to each module, and which modules keep an item from being put together from it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from eval.composition.graph import Graph, Support, Values


class Coverage:
    """The supports (`Graph.supports`) of training items, module by module.

    An item is composable iff for every module one training item has a support that contains the item's; another item
    may do so for another module (arXiv 2512.10669, theorem 3.1). A support of one tuple is contained in some training
    support iff it is in their union, so a set of tuples answers for it. Larger ones are compared with the largest
    supports seen, one by one: neither their union nor the product of the parents' own supports would be right.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._tuples: defaultdict[str, set[Values]] = defaultdict(set)
        self._largest: defaultdict[str, list[Support]] = defaultdict(list)

    def add(self, supports: Mapping[str, Support]) -> None:
        """Those of a training item."""
        for name, support in supports.items():
            place = self._graph.place(name)
            self._tuples[place] |= support
            if len(support) > 1 and not any(support <= other for other in self._largest[place]):
                self._largest[place] = [each for each in self._largest[place] if not each <= support] + [support]

    def blocked(self, supports: Mapping[str, Support]) -> tuple[str, ...]:
        """The modules that keep an item from being composable, in the graph's order; none for one that is."""
        return tuple(m.name for m in self._graph.modules if not self._covers(m.name, supports[m.name]))

    def _covers(self, name: str, support: Support) -> bool:
        place = self._graph.place(name)
        if len(support) == 1:
            return support <= self._tuples[place]
        return any(support <= other for other in self._largest[place])
