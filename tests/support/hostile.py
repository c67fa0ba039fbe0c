"""Values that strangers may write, each of a kind that does something unless it is shown as plain text."""

HOSTILE = {
    "terminal's title": "\x1b]0;owned\x07",
    "terminal's colours": "\x1b[31mred\x1b[0m",
    "a terminal's 8-bit escape": "\x9b31mred",
    "markup": "[/foo] [red]x[/red]",
    "an emoji's name": ":smile: :material/home:",
    "Markdown": "**bold** _it_ `code` ``` # head",
    "a picture": "![i](http://example.invalid/p.png)",
    "a link": "[l](http://example.invalid/l)",
    "an address": "www.example.com https://example.com/x a@example.com",
    "HTML": "<img src=http://example.invalid/h.png onerror=alert(1)><b>x</b>",
    "a turn of direction": "a\u202egpj.exe\u200f\u2066",
    "a formula": "=HYPERLINK(1)",
    "a formula behind a space": " @SUM(1)",
    "a formula in full width": "\uff1dHYPERLINK(1)",
    "a formula behind a separator": "a;=HYPERLINK(1)|+1",
    "mathematics": "$x^2$ :red[x]",
    "lines": "one\n- two\r\n1. three\u2028four",
}
