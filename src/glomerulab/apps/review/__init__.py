"""Change calls in the browser and see every count follow: a report's page and its program."""
