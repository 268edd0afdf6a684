"""One self-contained HTML page, and the same as Markdown."""
