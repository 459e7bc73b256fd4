"""A trained model over HTTP: crops are answered at once, slides become jobs."""
