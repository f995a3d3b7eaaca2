"""The client behind `tranche push`: a file in, an honest outcome for every row out. It speaks HTTP only.

`reader` turns a file into rows, `batches` groups them and gives each group its idempotency key, `uploader` sends
them and sends again what the server marked `retry`, `effects` waits for the destinations, `results` remembers
what became of every row that is not well, `failed_file` writes those rows out, and `journal` lets a killed run go on.
"""
