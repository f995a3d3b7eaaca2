"""Every version of every record, as the jobs that made them left them: one row for each chunk of a job."""
