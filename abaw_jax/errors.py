"""The one exception that stands for a mistake a person can mend."""


class InputError(ValueError):
    """Something given to the program is wrong: a file, a row, a key, a value.

    Its message is one line that names the file (and the line or key), says what was found, what
    was expected, and what to do. Commands print that line and exit with status 2; every other
    exception is a fault of the program and keeps its traceback.
    """
