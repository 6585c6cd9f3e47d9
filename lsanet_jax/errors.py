"""The errors that a user can cause and mend. `main` prints them as one line and exits with code 2."""


class LSANetError(Exception):
    """Base class: the message names the field or file, what was found, and what to do."""


class ConfigError(LSANetError, ValueError):
    """A config field is unknown, of the wrong type, or outside its choices."""


class DataError(LSANetError, ValueError):
    """A data file is missing, damaged, or not what the config says it is."""


class WorkdirError(LSANetError):
    """The workdir belongs to another run, or cannot be used."""


class TrainingError(LSANetError, RuntimeError):
    """Training cannot go on, for instance because the loss is not finite."""
