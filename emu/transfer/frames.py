"""What the two sides of a transfer say to each other, by the channel that carries control messages."""

from enum import IntEnum


class Frame(IntEnum):
    """Kinds of frames, and their fields. A pull is named by a number of its destination's choice."""

    # destination to source
    PULL = 0  # pull, request, attempt, start, stop: send me these bytes of a payload
    DONE = 1  # pull, number of the message: I am through with it
    STOP = 2  # pull: send no more of it, I read none of it any more
    # source to destination
    # pull, number, start, stop, checksum, ticket, trailer: receive these bytes of the payload with this ticket
    READY = 3
    GONE = 4  # pull: I do not hold that
