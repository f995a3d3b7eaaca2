"""What Kafka's error codes mean (kafka.apache.org/protocol, "Error Codes"), and what mends them."""

from enum import StrEnum
from typing import Final

from aiokafka.errors import for_code

SASL_REFUSED: Final = 58
NO_TOPIC: Final = 3
NO_LEADER: Final = 5


class Meaning(StrEnum):
    """Of a code for a batch of messages."""

    DONE = "done"
    RECORD = "record"
    """A message of it is refused, so none of it was appended."""
    MOVED = "moved"
    """Nothing was appended: the partition has another leader, or none, or too few replicas for now."""
    DOUBT = "doubt"
    """It may have been appended."""
    SEQUENCE = "sequence"
    """Nothing was appended: the broker has forgotten the producer, or counts otherwise."""
    SETUP = "setup"
    """Nothing was appended, and nothing would be: rights, topic or its settings are not as they must be."""


_CODES: Final = {
    **dict.fromkeys((0, 46), Meaning.DONE),
    **dict.fromkeys((2, 10, 18, 32, 87), Meaning.RECORD),
    **dict.fromkeys((3, 5, 6, 8, 9, 19, 56, 74, 75), Meaning.MOVED),
    **dict.fromkeys((45, 47, 49, 59, 90), Meaning.SEQUENCE),
    **dict.fromkeys((17, 21, 29, 31, 43, 44, 53, 76), Meaning.SETUP),
}
_NAMES: Final = {
    2: "CORRUPT_MESSAGE",
    6: "NOT_LEADER_OR_FOLLOWER",
    10: "MESSAGE_TOO_LARGE",
    74: "FENCED_LEADER_EPOCH",
    75: "UNKNOWN_LEADER_EPOCH",
    76: "UNSUPPORTED_COMPRESSION_TYPE",
    87: "INVALID_RECORD",
    90: "PRODUCER_FENCED",
}
"""Those that aiokafka does not know, or by older names."""


def meaning(code: int) -> Meaning:
    return _CODES.get(code, Meaning.DOUBT)


def name_of(code: int) -> str:
    known = for_code(code)
    return _NAMES.get(code) or (known.message if getattr(known, "errno", None) == code else "an error")


def said(code: int, message: str | None = None) -> str:
    """The code by its name, and the broker's own words, if there are any."""
    return f"{name_of(code)} ({code})" + (f": {message.rstrip('. ')}" if message else "")


def remedy(code: int, topic: str, user: str | None) -> str:
    """What mends a fault of the set-up."""
    who = f"User:{user}" if user is not None else "the user of the connection"
    match code:
        case 3:
            return f"make the topic {topic} (kafka-topics --create --topic {topic}), or name yours (option topic)"
        case 17:
            return "name a topic that Kafka takes (option topic)"
        case 29:
            return f"allow {who} to Describe and Write the topic {topic} (kafka-acls --add --producer --topic {topic})"
        case 31 | 53:
            return f"allow {who} to Write the topic {topic}; before Kafka 3.0 also IdempotentWrite for the cluster"
        case 76:
            return "choose another compression (option compression)"
    return f"look at the settings of the topic {topic} and at the options of the destination"
