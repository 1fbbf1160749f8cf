"""The command line: errors of the user's are one message that says what to do, not a traceback."""

import errno
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from requant.errors import UserError
from requant.progress import complain
from requant.settings import all_keys
from requant.suggest import did_you_mean

_WHAT_TO_DO = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "Make room; the same command then goes on."),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG),
        "Set out=<folder>, name=<experiment> and $REQUANT_CACHE so that folders can be made and written there.",
    ),
}


def main(entry: Callable[[], Any]) -> int:
    """Call Hydra's entry point; returns the exit code: 0, 2 for the user's errors, 130 for Ctrl-C."""
    warnings.formatwarning = lambda message, *_, **__: f"Warning: {message}\n"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing a traceback of its own
    try:
        entry()
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on from the last finished epoch.", file=sys.stderr)
        return 130
    except UserError as error:
        complain(error)
        return 2
    except (HydraException, OmegaConfBaseException) as error:
        complain(explain(error, sys.argv[1:]), "Error in the settings")
        return 2
    except OSError as error:  # some of Hydra's errors are OSErrors too, so after those
        if error.errno not in _WHAT_TO_DO:
            raise
        complain(f"{error}. {_WHAT_TO_DO[error.errno]}")
        return 2
    return 0


def explain(error: Exception, overrides: list[str]) -> str:
    """What is wrong, without Hydra's plumbing, and the nearest right key or option."""
    cause = list(_causes(error))[-1]
    if isinstance(cause, UserError):
        return str(cause)
    text = str(cause)
    if option := _OPTION.search(text):
        return _wrong_option(option.group(1), option.group(2), text)
    wrong = [o for o in overrides if _key(o) and _key(o) not in all_keys() and not _for_hydra(_key(o))]
    if wrong:
        hints = [f"{_key(o)!r} is no setting{did_you_mean(_key(o), all_keys())}" for o in wrong]
        return "\n".join([*hints, _HELP])
    if "LexerNoViableAlt" in text or "mismatched input" in text or "token recognition" in text:
        return f"{text.splitlines()[0]}\nQuote what has special characters twice: 'unlabeled.root=\"~/my [photos]\"'"
    if text.startswith("Ambiguous value"):
        return f"{text.splitlines()[0]}\nSeveral values make a sweep: python run.py -m centroids=2,4"
    where = re.search(r"full_key: (\S+)", text)
    return "\n".join([f"{where.group(1)}: {text.splitlines()[0]}" if where else text.splitlines()[0], _HELP])


_OPTION = re.compile(r"(?:Could not find|Could not override|In '[^']*': Could not find) '([\w@]+)/([^']+)'")
_HELP = "python run.py --help lists the groups; python run.py --cfg job shows every setting."


def _wrong_option(group: str, option: str, text: str) -> str:
    options = re.findall(
        r"^[\t ]+([\w.-]+)$", text.split("Available options", 1)[-1].split("Config search path")[0], re.M
    )
    return f"{group}={option} is no option{did_you_mean(option, options)}\nOptions of {group}: {', '.join(options)}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__


def _key(override: str) -> str:
    found = re.match(r"^[+~]{0,2}([\w./@]+)=?", override)
    return found.group(1) if found and not override.startswith("-") else ""


def _for_hydra(key: str) -> bool:
    return key.startswith("hydra") or "@" in key
