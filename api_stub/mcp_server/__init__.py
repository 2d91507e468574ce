"""The memory as tools of an assistant: an MCP server."""
