"""Fake providers: one server that answers like the real APIs and remembers what it was asked."""
