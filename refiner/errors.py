"""The one exception whose message is meant for the person who typed the command."""


class UserError(Exception):
    """Something the user can put right: the message names what is wrong, where, and what to do, in one sentence.

    Commands print it on one line and exit with status 2; every other exception is a defect and keeps its traceback.
    """
