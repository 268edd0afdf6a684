"""Reports of a comparison: one HTML page, a Markdown summary and a text explanation.

Takes a history with the findings on it, returns text; reads no clock and writes no file.
"""
