"""What a report is made of, before it is a page: sections of words, tables and pictures."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Picture", "Section", "Table"]


class Picture(NamedTuple):
    """A drawing that stands for itself: no file, font or style from elsewhere."""

    svg: str  # a complete <svg> element, its ids unique among all pictures of a report
    alt: str  # for who does not see it, with the main numbers
    caption: str  # what one sees and how to read it


class Table(NamedTuple):
    """Text in cells, and what is said of each."""

    caption: str
    head: list[str]  # a name per column
    rows: list[list[str]]  # the first cell of a row is its name
    marks: list[list[str]]  # as rows: "", "best", or "noise": cannot be told from the best, or from no difference
    notes: list[str]  # definitions and conventions, one a line, to stand under the table
    numbers: bool = True  # False: cells are words, also those that look like a number


class Section(NamedTuple):
    """A part of the page with a title."""

    anchor: str  # its address in the page: letters, digits and hyphens
    title: str
    words: list[str]  # a paragraph each
    tables: list[Table]
    pictures: list[Picture]
