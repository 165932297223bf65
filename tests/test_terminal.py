import math
import sys

import pytest

from fer_experiments.errors import FitError, UserError, first_line
from fer_experiments.terminal import fit, markdown, number, say, table

ROWS = [["split", "negative", "n"], ["train", "9", "12"], ["validation", "3", ""]]


def test_a_table_is_aligned_and_has_no_blanks_at_its_ends():
    assert table(ROWS).splitlines() == ["split       negative  n", "train       9         12", "validation  3"]
    assert table(ROWS, right=1).splitlines() == [
        "split       negative   n",
        "train              9  12",
        "validation         3",
    ]


def test_in_markdown_it_has_a_ruler():
    assert markdown(ROWS).splitlines() == [
        "| split      | negative | n  |",
        "|------------|----------|----|",
        "| train      | 9        | 12 |",
        "| validation | 3        |    |",
    ]


def test_a_bar_in_a_cell_ends_no_cell_of_markdown():
    assert markdown([["a|b", "n"], ["x", "1"]]).splitlines() == [r"| a\|b | n |", "|------|---|", "| x    | 1 |"]


@pytest.mark.parametrize("space", ["\N{NO-BREAK SPACE}", "\N{IDEOGRAPHIC SPACE}"])
def test_a_space_of_any_kind_is_a_space(space: str):
    assert fit(f"a{space}b") == f"a{space}b" and f"a{space} |" in markdown([[f"a{space}"], ["c"]])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"), (1024, "1024"), (0.0, "0"), (0.5, "0.5000"), (123.45678, "123.4568"), (0.0012345, "0.001234"),
        (3e-5, "3e-05"), (12345.0, "12345"), (1234.5, "1234"), (-2e20, "-2e+20"), (math.inf, "inf"), (math.nan, "nan"),
    ],
)  # fmt: skip
def test_a_number_is_as_long_as_it_needs_to_be(value: float, text: str):
    assert number(value) == text


def test_thousands_may_be_grouped():
    assert [number(value, ",") for value in (1024, 12345.0, 999.0, 0.5)] == ["1,024", "12,345", "999.0000", "0.5000"]


NASTY = {
    "\x1b[2J": r"\x1b[2J",  # clears the screen
    "\x1b]0;title\x07": r"\x1b]0;title\x07",
    "\x9b31m": r"\x9b31m",  # the same in one character
    "a\nb\rc\x08": r"a\nb\rc\x08",
    "\u202egnp.exe": r"\u202egnp.exe",  # read backwards
    "\u2028\x85\0": r"\u2028\x85\x00",
    "\udcff": r"\udcff",
}


@pytest.mark.parametrize("text", NASTY)
def test_what_a_terminal_would_act_on_is_shown_as_its_code(text: str, capsys: pytest.CaptureFixture[str]):
    shown = NASTY[text]
    assert fit(text) == shown and fit(fit("é 顔.png")) == "é 顔.png"
    assert str(UserError(f"{text}: no")) == f"{shown}: no" == str(FitError(f"{text}: no"))
    assert first_line(ValueError(text)).isprintable()
    assert table([[text, "b"]]) == f"{shown}  b" and shown in markdown([[text], ["c"]])
    say(f"first\n{fit(text)}", sys.stderr)
    assert capsys.readouterr().err == f"first\n{shown}\n"
    say(text.replace("\n", " "))
    assert capsys.readouterr().out == f"{shown.replace(chr(92) + 'n', ' ')}\n"
