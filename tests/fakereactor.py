"""The public one, under its old name."""

from chanproxy.testing.reactor import FakeReactor as FakeReactor
