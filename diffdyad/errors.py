"""What a user can do wrong, and the exit codes that say so."""

import os
import re

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_PARTIAL = 3
EXIT_INTERRUPTED = 130


class UserError(ValueError):
    """Wrong arguments or unreadable input.

    The message is one line: what was expected, what was found, where, and what to do. Commands print
    it and exit with `exit_code`.
    """

    exit_code = EXIT_USAGE


class PartialFailure(UserError):
    """A batch command finished, and some of its items failed; the message names each."""

    exit_code = EXIT_PARTIAL


_TOKEN = re.compile(r"\bhf_oauth_[\w.-]+|\bhf_[A-Za-z0-9]{20,}")


def redact(text: str) -> str:
    """The text without tokens of the Hugging Face Hub, wherever they came from."""
    token = os.environ.get("HF_TOKEN", "").strip()
    if len(token) >= 8:
        text = text.replace(token, "<token>")
    return _TOKEN.sub("<token>", text)
