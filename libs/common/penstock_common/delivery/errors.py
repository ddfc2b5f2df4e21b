"""What a message handler raises to say that trying again is useless."""


class Permanent(Exception):
    """The message can never be handled: it goes to the stream DEAD with this reason."""
