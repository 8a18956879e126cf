"""Prints what `easel doctor` found."""

from collections.abc import Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from easel.cluster.doctor import Finding, Verdict

STYLES = {Verdict.OK: "green", Verdict.NOTE: "yellow", Verdict.BROKEN: "bold red"}


def print_findings(findings: Sequence[Finding], console: Console, all_fine: str) -> None:
    """A line per finding, grouped by area, then one sentence that sums up: `all_fine` if so."""
    for area, group in groupby(findings, key=lambda finding: finding.area):
        console.print(Text(area, "bold"))
        table = Table.grid(padding=(0, 2))
        for finding in group:
            table.add_row(
                f"  {finding.name}", Text(finding.verdict, STYLES[finding.verdict]), _explanation(finding)
            )
        console.print(table)
    broken = sum(finding.verdict is Verdict.BROKEN for finding in findings)
    console.print(f"{broken} thing(s) to mend." if broken else all_fine)


def _explanation(finding: Finding) -> Text:
    text = Text(finding.detail)
    return text.append(f"\n→ {finding.mend}", "italic") if finding.mend else text
