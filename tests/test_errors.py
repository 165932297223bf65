from fer_experiments.errors import first_line


def test_an_error_is_its_first_line_or_its_class():
    assert first_line(ValueError("\n one\ntwo")) == "one" and first_line(ValueError(" ")) == "ValueError"
    assert first_line(ValueError("one\ntwo"), named=True) == "ValueError: one"
    assert first_line(ValueError(), named=True) == "ValueError"
    assert first_line(ValueError("x" * 300), 200) == "x" * 197 + "..."
