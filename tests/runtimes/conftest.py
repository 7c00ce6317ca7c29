"""What is in C{inside} is run by C{insides.py}, in an arena of its own."""

from __future__ import annotations

import os

collect_ignore = [] if "CHANPROXY_TEST_ARENA" in os.environ else ["inside"]
