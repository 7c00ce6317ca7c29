"""
Public helpers for tests of programs that use chanproxy.

  - L{chanproxy.testing.fakefreezer}: a freezer that does what the test says.
  - L{chanproxy.testing.freezers}: the suite for any freezer.
  - L{chanproxy.testing.reactor}: a reactor in which time stands still.
  - L{chanproxy.testing.memory}: channels in memory.
  - L{chanproxy.testing.channels}: the suite for all kinds of channels.
  - L{chanproxy.testing.cases}: base classes for trial.
  - L{chanproxy.testing.plugin}: fixtures for pytest, by C{pytest_plugins}.

Nothing else imports it.  Must not know our own tests.
"""

__all__ = ["cases", "channels", "fakefreezer", "freezers", "memory", "plugin", "reactor"]
