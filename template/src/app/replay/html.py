"""A report as one HTML file: no script, nothing from elsewhere, light and dark."""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import accumulate

from app.replay import charts
from app.replay.report import Report, complexity_rows, duration, money, share, verdict
from app.replay.results import Result
from app.replay.table import HEAD

OUTCOMES = (
    ("accepted", "draft accepted"),
    ("rejected", "draft rejected"),
    ("direct", "asked directly"),
    ("failed", "failed"),
)
MOST = 500
"""Rejected drafts with their texts; a browser has to show them."""

STYLE = """
:root { color-scheme: light dark; --back: #fff; --card: #f6f7f9; --text: #16191d; --dim: #59616b;
  --edge: #dde1e6; --accepted: #1a8f5a; --rejected: #d9730d; --direct: #3566c9; --failed: #b3261e;
  --empty: #e7eaee; }
@media (prefers-color-scheme: dark) { :root { --back: #111418; --card: #1a1e24; --text: #e8eaed;
  --dim: #a2abb6; --edge: #2d333b; --accepted: #3fb97f; --rejected: #f0964a; --direct: #7ea4f5;
  --failed: #f2837b; --empty: #262c34; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: .2rem 0 .6rem; text-wrap: balance; }
h2 { font-size: 1.1rem; margin: 0 0 .8rem; }
p { margin: .3rem 0; } .dim, small { color: var(--dim); } code { font-size: .92em; }
.note { border-left: 4px solid var(--rejected); padding: .1rem .8rem; margin: 1rem 0; }
section, .tiles > div { background: var(--card); border: 1px solid var(--edge);
  border-radius: 10px; padding: 1.1rem 1.2rem; margin-top: 1rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .8rem;
  margin-top: 1.2rem; } .tiles > div { margin: 0; padding: .8rem 1rem; }
.tiles b { display: block; font-size: 1.5rem; line-height: 1.3; }
.rows { display: grid; grid-template-columns: max-content 1fr max-content; gap: .55rem .9rem;
  align-items: center; } .rows > :nth-child(3n) { text-align: right; }
.rows > * { min-width: 0; } .rows > :nth-child(3n), td, .tiles b
  { font-variant-numeric: tabular-nums; }
svg { display: block; width: 100%; } .bar { height: 1.1rem; background: var(--empty);
  border-radius: 4px; } .line { height: 7rem; overflow: visible; }
.accepted { fill: var(--accepted); } .rejected { fill: var(--rejected); }
.direct { fill: var(--direct); } .failed { fill: var(--failed); } .plain { fill: var(--dim); }
.span { fill: var(--direct); opacity: .45; } .mark { fill: var(--text); }
.line polygon { fill: var(--accepted); opacity: .18; } .line path { stroke: var(--dim); }
.line polyline, .line path { fill: none; vector-effect: non-scaling-stroke; }
.line polyline { stroke: var(--accepted); stroke-width: 2.5; }
.key { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin-top: .8rem; font-size: .9rem;
  color: var(--dim); } .key svg { display: inline-block; width: .8rem; height: .8rem;
  vertical-align: -.08rem; margin-right: .4rem; border-radius: 2px; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; margin-top: 1rem;
  font-size: .92rem; } th, td { text-align: right; padding: .35rem .6rem; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { color: var(--dim); font-weight: 500; } tbody tr { border-top: 1px solid var(--edge); }
tbody tr:last-child { font-weight: 600; }
details { border-top: 1px solid var(--edge); padding: .55rem 0; } summary { cursor: pointer; }
details dl { margin: .6rem 0 .2rem 1.1rem; } dt { color: var(--dim); font-size: .85rem; }
dd { margin: 0 0 .7rem; white-space: pre-wrap; } dd.out { text-decoration: line-through;
  text-decoration-color: var(--rejected); } ul { padding-left: 1.2rem; margin: .3rem 0; }
@media (max-width: 36rem) { .rows { grid-template-columns: 1fr max-content; gap: .15rem .8rem; }
  .rows > :nth-child(3n+2) { grid-column: 1 / -1; grid-row: auto; order: 0; margin-bottom: .5rem; }
  .rows { grid-auto-flow: dense; } main { padding-top: 1.2rem; } h1 { font-size: 1.4rem; } }
@media print { section, .tiles > div { break-inside: avoid; } }
"""


def page(report: Report, *, texts: bool) -> str:
    """The file's text; `texts` shows prompts, drafts and answers where a draft was rejected."""
    parts = [_head(report), _tiles(report)]
    if report.all.answered:
        parts += [_costs(report), _complexities(report), _latencies(report)]
    parts += [_rejected(report, texts=texts), _unanswered(report), _method(report)]
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>Replay of {escape(report.source)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>\n{''.join(parts)}</main></body></html>\n"
    )


def _head(report: Report) -> str:
    note = ""
    if report.simulated:
        note = (
            '<p class="note">The simulator answered. These numbers show what the report looks like,'
            " and nothing about real models.</p>"
        )
    return (
        f'<p class="dim">Replay of {escape(report.source)}</p>'
        f"<h1>{escape(verdict(report))}</h1>"
        f'<p class="dim">Drafter {escape(report.drafter)}, verifier {escape(report.verifier)}.</p>'
        f"{note}\n"
    )


def _tiles(report: Report) -> str:
    whole = report.all
    answered = len(whole.answered)
    thousand = money(whole.saved / answered * 1000) if answered else "-"
    latencies = {each.name: each for each in report.latencies()}
    median = duration(latencies["cascade"].at(0.5)) if answered else "-"
    tiles = (
        (share(whole.saved_share), "of the verifier's price saved"),
        (thousand, "saved with each 1,000 such prompts"),
        (share(whole.acceptance), "of drafts accepted"),
        (median, "until the median answer"),
        (f"{answered} of {report.prompts}", "prompts answered"),
    )
    shown = (f"<div><b>{escape(value)}</b>{escape(name)}</div>" for value, name in tiles)
    return f'<div class="tiles">{"".join(shown)}</div>\n'


def _costs(report: Report) -> str:
    whole = report.all
    wasted = -float(sum(result.saved for result in report.rejected))
    drafts = float(sum(each.cost for each in report.results if each.outcome == "accepted"))
    verified = float(whole.cost) - wasted - drafts
    most = max(float(whole.baseline), float(whole.cost))
    parts = [("accepted", drafts), ("rejected", wasted), ("direct", verified)]
    rows = [
        ("cascade", charts.stacked(parts, most), money(whole.cost)),
        (
            "verifier alone",
            charts.stacked([("plain", float(whole.baseline))], most),
            money(whole.baseline),
        ),
    ]
    saved = [0.0, *accumulate(float(result.saved) for result in whole.answered)]
    key = (
        ("accepted", "accepted drafts"),
        ("rejected", "rejected drafts, paid for in vain"),
        ("direct", "the verifier"),
    )
    return (
        f"<section><h2>What it costs</h2>{_rows(rows)}{_key(key)}"
        '<h2 style="margin-top:1.6rem">Saved, prompt after prompt</h2>'
        f'{charts.line(saved)}<p class="dim">{money(whole.saved)} after {len(saved) - 1}'
        " prompts, in the order of the file.</p></section>\n"
    )


def _complexities(report: Report) -> str:
    groups = report.by_complexity()
    found = [(name, told) for name, told in OUTCOMES if report.all.count(name)]
    most = max(len(group.results) for group in groups)
    rows = [
        (
            group.name,
            charts.stacked([(name, group.count(name)) for name, _ in OUTCOMES], most),
            f"{share(group.acceptance)} accepted" if group.acceptance is not None else "no drafts",
        )
        for group in groups
    ]
    head = "".join(f"<th>{escape(name)}</th>" for name in HEAD)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
        for row in complexity_rows([*groups, report.all])
    )
    return (
        f"<section><h2>Acceptance by complexity</h2>{_rows(rows)}{_key(found)}"
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></section>\n"
    )


def _latencies(report: Report) -> str:
    found = report.latencies()
    most = max(each.at(0.95) for each in found)
    rows = [
        (
            each.name,
            charts.spread(each.at(0.05), each.at(0.5), each.at(0.95), most),
            f"{duration(each.at(0.5))} · {duration(each.at(0.95))}",
        )
        for each in found
    ]
    return (
        f"<section><h2>Latency</h2>{_rows(rows)}"
        '<p class="dim">From the 5th to the 95th percentile, a mark at the median; beside it the'
        " median and the 95th.</p></section>\n"
    )


def _rejected(report: Report, *, texts: bool) -> str:
    if not report.rejected:
        return ""
    reasons = report.reasons()
    rows = [
        (reason, charts.stacked([("rejected", count)], reasons[0][1]), str(count))
        for reason, count in reasons
    ]
    shown = report.rejected[:MOST]
    more = len(report.rejected) - len(shown)
    tail = f"<p>And {more} more, in the result file.</p>" if more else ""
    drafts = "".join(
        _draft(each, texts=texts, opened=place == 0) for place, each in enumerate(shown)
    )
    return (
        f"<section><h2>Why drafts were rejected</h2>{_rows(rows)}</section>"
        f"<section><h2>Rejected drafts</h2>{drafts}{tail}</section>\n"
    )


def _draft(result: Result, *, texts: bool, opened: bool) -> str:
    label = result.prompt if texts else result.name
    title = f"<small>line {result.line}</small> {escape(_short(label))}"
    confidence = "" if result.confidence is None else f"Confidence {result.confidence:.2f}. "
    facts = f"{confidence}The draft cost {money(-result.saved)} and was thrown away."
    told = [("why", escape(result.reason), ""), ("", escape(facts), "")]
    if texts:
        told += [
            ("prompt", escape(result.prompt), ""),
            ("draft", escape(result.draft or "(none came)"), "out"),
            (f"answer of {result.model}", escape(result.answer), ""),
        ]
    body = "".join(
        f'<dt>{escape(name)}</dt><dd class="{kind}">{text}</dd>' for name, text, kind in told
    )
    return f"<details{' open' * opened}><summary>{title}</summary><dl>{body}</dl></details>"


def _unanswered(report: Report) -> str:
    lists = (
        ("Failed; the same command asks them again", [(x.line, x.reason) for x in report.failed]),
        ("Lines that are no prompts", [(each.line, each.why) for each in report.bad]),
    )
    shown = "".join(
        f"<section><h2>{title}</h2><ul>{_items(rows[:MOST])}</ul></section>\n"
        for title, rows in lists
        if rows
    )
    if report.left:
        shown += f"<section><h2>Not asked yet</h2><p>{report.left} prompts.</p></section>\n"
    return shown


def _items(rows: Iterable[tuple[int, str]]) -> str:
    return "".join(f"<li>line {number}: {escape(why)}</li>" for number, why in rows)


def _method(report: Report) -> str:
    return (
        "<section><h2>How it is computed</h2><p>Each prompt went through the cascade as the service"
        " runs it. Costs are the tokens that the upstreams reported, at the prices of"
        f" <code>cascade.toml</code>. What {escape(report.verifier)} alone would have cost is its"
        " own call where it was asked; where a draft was accepted it is an estimate, the draft's"
        " tokens at the verifier's prices. A rejected draft is a loss, and is counted as one."
        " Prompts that failed are in no cost here.</p></section>\n"
    )


def _rows(rows: Sequence[tuple[str, str, str]]) -> str:
    cells = (
        f"<div>{escape(name)}</div><div>{chart}</div><div>{escape(value)}</div>"
        for name, chart, value in rows
    )
    return f'<div class="rows">{"".join(cells)}</div>'


def _key(entries: Iterable[tuple[str, str]]) -> str:
    shown = (
        f"<span>{charts.stacked([(kind, 1)], 1)}{escape(name)}</span>" for kind, name in entries
    )
    return f'<div class="key">{"".join(shown)}</div>'


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 120 else f"{line[:119]}…"
