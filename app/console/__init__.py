"""The console: pages for people, over the same API as everybody's, in files that need no build.

What others wrote of them is listed in `assets/vendor/VENDORED`.
"""
