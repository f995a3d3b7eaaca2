"""The client behind `tranche push`: a file in, an honest outcome for every row out. It speaks HTTP only.

`source_file` understands the file, `push` sends it, follows its job and sends again what the server marked `retry`,
`outcomes` remembers what became of every row that is not well, `failed_file` writes those rows out, `summary` reports,
and `journal` lets a killed run go on.
"""
