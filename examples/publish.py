"""Publishes headlines from a script.

python examples/publish.py [--url URL] [--room ROOM] HEADLINE...
"""

import argparse

from hub.client import Publisher

parser = argparse.ArgumentParser()
parser.add_argument("--url", default="http://127.0.0.1:8000")
parser.add_argument("--room", default="news")
parser.add_argument("headlines", nargs="+")
given = parser.parse_args()

with Publisher(given.url) as hub:
    for headline in given.headlines:
        print(headline, hub.publish(given.room, "headline", {"text": headline}).offset)
