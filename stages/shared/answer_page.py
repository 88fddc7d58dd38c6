"""One self-contained HTML page: how a model scores, then every answer beside its brief and its reference.

No script, no font, no picture, nothing fetched: it opens from a disk, in a pull request's artefacts, in ten years.
"""

from collections.abc import Sequence
from html import escape
from typing import Any

from stages.shared.scoring import parse_object

_ROWS = {
    "json_valid": "is a JSON object",
    "schema_valid": "satisfies the schema",
    "finished": "ended by the model itself",
    "schema_valid_when_finished": "satisfies the schema, of those that ended",
    "field_coverage": "fields of the reference that are there",
    "requirement_coverage": "requirements covered by a criterion",
    "criteria_chrf": "chrF of the criteria, 0 to 100",
    "tokens_per_second": "tokens per second, all slots",
}
_CHIPS = {"finished": "finished", "json_valid": "JSON", "schema_valid": "schema"}
_STYLE = """
:root { color-scheme: light dark; --text: #1d2127; --soft: #5a626e; --page: #f6f7f9; --card: #fff; --line: #dde1e7;
  --good: #0b6b3a; --good-back: #e2f4e9; --bad: #a11a1a; --bad-back: #fbe6e6; --link: #0b57b7 }
@media (prefers-color-scheme: dark) { :root { --text: #e4e7ec; --soft: #a3abb8; --page: #14171b; --card: #1c2026;
  --line: #343a44; --good: #7fd8a4; --good-back: #15331f; --bad: #ff9d9d; --bad-back: #421d1d; --link: #8ab8ff } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.55 system-ui, sans-serif }
main { max-width: 78rem; margin: 0 auto; padding: 2rem 1.25rem 4rem }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem }
h2 { font-size: 1.2rem; margin: 0 0 .75rem }
h3 { font-size: .95rem; margin: 0 0 .4rem; color: var(--soft) }
h2 small { color: var(--soft); font-weight: 400 }
a { color: var(--link) }
p { margin: .3rem 0; max-width: 75ch }
table { border-collapse: collapse; margin: 1rem 0; background: var(--card); border: 1px solid var(--line) }
th, td { padding: .35rem .9rem; border-bottom: 1px solid var(--line); text-align: left; font-weight: 400 }
thead th { font-weight: 600 }
td { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
thead th:not(:first-child) { text-align: right }
td small, .soft { color: var(--soft) }
.scroll { overflow-x: auto }
article { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: 1.1rem 1.25rem;
  margin: 1.5rem 0 }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1.5rem;
  margin-top: 1rem; border-top: 1px solid var(--line); padding-top: 1rem }
.pair > * { min-width: 0 }
dt { font-weight: 600; font-size: .85rem; color: var(--soft); margin-top: .6rem }
dd { margin: 0 }
ul, ol { margin: .2rem 0; padding-left: 1.3rem }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: .85rem/1.45 ui-monospace, monospace; margin: .4rem 0 }
dd, li, p { overflow-wrap: anywhere }
details { margin-bottom: .9rem }
summary { cursor: pointer; padding: .15rem 0; font-weight: 600 }
.chip { display: inline-block; border-radius: 1rem; padding: 0 .6rem; margin-left: .35rem; font-size: .82rem;
  font-weight: 500; white-space: nowrap }
.good { color: var(--good); background: var(--good-back) }
.bad { color: var(--bad); background: var(--bad-back) }
.uncovered { border-left: 3px solid var(--bad); padding: .1rem 0 .1rem .8rem; margin: .5rem 0 }
"""


def answer_page(
    file: str,
    metrics: dict[str, dict[str, float]],
    intervals: dict[str, dict[str, dict[str, float]]],
    answers: dict[str, list[dict[str, Any]]],
) -> str:
    """The page of one GGUF file.

    Args:
        file: the file's name.
        metrics: by mode and metric.
        intervals: by mode and metric: value, low, high, n.
        answers: by mode, one record (`measure.record`) per example, in the same order in every mode.

    """
    modes = list(answers)
    title = escape(f"{file} on {len(answers[modes[0]])} held-out Epics")
    articles = "".join(
        _article(dict(zip(modes, records, strict=True))) for records in zip(*answers.values(), strict=True)
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<header>
<h1>{title}</h1>
<p>Answered in llama.cpp, greedily, by a model that never saw these briefs: once free, once held to the JSON schema
while it wrote. In brackets: 95 % Wilson intervals.</p>
{_table(metrics, intervals)}
<p class="soft">A requirement counts as covered when one acceptance criterion holds half of its content words' stems.
chrF compares letters with one reference among many good ones: it ranks models and says little alone.</p>
</header>
{articles}</main>
</body>
</html>
"""


def _table(metrics: dict[str, dict[str, float]], intervals: dict[str, dict[str, dict[str, float]]]) -> str:
    head = "".join(f'<th scope="col">{escape(mode)}</th>' for mode in metrics)
    body = ""
    for metric, text in _ROWS.items():
        cells = "".join(f"<td>{_value(metrics[mode][metric], intervals[mode].get(metric))}</td>" for mode in metrics)
        body += f'<tr><th scope="row">{text}</th>{cells}</tr>\n'
    table = f'<thead><tr><th scope="col">share of answers</th>{head}</tr></thead>\n<tbody>\n{body}</tbody>'
    return f'<div class="scroll"><table>\n{table}</table></div>'


def _value(value: float, interval: dict[str, float] | None) -> str:
    if interval is None:
        return f"{value:.1f}"
    return f"{value:.2f} <small>[{interval['low']:.2f}, {interval['high']:.2f}]</small>"


def _article(by_mode: dict[str, dict[str, Any]]) -> str:
    """One example: the brief, the reference, and the answer in every mode."""
    first = next(iter(by_mode.values()))
    brief, reference, name = first["input"], first["reference"], escape(first["epic_id"])
    # The first mode stands open: side by side with the reference is what one came to see.
    answers = "".join(_answer(mode, record, index == 0) for index, (mode, record) in enumerate(by_mode.items()))
    return f"""<article id="{name}">
<h2><a href="#{name}">{name}</a> <small lang="es">{escape(str(reference.get("title", "")))}</small></h2>
<section lang="es"><p>{escape(brief["context"])}</p>{_html(brief["requerimientos"], "ol")}</section>
<div class="pair">
<section><h3>Reference</h3><div lang="es">{_html(reference)}</div></section>
<section><h3>Answer</h3>
{answers}</section>
</div>
</article>
"""


def _answer(mode: str, record: dict[str, Any], is_open: bool) -> str:
    scores = record["scores"]
    chips = "".join(_chip(bool(scores[name]), text) for name, text in _CHIPS.items())
    requirements: Sequence[str] = record["input"]["requerimientos"]
    uncovered: Sequence[str] = record["uncovered"]
    chips += _chip(not uncovered, f"{len(requirements) - len(uncovered)}/{len(requirements)} requirements")
    missing = ""
    if uncovered:
        items = "".join(
            f'<li value="{number}">{escape(requirement)}</li>'
            for number, requirement in enumerate(requirements, start=1)
            if requirement in uncovered
        )
        missing = f'<div class="uncovered"><strong>Not covered</strong><ol lang="es">{items}</ol></div>'
    answer = parse_object(record["answer"])
    body = _html(answer) if answer is not None else f"<pre>{escape(record['answer'])}</pre>"
    return (
        f"<details{' open' if is_open else ''}><summary>{escape(mode)} {chips}</summary>"
        f'{missing}<div lang="es">{body}</div></details>\n'
    )


def _chip(good: bool, text: str) -> str:
    # A sign beside the colour: some readers see only one of the two.
    return f'<span class="chip {"good" if good else "bad"}">{"✓" if good else "✗"} {escape(text)}</span>'


def _html(value: Any, list_tag: str = "ul") -> str:
    """Any JSON value, as readers rather than parsers like it."""
    if isinstance(value, dict):
        pairs = "".join(f"<dt>{escape(key)}</dt><dd>{_html(item)}</dd>" for key, item in value.items())
        return f"<dl>{pairs}</dl>"
    if isinstance(value, list):
        return f"<{list_tag}>{''.join(f'<li>{_html(item)}</li>' for item in value)}</{list_tag}>"
    return escape(str(value))
