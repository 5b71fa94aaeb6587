"""A report as CSV: a line for each prompt, of numbers and reasons."""

import csv
import io

from app.replay.report import Report

COLUMNS = (
    "line",
    "id",
    "outcome",
    "complexity",
    "confidence",
    "reason",
    "model",
    "cost",
    "baseline_cost",
    "saved",
    "latency_ms",
    "verifier_ms",
    "input_tokens",
    "output_tokens",
    "finish_reason",
)


def sheet(report: Report) -> str:
    """The file's text; without prompts and answers, which the result file has."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for each in report.results:
        writer.writerow(
            (
                each.line,
                _inert(each.name),
                each.outcome,
                each.complexity,
                each.confidence,
                _inert(each.reason),
                _inert(each.model or ""),
                f"{each.cost:f}",
                f"{each.baseline:f}",
                f"{each.saved:f}" if each.answered else "",
                each.latency_ms,
                each.verifier_ms,
                each.input_tokens,
                each.output_tokens,
                each.finish_reason,
            )
        )
    return text.getvalue()


def _inert(text: str) -> str:
    """A spreadsheet computes what begins so (OWASP, CSV injection)."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
