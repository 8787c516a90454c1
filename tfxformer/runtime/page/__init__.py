"""A static page that runs a file in the browser."""
