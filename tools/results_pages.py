"""Write the tables of the documentation from the CSV files in docs/results.

    python tools/results_pages.py            # rewrite every table that differs from its CSV file
    python tools/results_pages.py --check    # change nothing; exit code 1 if a table differs

A page says where a table belongs, and which rows and columns of its file it shows:

    <!-- table robustness-curves.csv; where eps = 1/255 | 4/255; columns set | PGD | Worst case -->
    <!-- end -->

``where`` and ``columns`` are optional, ``where`` may be repeated. Rows and columns keep the order of the file; a column
that ``where`` holds to one value is left out. The cells of the files are text, written as they are printed.
"""

from __future__ import annotations

import csv
import re
import sys
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
MARK = re.compile(r"<!-- table (?P<spec>[^\n]*?) -->\n(?P<body>.*?)<!-- end -->", re.DOTALL)


@dataclass(frozen=True)
class Table:
    """Rows and columns of one CSV file that a page shows."""

    file: str
    where: tuple[tuple[str, frozenset[str]], ...]
    columns: tuple[str, ...]

    @classmethod
    def parse(cls, spec: str) -> Table:
        file, *parts = (part.strip() for part in spec.split(";"))
        where, columns = [], ()
        for part in parts:
            word, _, rest = part.partition(" ")
            if word == "where":
                column, _, values = rest.partition(" = ")
                where.append((column.strip(), frozenset(value.strip() for value in values.split(" | "))))
            elif word == "columns":
                columns = tuple(column.strip() for column in rest.split(" | "))
            else:
                raise ValueError(f"{spec!r}: a part begins with 'where' or 'columns', not {word!r}")
        return cls(file, tuple(where), columns)

    def markdown(self, folder: Path) -> str:
        """The table; raises ValueError where the file has no such column or row."""
        with (folder / self.file).open(newline="") as stream:
            header, *rows = csv.reader(stream)
        unknown = {*self.columns, *(column for column, _ in self.where)} - set(header)
        if unknown:
            raise ValueError(f"{self.file} has no column {', '.join(sorted(unknown))}; it has {', '.join(header)}")
        for column, values in self.where:
            index = header.index(column)
            missing = values - {row[index] for row in rows}
            if missing:
                raise ValueError(f"{self.file}: no row has {column} = {', '.join(sorted(missing))}")
            rows = [row for row in rows if row[index] in values]
        fixed = {column for column, values in self.where if len(values) == 1}
        kept = [header.index(column) for column in self.columns or [name for name in header if name not in fixed]]
        lines = [
            [header[index] for index in kept],
            ["---"] * len(kept),
            *([row[index] for index in kept] for row in rows),
        ]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def render(text: str, folder: Path = DOCS / "results") -> str:
    """A page with all its tables written anew."""

    def table(match: re.Match[str]) -> str:
        return f"<!-- table {match['spec']} -->\n{Table.parse(match['spec']).markdown(folder)}<!-- end -->"

    return MARK.sub(table, text)


def main(arguments: list[str]) -> int:
    if set(arguments) - {"--check"}:
        print(__doc__)
        return 2
    stale = 0
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text()
        new = render(text)
        if new != text:
            stale += 1
            print(f"{page.relative_to(DOCS.parent)}: {'out of date' if '--check' in arguments else 'written'}")
            if "--check" not in arguments:
                page.write_text(new)
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
