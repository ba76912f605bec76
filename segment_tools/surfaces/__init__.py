"""How the tools are reached: MCP, the shell, and the demo that shows both."""
