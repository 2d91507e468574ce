"""The readers of chat logs."""
