"""Commands that start processes or work on the database itself; the others ask the API."""
