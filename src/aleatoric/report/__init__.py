"""``aleatoric report``: one page on one or several evaluated models, which a reader opens without network.

:mod:`~aleatoric.report.collect` reads the evaluations back, :mod:`~aleatoric.report.sections` says in words, tables and
pictures what they show, :mod:`~aleatoric.report.page` makes one HTML file of it.
"""

from __future__ import annotations

from .collect import Evaluation, read_evaluations
from .content import Picture, Section, Table
from .sections import report_sections

__all__ = ["Evaluation", "Picture", "Section", "Table", "read_evaluations", "report_sections"]
