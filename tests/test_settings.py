"""What YAML means by a number."""

import pytest

from anisora import settings


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("-2E6", -2e6),
        ("1.0e-4", 1e-4),
        ("12", 12),
        ("1e", "1e"),
        ("e4", "e4"),
        ("1e4-Scene", "1e4-Scene"),
    ],
)
def test_numbers_with_an_exponent_are_numbers_with_or_without_a_point(text, value, tmp_path):
    read = settings.override({}, [f"a.b={text}"])["a"]["b"]
    path = tmp_path / "c.yaml"
    path.write_text(f"b: {text}\n")
    assert read == settings.load(path)["b"] == value
    assert type(read) is type(value)
