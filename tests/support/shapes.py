"""Messages of every shape, for hypothesis: how deep, how long, how many, which numbers, which encoding."""

import gzip
import json
from datetime import datetime
from random import Random

from hypothesis import strategies as st

from tests.support.poison import GOOD, message, mutated, nested, with_value

_GOOD = json.dumps(GOOD).encode()
#: When Kafka may say that a message was sent, in milliseconds since 1970: microseconds are read so, too.
MESSAGE_TIMES = st.integers(-(9 * 10**15), 9 * 10**15) | st.sampled_from([1_724_569_486_000, 1_724_569_486_000_000])
#: Times as messages spell them, from the year 1 to that before 10000 or after it.
SPELT_TIMES = st.builds(
    lambda moment, zone: moment.isoformat() + zone,
    st.datetimes() | st.datetimes(datetime(1969, 12, 31), datetime(2200, 1, 2)),
    st.sampled_from(["", "Z", "+07:00", "-01:00"]),
)
#: Around the depths at which orjson writes no more, the standard library gives up, and orjson reads no more.
_DEPTHS = st.integers(0, 40) | st.integers(250, 260) | st.integers(480, 560) | st.integers(985, 1_100)
_BRACKETS = st.sampled_from([(b"[", b"]"), (b'{"a":', b"}"), (b'[{"":', b"}]"), (b"[0,", b",0]"), (b" [ ", b" ]\n")])
_NUMBERS = (
    st.integers(-(10**30), 10**30).map(str)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.sampled_from([2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**12, 10**24]).map(str)
    | st.sampled_from(["-0", "1e308", "1e309", "5e-324", "1e-400", "NaN", "-Infinity", "0x1", "01", "1.", ".5", "1E+2"])
    | st.integers(1, 5_000).map(lambda digits: "9" * digits)
)
_TEXTS = (
    st.text(max_size=40).map(lambda text: json.dumps(text).encode())
    | st.text(max_size=40).map(lambda text: json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    | st.sampled_from(
        [b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u0000"', b'"\\\\"', b'"\\"]"', b'"[{,"', b'"\xef\xbb\xbf"']
    )
    | st.integers(0, 200_000).map(lambda length: b'"' + b"x" * length + b'"')
    | st.integers(0, 50_000).map(lambda length: b'"' + b"\\n" * length + b'"')
)


@st.composite
def _deep(draw: st.DrawFn) -> bytes:
    depth, (begins, ends) = draw(_DEPTHS), draw(_BRACKETS)
    return nested(depth, begins, ends, draw(st.sampled_from([b"0", b"", b"[]", _GOOD])))


_values = _deep() | _NUMBERS.map(str.encode) | _TEXTS | st.sampled_from([b"null", b"true", b"{}", b"[]", _GOOD])
_ticks = st.builds(lambda name, value: with_value(name, value)[1:-1], st.sampled_from([*GOOD, "unheard_of"]), _values)
_doubled = st.builds(
    lambda name, value: b'{"' + name.encode() + b'":' + value + b"," + _GOOD[1:], st.sampled_from([*GOOD]), _values
)
_elements = _ticks | _doubled | _values


@st.composite
def _arrays(draw: st.DrawFn) -> bytes:
    """Some elements, one of them maybe thousands of times."""
    elements = draw(st.lists(_elements, max_size=4))
    if draw(st.booleans()):
        short = draw(st.sampled_from([b"0", b"{}", b"[]", b"null", b'""', _GOOD, message(ticker="NEW.JK")[1:-1]]))
        elements[1:1] = [short] * draw(st.integers(1, 3_000))
    return b"[" + draw(st.sampled_from([b",", b" , ", b",\n"])).join(elements) + b"]"


def _encoded(value: bytes, encoding: str) -> bytes:
    if encoding == "gzip":
        return gzip.compress(value, mtime=0)
    return value.decode("utf-8", "replace").encode(encoding, "replace")


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Any message; most are close to what can land."""
    value = draw(_arrays() | _arrays() | _elements | st.binary(max_size=200))
    change = draw(st.sampled_from(["none", "none", "encode", "mutate", "cut"]))
    if change == "encode":
        return _encoded(value, draw(st.sampled_from(["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "gzip"])))
    if change == "mutate":
        return mutated(Random(draw(st.integers(0, 2**32))), value)
    return value[: draw(st.integers(0, len(value)))] if change == "cut" else value
