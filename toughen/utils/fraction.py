"""Numbers that may be written as fractions."""

from __future__ import annotations


class Fraction(float):
    """A number that may be written as a fraction and remembers how: ``Fraction("8/255")``.

    Raises:
        ValueError: the text is neither a number nor one number divided by another.
    """

    text: str

    def __new__(cls, value: str | float) -> Fraction:
        text = str(value).strip()
        parts = text.split("/")
        try:
            number = float(parts[0]) / float(parts[1]) if len(parts) == 2 else float(text)
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"{text!r} is not a number: write 0.03 or 8/255") from None
        self = super().__new__(cls, number)
        self.text = text
        return self

    def __reduce__(self) -> tuple[type[Fraction], tuple[str]]:  # copies keep the text
        return Fraction, (self.text,)

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__


def radius(eps: float) -> str:
    """A radius as people write it: 8/255 where that is shorter than its decimals."""
    plain, parts = f"{eps:.4g}", eps * 255
    if len(plain) > 4 and 0 < round(parts) < 256 and abs(parts - round(parts)) < 1e-4:
        return f"{round(parts)}/255"
    return plain
