"""Home Assistant's own MQTT schemas on discovery messages: a line each on stdin, topic, tab, payload. Exits by the result."""
import importlib
import json
import sys

from homeassistant.components.mqtt.discovery import SUPPORTED_COMPONENTS, TOPIC_MATCHER

# Read and taken off before an entity's schema sees the rest (homeassistant/components/mqtt/discovery.py).
OURS_ALONE = {"origin"}


def check(topic, payload):
    prefix, rest = topic.split("/", 1)
    match = TOPIC_MATCHER.match(rest)
    if prefix != "homeassistant" or not match or match["component"] not in SUPPORTED_COMPONENTS:
        return f"no discovery topic: {match}"
    config = json.loads(payload)
    module = importlib.import_module(f"homeassistant.components.mqtt.{match['component']}")
    try:
        known = module.DISCOVERY_SCHEMA(config)
    except Exception as problem:  # voluptuous has many kinds
        return f"{type(problem).__name__}: {problem}"
    # The schema drops what it does not know: a misspelt field would do nothing.
    unknown = set(config) - set(known) - OURS_ALONE
    return f"fields that Home Assistant does not know: {sorted(unknown)}" if unknown else None


def main():
    problems = 0
    for line in sys.stdin:
        topic, payload = line.rstrip("\n").split("\t", 1)
        problem = check(topic, payload)
        problems += problem is not None
        print(f"{'valid ' if problem is None else 'WRONG '} {topic}{'' if problem is None else ': ' + problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
