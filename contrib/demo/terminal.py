# SPDX-License-Identifier: MIT
"""What a program draws on a terminal: as much of one as `unshard status --watch` uses."""

import re

# A control sequence, a control character, or a run of text.
TOKEN = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|([\r\n])|([^\x00-\x1f]+)")
PLAIN = ""


class Terminal:
    """A screen of cells, each a character and its style: the numbers of SGR as they were given."""

    def __init__(self, columns, rows):
        self.columns, self.rows = columns, rows
        self.row = self.column = 0
        self.style = PLAIN
        self.cells = [self.blank() for _ in range(rows)]

    def blank(self):
        return [(" ", PLAIN)] * self.columns

    def feed(self, text):
        place = 0
        while place < len(text):
            token = TOKEN.match(text, place)
            if not token:
                raise ValueError(f"a terminal that does not know {text[place:place + 10]!r}")
            place = token.end()
            if token[2]:
                self.control(token[1], token[2])
            elif token[3]:
                self.column = 0
                self.row += token[3] == "\n"
                self.scroll()
            else:
                for character in token[4]:
                    self.put(character)

    def put(self, character):
        if self.column == self.columns:
            self.column, self.row = 0, self.row + 1
            self.scroll()
        self.cells[self.row][self.column] = (character, self.style)
        self.column += 1

    def scroll(self):
        while self.row >= self.rows:
            self.cells = self.cells[1:] + [self.blank()]
            self.row -= 1

    def control(self, parameters, final):
        if final == "m":
            self.style = PLAIN if parameters in ("", "0") else parameters
        elif final == "H":
            self.row = self.column = 0
        elif final == "K":
            self.clear(self.row, self.column)
        elif final == "J":
            self.clear(0 if parameters == "2" else self.row, 0 if parameters == "2" else self.column)
            for row in range(0 if parameters == "2" else self.row + 1, self.rows):
                self.clear(row, 0)
        elif not parameters.startswith("?"):  # the cursor is shown and hidden
            raise ValueError(f"a terminal that does not know CSI {parameters}{final}")

    def clear(self, row, column):
        self.cells[row][column:] = self.blank()[column:]

    def picture(self):
        """Each row as its runs, without the blanks at its ends."""
        return tuple(tuple(runs_of(row)) for row in self.cells)


def runs_of(row):
    """Runs of cells that no two blanks divide: the column of each, and its (text, style) parts."""
    begin = 0
    while begin < len(row):
        end = begin
        while end < len(row) and not blank_at(row, end):
            end += 1
        begin += begin < end and row[begin][0] == " "
        if end > begin:
            yield begin, parts_of(row[begin:end])
        begin = end + 1


def blank_at(row, column):
    """A blank that ends a run: one before another, or before the end of the row."""
    return row[column][0] == " " and (column + 1 >= len(row) or row[column + 1][0] == " ")


def parts_of(cells):
    parts = []
    for character, style in cells:
        if parts and parts[-1][1] == style:
            parts[-1] = (parts[-1][0] + character, style)
        else:
            parts.append((character, style))
    return tuple(parts)
