"""What a user can set or supply wrongly. Each message says what is wrong, where, and what to do next."""


def first_line(error: Exception) -> str:
    """What an error of somebody else's code says, without the paragraphs behind it."""
    return str(error).strip().partition("\n")[0]


class UserError(ValueError):
    """Something set or supplied from outside is wrong: the command line prints it without a traceback."""


class ConfigError(UserError):
    """A setting that does not exist, has a wrong value, or contradicts another."""


class PlanError(UserError):
    """A rule that is malformed or matches no tensor."""


class DataError(UserError):
    """Images or labels that are missing, unreadable or not what they claim to be."""


class WeightsError(UserError):
    """Weights that are missing, foreign to the architecture, or not finite."""


class ArchiveError(UserError):
    """A file that is damaged, truncated, foreign, or of a newer format."""
