"""Shared by the web programs: sockets, security headers, error handlers, static files."""
