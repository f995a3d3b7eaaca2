-- What is removed keeps no credentials: they would be in every dump, and under the key of the day.
UPDATE destinations SET credentials = '' WHERE state = 'removed';
