"""Readers of the chat logs that people own: one a format, each a generator of messages."""
