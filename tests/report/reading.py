"""A report as tests read it."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Checks nesting and keeps rows of tables: table id -> rows -> (texts, exact numbers)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[tuple[list[str], list[float]]]] = {}
        self.numbers: dict[str, float] = {}
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.elements.append((tag, values))
        if tag not in VOID:
            self.open.append((tag, values.get("id")))
        table = self._table
        if tag == "table":
            assert values["id"] not in self.tables
            self.tables[str(values["id"])] = []
        elif tag == "tr" and table is not None:
            self.tables[table].append(([], []))
        elif tag in ("td", "th") and table is not None:
            self.tables[table][-1][0].append("")
        elif tag == "data":
            number = float(str(values["value"]))
            if table is not None:
                self.tables[table][-1][1].append(number)
            else:
                holder = next((name for _, name in reversed(self.open) if name), None)
                if holder:
                    self.numbers.setdefault(holder, number)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        table = self._table
        if tag in ("td", "th") and table is not None:
            cells = self.tables[table][-1][0]
            cells[-1] = " ".join(cells[-1].split())
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        table = self._table
        if table is not None and any(tag in ("td", "th") for tag, _ in self.open):
            self.tables[table][-1][0][-1] += data

    @property
    def _table(self) -> str | None:
        return next((name for tag, name in reversed(self.open) if tag == "table"), None)
