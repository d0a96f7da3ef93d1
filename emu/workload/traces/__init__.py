"""Trace files as a stream: bytes -> lines -> rows -> the window.

`file` opens and decompresses, `lines` cuts, `formats` names the columns, `csv_rows` and `json_rows` read one line, `times`
settles the unit, `window` keeps the rows asked for, `outside` hurries past the others and `read` joins them. Memory grows with
the window, never with the file.
"""
