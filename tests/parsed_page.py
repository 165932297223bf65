"""A page of HTML, read by a parser."""

from __future__ import annotations

from html.parser import HTMLParser


class Read(HTMLParser):
    """A page as its tags, its text by section, and its tables as rows of cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self.inside = self.table = ""
        self.raw = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.raw = tag in ("script", "style")
        if tag in ("section", "header"):
            self.inside = dict(attrs).get("id") or tag
        elif tag == "table":
            self.table = dict(attrs).get("id") or f"{self.inside} {len(self.tables)}"
            self.tables[self.table] = []
        elif tag == "tr":
            self.tables[self.table].append([])
        elif tag in ("td", "th"):
            self.tables[self.table][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self.raw = False
        if tag == "table":
            self.table = ""

    def handle_data(self, data: str) -> None:
        if self.raw:
            return
        self.sections[self.inside] = self.sections.get(self.inside, "") + data
        if self.table and self.tables[self.table] and self.tables[self.table][-1]:
            self.tables[self.table][-1][-1] += data
