"""What events, actions and facts have in common."""

from typing import Any, TypeAlias, TypeVar

Message: TypeAlias = tuple[Any, ...]  # an event, an action or a fact; and what one carries
Class = TypeVar("Class", bound=type)


def distinct(cls: Class) -> Class:
    """Make a named tuple equal to those of its own class alone.

    Tuples are equal whatever their classes are: without this, KVReceived(1, 1) == Cancelled(1, 1). Its hash stays that of the
    tuple; where one is a key, it is found by another of its class and not by a plain tuple.
    """

    def equals(self: Message, other: object) -> bool:
        if type(other) is type(self):
            return tuple.__eq__(self, other)
        return False if isinstance(other, tuple) else NotImplemented

    def differs(self: Message, other: object) -> bool:
        equal = equals(self, other)
        return equal if equal is NotImplemented else not equal

    # mypy has methods set in the class only, and NamedTuple takes no base class that could have them.
    cls.__eq__, cls.__ne__, cls.__hash__ = equals, differs, tuple.__hash__  # type: ignore[method-assign, assignment]
    return cls
