import math

import pytest

from fer_experiments.terminal import markdown, number, table

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
