"""A report as a reader finds it: tables, texts, figures, references."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Parses a whole page. A ValueError says where tags are not nested."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.abstract: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        if self.open:
            raise ValueError(f"never closed: {self.open}")

    @property
    def text(self) -> str:
        """Everything that is read, with single spaces."""
        return " ".join(" ".join(self.texts).split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of all elements with this tag."""
        return [attributes for found, attributes in self.elements if found == tag]

    def table(self, *head: str) -> dict[str, list[str]]:
        """Cells of the table whose head begins so, by the first cell of a row."""
        (found,) = [table for table in self.tables if table[0][: len(head)] == list(head)]
        return {row[0]: row[1:] for row in found[1:]}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop()[0] != tag:
            raise ValueError(f"</{tag}> closes nothing at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        tags = [tag for tag, _ in self.open]
        if "style" in tags or "script" in tags:
            return
        words = data.replace("\N{NO-BREAK SPACE}", " ")
        self.texts.append(words)
        if any(attributes.get("class") == "abstract" for _, attributes in self.open):
            self.abstract.append(words)
        if "td" in tags or "th" in tags:
            cells = self.tables[-1][-1]
            cells[-1] = " ".join(f"{cells[-1]} {words}".split())


def figures_of(page: Page) -> list[dict[str, str | None]]:
    """The figures, without the small ones in tables."""
    return [figure for figure in page.of("svg") if figure.get("class") not in ("course", "interval")]


def no_requests(page: Page) -> None:
    """Nothing that a browser loads by itself; what a reader may click on lies beside the page or in it."""
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "poster", "data", "action"):
            target = attributes.get(name) or "#"
            inside = target.startswith(("#", "data:image/png;base64,", "data:text/csv;base64,"))
            beside = tag == "a" and not target.startswith(("/", "data:")) and ":" not in target
            assert inside or beside, (tag, name, target)
