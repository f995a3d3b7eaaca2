"""Files as they come out of other systems, read piece by piece: bytes go in as they arrive, items come out.

Every machine here takes input of any size with `feed` and the rest of it with `finish`; how the input is cut
makes no difference to what comes out, and no machine holds more than a record.
"""
