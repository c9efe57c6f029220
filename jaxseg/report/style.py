"""The style sheet of a report. Its hash stands in the page's policy: change nothing by hand there."""

_LINES = ('#2563eb', '#e4572e', '#0f9d76', '#a855f7', '#d69e00', '#0891b2', '#db2777', '#64748b')
_SHADES = 20  # of the confusion matrix

_BASE = """
:root{color-scheme:light dark;--ground:#f5f6f8;--card:#fff;--ink:#16191f;--soft:#5b6473;
--rule:#e2e5ea;--accent:#2563eb;--good:#0a7d5a;--bad:#c2381a;--track:#eceff3}
@media(prefers-color-scheme:dark){:root{--ground:#111318;--card:#1a1d24;--ink:#e9ebf0;--soft:#9aa3b2;
--rule:#2c313b;--accent:#7aa7ff;--good:#4cc79c;--bad:#ff8a6b;--track:#272c36}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;overflow-wrap:break-word;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,-apple-system,
"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1120px;margin:0 auto;padding:32px 20px 64px}
header{margin-bottom:24px}
h1{font-size:28px;line-height:1.2;margin:0 0 6px;overflow-wrap:anywhere;letter-spacing:-.01em}
h2{font-size:19px;line-height:1.3;margin:40px 0 12px}
p{margin:0 0 12px}
.soft{color:var(--soft)}
.small{font-size:13px}
.card{background:var(--card);border:1px solid var(--rule);border-radius:12px;padding:16px;margin:0;
min-width:0}
.tiles{display:grid;gap:12px;grid-template-columns:repeat(auto-fit,minmax(158px,1fr))}
.tile .value{font-size:27px;line-height:1.15;font-weight:650;font-variant-numeric:tabular-nums;
letter-spacing:-.01em;overflow-wrap:anywhere}
.tile .name{color:var(--soft);font-size:13px;margin-bottom:2px}
.tile .note{color:var(--soft);font-size:12.5px;margin-top:4px;line-height:1.35}
.good{color:var(--good)}.bad{color:var(--bad)}
.charts{display:grid;gap:12px;grid-template-columns:repeat(auto-fit,minmax(min(100%,430px),1fr))}
.pair{display:grid;gap:12px;grid-template-columns:repeat(auto-fit,minmax(min(100%,430px),1fr));
align-items:start}
figcaption{overflow-wrap:anywhere;font-weight:600;margin-bottom:8px;display:flex;flex-wrap:wrap;gap:2px 14px;
align-items:baseline}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:2px 12px;margin:0;padding:0;font-weight:400;
font-size:13px;color:var(--soft);min-width:0}
.legend li{display:flex;align-items:center;gap:5px;min-width:0;overflow-wrap:anywhere}
.swatch{width:11px;height:11px;flex:none;border-radius:3px;display:inline-block;
vertical-align:-1px;outline:1px solid var(--rule)}
.chart{display:block;width:100%;height:auto;overflow:visible}
.grid{stroke:var(--rule);stroke-width:1}
.tick{fill:var(--soft);font-size:12px;font-variant-numeric:tabular-nums}
.tick.end{text-anchor:end}.tick.middle{text-anchor:middle}
.line{fill:none;stroke-width:2;stroke-linejoin:round}
.dot{stroke-width:0}
.ring{fill:none;stroke:var(--ink);stroke-width:1.5}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch;margin:0 -16px;padding:0 16px}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:14px}
table.wide{width:100%}
th,td{padding:6px 10px;text-align:right;border-bottom:1px solid var(--rule);vertical-align:middle}
th{font-weight:500;color:var(--soft);font-size:13px}
tr:last-child>td,tr:last-child>th{border-bottom:0}
th:first-child,td:first-child{text-align:left;padding-left:0}
th:last-child,td:last-child{padding-right:0}
td.text{text-align:left;max-width:420px}
td.text code{overflow-wrap:break-word}
table.texts th{text-align:left}
table.runs thead th{overflow-wrap:anywhere;min-width:84px;max-width:230px}
th:first-child{min-width:88px}
.named{display:flex;align-items:center;gap:7px;min-width:0}
.named .swatch{margin:0}
td.bar{width:44%;min-width:60px}
tbody th{color:var(--ink);font-weight:500;overflow-wrap:break-word;max-width:220px}
.best{font-weight:700}
.bar svg{display:block;width:100%;height:10px;border-radius:5px;background:var(--track)}
.bar rect{fill:var(--accent)}
.matrix{font-size:12.5px;margin:0 auto}
.matrix td,.matrix th,.matrix th:first-child{border:0;padding:0 4px;text-align:center;height:30px;min-width:34px}
.matrix th.row{text-align:right;padding-right:8px;white-space:nowrap;max-width:150px;overflow:hidden;
text-overflow:ellipsis}
.matrix th.column{height:auto;vertical-align:bottom;padding:4px 0}
.matrix th.column span{writing-mode:vertical-rl;transform:rotate(180deg);white-space:nowrap;
max-height:130px;overflow:hidden;text-overflow:ellipsis;display:inline-block}
.pictures{display:grid;gap:12px;grid-template-columns:repeat(auto-fill,minmax(min(100%,300px),1fr))}
.four{display:grid;gap:6px;grid-template-columns:1fr 1fr}
.four div{min-width:0}
.four img{display:block;width:100%;height:auto;border-radius:5px;background:var(--track)}
.four img.px{image-rendering:pixelated}
.four span{font-size:12px;color:var(--soft)}
.shot{padding:12px}
.shot .title{display:flex;justify-content:space-between;gap:10px;font-size:13.5px;margin-bottom:8px}
.shot .title b{font-variant-numeric:tabular-nums;white-space:nowrap}
.shot .title span{overflow:hidden;text-overflow:ellipsis;white-space:nowrap;min-width:0}
pre{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;font:13px/1.5 ui-monospace,SFMono-Regular,
Menlo,Consolas,monospace}
code{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 16px;margin:0;font-size:14px}
dt{color:var(--soft)}
dd{margin:0;overflow-wrap:anywhere;min-width:0}
details{margin-top:12px}
summary{cursor:pointer;color:var(--accent);font-weight:500}
details pre{margin-top:10px}
.stack>*+*{margin-top:12px}
.legend.key{margin-bottom:14px}
.gap{margin-top:14px}
footer{margin-top:48px;color:var(--soft);font-size:13px}
@media(max-width:480px){.tick{font-size:15px}td.bar{width:34%}th,td{padding:6px 7px}main{padding:20px 14px 48px}h1{font-size:23px}h2{margin-top:32px}
.tile .value{font-size:23px}.tiles{grid-template-columns:1fr 1fr}.phoneless{display:none}
dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:8px}}
"""


def style() -> str:
  """Returns the whole sheet, on lines and shades included."""
  rules = []
  for i, color in enumerate(_LINES):
    rules.append(f'.line{i}{{stroke:{color}}}.dot.line{i},.fill{i}{{fill:{color}}}')
  for i in range(1, _SHADES + 1):
    ink = ';color:#fff' if i > 0.55 * _SHADES else ''
    rules.append(f'.s{i}{{background:rgba(37,99,235,{0.06 + 0.9 * i / _SHADES:.2f}){ink}}}')
  return _BASE.strip() + '\n' + '\n'.join(rules) + '\n'


def shade(share: float) -> str:
  """Returns the class of a cell that holds this share of its row, '' for next to none."""
  number = min(_SHADES, round(share * _SHADES)) if share >= 0.005 else 0
  return f's{max(number, 1)}' if share >= 0.005 else ''
