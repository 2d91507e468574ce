"""The local stack: the servers and processes that one command starts, watches and stops."""
