"""jsonl: any bytes are an object or a problem with its place, and the quick reader agrees with the strict one."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stages.shared.jsonl import Problem, parse_line, parts, quick_object, strings

FRAGMENTS = [
    *b'[ ] { } : , " \\ 1 0 - . e E + a null true NaN -Infinity Infinity 1e999 -1e999'.split(),
    *b"\\ud800 \\udc00 \\u0000 \\u0061 \\\\".split(),
    *(b'\r\n| |\t|\0|\xff|\xef\xbb\xbf|\xed\xa0\x80|\xff\xfe|"a":|"a"|{"a":1}|{"a":1,"a":2}|\\"|"\\\\"'.split(b"|")),
    *(b'{"a":1,"\\u0061":2}|{"a":{"b":[],"b":[]}}'.split(b"|")),
    b"1" * 25,
    b"1" * 5000,
    b"[" * 201,
    b"]" * 201,
    "ñ".encode(),
]
ANY_LINE = st.one_of(st.binary(), st.lists(st.sampled_from(FRAGMENTS), max_size=12).map(b"".join)).map(
    lambda line: line.replace(b"\n", b"")
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
KEEP = "Keep one value that every reader takes alike."
OBJECTS = st.dictionaries(TEXT, VALUES, max_size=4)


def in_order(text: bytes | str) -> Any:
    """A value whose objects are lists of pairs, for which the order of keys counts."""
    return json.loads(text, object_pairs_hook=lambda pairs: ["object", *pairs])


@settings(deadline=None, max_examples=800)
@given(raw=ANY_LINE)
@example(raw=b"NaNx")
@example(raw=b'{"a":1e999}')
@example(raw=b'{"a":1,"\\u0061":2}')
@example(raw=b'{"\\\\":"\\"","b":1,"b":2}')
@example(raw=b'{"\\ud800":1,"\\ud800":2}')
@example(raw=b'{"a":' * 230 + b"1" + b"}" * 230)
def test_any_line_is_an_object_or_one_problem_and_what_the_quick_reader_takes_the_strict_one_takes(raw: bytes) -> None:
    strict, quick = parse_line("f", 7, raw), quick_object(raw)
    if isinstance(strict, Problem):
        assert strict.line == 7
        assert "\n" not in str(strict)
        str(strict).encode()
        assert quick is None or raw.count(b'{"a":') > 200  # the quick one allows a little more depth
    else:
        assert strict == json.loads(raw)
        if quick:
            assert quick[0] == strict


@settings(deadline=None, max_examples=300)
@given(value=OBJECTS, ascii_only=st.booleans(), indent=st.sampled_from([None, 1]))
def test_an_object_comes_back_as_it_was_from_both_readers(value: Any, ascii_only: bool, indent: int | None) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only, indent=indent).replace("\n", "\t").encode()
    strict = parse_line("f", 1, raw)
    assert in_order(json.dumps(strict)) == in_order(raw)
    quick = quick_object(raw)
    assert quick is not None
    assert in_order(json.dumps(quick[0])) == in_order(raw)
    assert in_order(quick[1]) == in_order(raw)


@given(keys=st.lists(st.sampled_from(["a", 'b"', "c\\", "ñ"]), min_size=2, max_size=4), data=st.data())
def test_the_quick_reader_leaves_every_key_that_occurs_twice_to_the_strict_one(keys: list[str], data: Any) -> None:
    inner = "{" + ",".join(f"{json.dumps(key)}: {json.dumps(data.draw(TEXT))}" for key in keys) + "}"
    raw = f'{{"outer": [{inner}]}}'.encode()
    twice = len(set(keys)) < len(keys)
    assert (quick_object(raw) is None) == twice
    assert isinstance(parse_line("f", 1, raw), Problem) == twice


@settings(deadline=None)
@given(content=st.lists(st.sampled_from([b"", b"{}", b"abc\r", b"x" * 9]), min_size=1), size=st.integers(1, 12))
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_file_cut_into_parts_has_the_lines_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, content: list[bytes], size: int, end: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "cut.jsonl"
    file.write_bytes(b"\n".join(content) + end)
    cut = list(parts(file, size))
    with file.open("rb") as lines:
        assert [line for part in cut for line in part.lines()] == [line.removesuffix(b"\n") for line in lines]
    assert [part.start for part in cut] == [0, *(part.end for part in cut)][: len(cut)]
    assert not cut or cut[-1].end == file.stat().st_size


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b'{"a": }', "column 7: not JSON: Expecting value. Mend the line."),
        (b'{"a": 1} {}', "column 10: not JSON: Extra data. Mend the line."),
        (b'{"a": "x', "column 7: not JSON: Unterminated string starting at. Mend the line."),
        (b'{"a": "\t"}', "column 8: not JSON: Invalid control character at. Mend the line."),
        (b'{"a": "\\x"}', "column 8: not JSON: Invalid \\escape. Mend the line."),
        (b'{"a": "\xf1"}', "byte 8: is not UTF-8. Save the file as UTF-8."),
        (b"\xef\xbb\xbf{}", "column 1: begins with a byte order mark. Save the file as UTF-8 without BOM."),
        ("{}".encode("utf-16"), "byte 1: is not UTF-8. Save the file as UTF-8."),
        (b"", "is blank. Remove the line."),
        (b" \t\r", "is blank. Remove the line."),
        (b'{"a": NaN}', f"NaN is no JSON number. {KEEP}"),
        (b'{"a": -Infinity}', f"-Infinity is no JSON number. {KEEP}"),
        (b'{"a": 1e999}', f"1e999 is too large for a number. {KEEP}"),
        (b'{"a": {"b": 1, "b": 2}}', f"key 'b' occurs twice in one object. {KEEP}"),
        (b'{"a": ["\\ud800"]}', "holds half of a surrogate pair. Write the character itself."),
        (b"[1]", "$: is no object. Put one JSON object on each line."),
        (b'{"a":' * 201 + b"1" + b"}" * 201, "is nested more than 200 levels deep. Flatten it."),
        (b'{"a":' * 200_000, "is nested more than 200 levels deep. Flatten it."),
    ],
)  # fmt: skip
def test_what_is_not_strict_json_is_refused_with_its_place(raw: bytes, problem: str) -> None:
    assert str(parse_line("rows.jsonl", 3, raw)) == f"rows.jsonl:3: {problem}"
    assert quick_object(raw) is None or b"{" * 9 in raw.replace(b'"a":', b"")


def test_an_integer_of_too_many_digits_is_refused() -> None:
    assert "not JSON: Exceeds the limit" in str(parse_line("f", 1, b'{"a": ' + b"1" * 5000 + b"}"))


@pytest.mark.parametrize("raw", [b'{"a":' * 200 + b"1" + b"}" * 200, b'{"a": "\\ud83d\\ude00"}', b'{"a": 1}\r'])
def test_what_is_barely_allowed_is_read(raw: bytes) -> None:
    assert parse_line("f", 1, raw) == json.loads(raw)


def test_strings_come_in_order_with_their_place_and_keys_before_what_they_hold() -> None:
    value = {"a": ["x", {"b": "y"}, 3, None], "c": "z"}
    assert list(strings(value)) == [
        ("$ (a key)", "a"),
        ("$.a[0]", "x"),
        ("$.a[1] (a key)", "b"),
        ("$.a[1].b", "y"),
        ("$ (a key)", "c"),
        ("$.c", "z"),
    ]


def test_a_problem_of_a_whole_file_names_no_line() -> None:
    assert str(Problem("f", 0, "", "is empty", "Fill it")) == "f: is empty. Fill it."
    assert str(Problem("f", 3, "$.a", "is blank", "Fill it")) == "f:3: $.a: is blank. Fill it."


def test_a_problem_is_one_line_of_visible_text_whatever_a_key_holds() -> None:
    problem = Problem("f", 3, "$.a\nb\u200b\ud800ñ", "is blank", "Fill it")
    assert str(problem) == "f:3: $.a\\nb\\u200b\\ud800ñ: is blank. Fill it."
