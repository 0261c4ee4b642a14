"""The one exception that is not a bug."""


class UserError(ValueError):
    """Something that whoever gave the command can mend; its message is one line that says how."""
