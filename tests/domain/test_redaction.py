"""No secret gets through, wherever output is cut into pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.redaction import Redactor, needles_of, redacted

SECRETS = ["hunter2!", "abab", "bababc", "line one of it\nline two of it\n"]
NEEDLES = needles_of(SECRETS)
WORDS = [*(needle.decode() for needle in NEEDLES), "ab", "hunter", "a", "b", " ", "\n", "2!", "line one of"]


def _fed(pieces: list[bytes]) -> bytes:
    redactor = Redactor(NEEDLES)
    return b"".join([*(redactor.feed(piece) for piece in pieces), redactor.rest()])


@given(st.lists(st.sampled_from(WORDS), max_size=12).map("".join), st.lists(st.integers(1, 9), max_size=40))
def test_however_output_is_cut_no_secret_is_in_what_comes_out(text: str, sizes: list[int]) -> None:
    data, pieces = text.encode(), []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    out = _fed([*pieces, data])
    masked = out.split(b"***")
    assert not any(needle in part for needle in NEEDLES for part in masked)


@given(st.text(alphabet="xyz \n", max_size=50), st.integers(0, 50))
def test_what_holds_no_secret_comes_out_as_it_went_in(text: str, cut: int) -> None:
    data = text.encode()
    assert _fed([data[:cut], data[cut:]]) == data


def test_only_what_may_become_a_secret_is_held_back() -> None:
    redactor = Redactor(needles_of(["hunter2!"]))
    assert redactor.feed(b"the password is hunt") == b"the password is "
    assert redactor.feed(b"ing\n") == b"hunting\n"
    assert redactor.feed(b"hunter2") == b""
    assert redactor.feed(b"!\n") == b"***\n"


def test_each_line_of_a_secret_is_one() -> None:
    assert _fed([b"> line two of it <"]) == b"> *** <"


def test_json_is_redacted_wherever_a_secret_stands() -> None:
    value = {"a hunter2!": ["x", {"y": "hunter2!hunter2!"}], "n": 1}
    assert redacted(value, NEEDLES) == {"a ***": ["x", {"y": "******"}], "n": 1}


def test_a_number_that_holds_a_secret_is_masked_however_it_is_written() -> None:
    value = {"pin": 48151623, "n": [-48151623.5, 148151623.0, 4.8151623e20, 4815162, 4.8151623, True]}
    assert redacted(value, needles_of(["48151623"])) == {"pin": "***", "n": ["***"] * 3 + [4815162, 4.8151623, True]}
