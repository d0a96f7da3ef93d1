"""Messages to and from plain tuples, which any serializer can carry: (type code, *fields), the same nested."""

from emu.core import batch, facts, messages

_MARK = "m"  # begins an encoded message: no field of a message is a tuple that begins with a string
_NAMES = vars(batch) | vars(facts) | vars(messages)
_TYPES = tuple(member for _, member in sorted(_NAMES.items()) if isinstance(member, type) and hasattr(member, "_fields"))
_CODES = {message_type: code for code, message_type in enumerate(_TYPES)}


def encode(message: tuple) -> tuple:
    """A message as a plain tuple of numbers, strings and such tuples. Plain tuples inside it stay what they are."""
    code = _CODES.get(type(message))
    fields = [encode(field) if isinstance(field, tuple) else field for field in message]
    return tuple(fields) if code is None else (_MARK, code, *fields)


def decode(plain: tuple) -> tuple:
    """The message that `encode` was given. Raises ValueError for a code that is none."""
    if plain[:1] == (_MARK,):
        if not 0 <= plain[1] < len(_TYPES):
            raise ValueError(f"{plain[1]} is no message code; known are 0 to {len(_TYPES) - 1}")
        return _TYPES[plain[1]](*[decode(field) if isinstance(field, tuple) else field for field in plain[2:]])
    return tuple([decode(field) if isinstance(field, tuple) else field for field in plain])
