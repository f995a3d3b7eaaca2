"""What has columns: CSV and the sheets of workbooks, as the items of their rows."""
