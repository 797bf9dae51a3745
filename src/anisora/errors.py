"""What can go wrong, as one tree, so that callers catch as broadly or as narrowly as they like.

AnisoraError                 everything raised on purpose
├── BadInput                 the user can mend it; exit code 2
│   ├── BadImage             missing, truncated, too large, animated where a still is wanted, ...
│   ├── BadVideo             missing, undecodable, empty, ...
│   ├── BadMask              a mask of another aspect or length, ...
│   ├── BadPosition          a guide outside the shot, two guides on one frame or slot
│   ├── BadSize              an illegal width, height or number of frames
│   ├── BadRequest           an unknown key, a wrong type, an empty prompt, ...
│   ├── BadConfig            the same for training and other configs
│   ├── UnknownModel         neither a name in the catalog nor a checkpoint folder
│   └── BadCheckpoint        tensors are missing or do not fit; names them
└── Failed                   the work could not be done; exit code 1
    ├── WriteFailed          disk full, no right to write
    ├── OutOfMemory          says what to lower
    ├── MissingExtra         an optional package is not installed; names the extra
    ├── AssetMissing         a small weight file could not be fetched, or its bytes are not those expected
    ├── UnusableReply        what a captioner or judge answered is no answer; carries a reason code
    └── Diverged             a loss that is not a number

Every message says what was got, what was expected and what to try.
"""

from __future__ import annotations


class AnisoraError(Exception):
    """One clear message in up to four parts; `str()` joins those that are given.

    >>> str(BadSize("illegal number of frames", got=32, expected="4n+1", hint="29 or 33"))
    'illegal number of frames: got 32; expected 4n+1; try 29 or 33'
    """

    exit_code = 1

    def __init__(self, what: str, *, got: object = None, expected: object = None, hint: str | None = None) -> None:
        parts = [f"got {got}"] if got is not None else []
        parts += [f"expected {expected}"] if expected is not None else []
        parts += [f"try {hint}"] if hint else []
        super().__init__(what + (": " + "; ".join(parts) if parts else ""))
        self.what, self.got, self.expected, self.hint = what, got, expected, hint


class BadInput(AnisoraError):
    """Something the user gave cannot be used."""

    exit_code = 2


class BadImage(BadInput):
    """A still that cannot be used."""


class BadVideo(BadInput):
    """A video that cannot be used."""


class BadMask(BadInput):
    """A mask that does not fit the shot."""


class BadPosition(BadInput):
    """A guide that lies outside the shot or on another guide."""


class BadSize(BadInput):
    """A width, height or number of frames that the checkpoint cannot make."""


class BadRequest(BadInput):
    """A request with a missing, unknown or mistyped field."""


class BadConfig(BadInput):
    """A config with a missing, unknown or mistyped field."""


class UnknownModel(BadInput):
    """No model of that name, and no checkpoint folder either."""


class BadCheckpoint(BadInput):
    """A checkpoint folder whose files or tensors do not fit."""


class Failed(AnisoraError):
    """The input was fine; the work could not be finished."""


class WriteFailed(Failed):
    """Nothing half-written remains."""


class OutOfMemory(Failed):
    """More memory was needed than there is."""


class MissingExtra(Failed):
    """An optional package is needed and not installed."""


class AssetMissing(Failed):
    """A small weight file that arrives inside a pip package could not be had."""


class Diverged(Failed):
    """Training produced a loss that is not a number."""


class UnusableReply(Failed):
    """A model's answer that cannot be used: `reason` is a short code, the message holds how the answer begins."""

    def __init__(self, reason: str, answer: str = "") -> None:
        super().__init__(reason, got=repr(answer[:80]) if answer else None)
        self.reason = reason
