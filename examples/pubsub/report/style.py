"""How the page looks: quiet, in the reader's own font, on white or on black."""

from __future__ import annotations

from typing import Final

from examples.pubsub.report.colours import COLOURS

__all__ = ["STYLE"]

_LIGHT: Final = " ".join(f"--{colour.name}: {colour.light};" for colour in COLOURS)
_DARK: Final = " ".join(f"--{colour.name}: {colour.dark};" for colour in COLOURS)

STYLE: Final = f"""
:root {{
  color-scheme: light dark;
  {_LIGHT}
  --page: #f6f7f9; --card: #ffffff;
}}
@media (prefers-color-scheme: dark) {{
  :root {{
    {_DARK}
    --page: #12161b; --card: #1a2027;
  }}
}}
* {{ box-sizing: border-box; }}
body {{
  margin: 0 auto; max-width: 76rem; padding: 3rem 1.5rem 4rem;
  background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}}
header {{ border-left: 4px solid var(--tone); padding-left: 1.25rem; margin-bottom: 2.5rem; }}
header.good {{ --tone: var(--green); }}
header.bad {{ --tone: var(--vermillion); }}
header.open {{ --tone: var(--muted); }}
header .kind {{ color: var(--muted); font-size: .875rem; margin: 0; }}
h1 {{ font-size: 2.25rem; line-height: 1.15; letter-spacing: -.02em; margin: .25rem 0 .5rem; }}
h2 {{ font-size: 1.25rem; letter-spacing: -.01em; margin: 3rem 0 1rem; }}
h3 {{ font-size: 1rem; margin: 0; }}
p {{ max-width: 44rem; margin: .25rem 0; }}
.warning {{ color: var(--vermillion); font-weight: 600; }}
.note {{ color: var(--muted); font-size: .875rem; }}
.cards {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1rem; }}
.card, figure, .table {{
  background: var(--card); border: 1px solid var(--grid); border-radius: .625rem;
}}
.card {{ padding: 1rem 1.25rem; }}
.card dt {{ color: var(--muted); font-size: .875rem; }}
.card dd {{ margin: 0; }}
.card .value {{
  font-size: 1.75rem; font-weight: 600; line-height: 1.3; letter-spacing: -.01em;
  font-variant-numeric: tabular-nums;
}}
.card .more {{ color: var(--muted); font-size: .8125rem; }}
.plots {{
  display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr));
}}
figure {{ margin: 0; padding: 1rem 1.25rem; min-width: 0; }}
figcaption p {{ color: var(--muted); font-size: .8125rem; margin: 0 0 .75rem; }}
figure svg {{ display: block; width: 100%; height: auto; }}
figure svg text {{ font-family: inherit !important; }}
.table {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-size: .875rem; }}
th, td {{ text-align: left; padding: .5rem 1.25rem; vertical-align: top; }}
th {{ color: var(--muted); font-weight: 500; }}
tbody tr {{ border-top: 1px solid var(--grid); }}
td.figure, th.figure {{
  text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap;
  width: 9rem;
}}
td.name {{ width: 16rem; }}
td.long {{ overflow-wrap: anywhere; white-space: pre-wrap; }}
a {{ color: var(--blue); }}
footer {{ margin-top: 3rem; color: var(--muted); font-size: .875rem; }}
@media print {{ body {{ background: none; padding: 0; }} figure, .card {{ break-inside: avoid; }} }}
"""
